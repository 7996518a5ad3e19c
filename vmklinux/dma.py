"""The control half of the DMA API (Linux kernel/dma/mapping.c); what runs per buffer is in dma.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core.memory import load, store
from vmklinux.api import linux_api
from vmklinux.devres import Devres

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


def _reaches(linux: Linux, mask: int) -> bool:
    return mask >= linux.memory.size - 1


@linux_api()
def dma_set_mask(linux: Linux, dev: Obj, mask: int) -> int:
    """Tell how many address bits the device has; -EIO when it cannot reach all of machine memory."""
    if not _reaches(linux, mask):
        return -errno.EIO
    if dev.dma_mask:
        store(dev.dma_mask, 8, mask)
    return 0


@linux_api()
def dma_set_coherent_mask(linux: Linux, dev: Obj, mask: int) -> int:
    """Tell how many address bits the device has for coherent memory."""
    if not _reaches(linux, mask):
        return -errno.EIO
    dev.coherent_dma_mask = mask
    return 0


@linux_api()
def dma_get_required_mask(linux: Linux, dev: Obj) -> int:
    """The smallest mask that reaches all of machine memory."""
    return (1 << (linux.memory.size - 1).bit_length()) - 1


@linux_api()
def dmam_alloc_attrs(linux: Linux, dev: Obj, size: int, dma_handle: int, gfp: int, attrs: int) -> int:
    """Allocate memory that the device shares, until the driver lets go of it."""
    vaddr = linux.call(linux.entry("dma_alloc_attrs"), dev, size, dma_handle, gfp, attrs)
    if vaddr:
        handle, free = load(dma_handle, 8), linux.entry("dma_free_attrs")
        linux.state(Devres).action(
            dev, lambda: linux.call(free, dev, size, vaddr, handle, attrs), (vaddr, handle)
        )
    return vaddr


@linux_api()
def dmam_free_coherent(linux: Linux, dev: Obj, size: int, vaddr: int, dma_handle: int) -> None:
    """Free such memory early."""
    devres = linux.state(Devres)
    if action := devres.find_action(dev, (vaddr, dma_handle)):
        devres.take(dev, action)
        devres.end(dev, action)
