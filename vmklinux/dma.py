"""The control half of the DMA API (Linux kernel/dma/mapping.c); what runs per buffer is in dma.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core.memory import store
from vmklinux.api import linux_api

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
