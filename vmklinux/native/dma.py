"""Memory that driver and device share (Linux kernel/dma/mapping.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.memory import OutOfMachineMemory

if TYPE_CHECKING:
    from vmklinux.native.device import Device
    from vmklinux.native.devres import Release


@dataclass(frozen=True)
class DmaMemory:
    """``length`` bytes at ``address`` in this process, which the device sees at ``dma``; ``view`` reads and writes them.

    Nobody may use ``view`` after the driver let go of the device.
    """

    address: int
    dma: int
    length: int
    view: memoryview
    release: Release


def dma_alloc_coherent(device: Device, length: int) -> DmaMemory:
    """Zeroed memory that begins at a page, until the driver lets go of the device: it goes back after all else, when the
    device reaches no memory any more. OutOfMachineMemory.
    """
    address: int = lib.vmk_run_alloc(length, 0)
    if not address:
        raise OutOfMachineMemory(
            f"no room for {length} bytes that a device shares",
            where=device.name,
            remedy="give the machine more memory",
        )
    view = memoryview(ffi.buffer(ffi.cast("char *", address), length)).cast("B")
    view[:] = bytes(length)

    def free() -> None:
        view.release()
        lib.vmk_free(address)

    release = device.devres.add(free, late=True)
    return DmaMemory(address, address - device.memory.base, length, view, release)


def dma_free_coherent(memory: DmaMemory) -> None:
    """Give such memory back already now. May be called twice."""
    memory.release.now()
