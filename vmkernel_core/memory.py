"""Machine memory: one memfd, mapped once, that devices reach by DMA and kernel code by address."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import UsageError, VmkError

if TYPE_CHECKING:
    from types import TracebackType

PAGE_SIZE = 4096
#: Where machine memory is mapped; kernel code learns it as page_offset_base.
BASE = 0x1000_0000_0000
#: Below 1 MiB a PC's memory has holes (VGA, BIOS) where DMA does not arrive, so nothing is allocated there.
RESERVED = 1 << 20
#: The least that a driver could begin with.
LEAST = 4 << 20


class OutOfMachineMemory(VmkError):
    """Machine memory has no room left for what was asked."""


class MachineMemory:
    """The machine's RAM: ``size`` bytes behind one memfd (``fd``), mapped at ``base``.

    A DMA address is an offset into it. ``view`` is a writable memoryview over all of it, for device models.
    One exists per process, because the C core and the kernel image hold its address.
    """

    def __init__(self, size: int = 256 << 20) -> None:
        if size < LEAST or size % PAGE_SIZE:
            raise UsageError(
                f"{size} bytes cannot be machine memory",
                remedy=f"use whole pages of {PAGE_SIZE} bytes, {LEAST >> 20} MiB or more",
            )
        self.base = BASE
        self.size = size
        self.fd = os.memfd_create("machine-memory", os.MFD_CLOEXEC)
        os.truncate(self.fd, size)
        error = lib.vmk_map(BASE, size, 3, 1, self.fd, 0) or lib.vmk_memory_init(BASE, size, RESERVED)
        if error:
            os.close(self.fd)
        if error == -errno.EEXIST:
            raise UsageError(
                "this process has a machine already, and can have one at a time",
                remedy="stop that one first, or use another process",
            )
        if error:
            raise OutOfMachineMemory(
                f"cannot map {size >> 20} MiB of machine memory: {os.strerror(-error)}",
                where=f"address {BASE:#x}",
                remedy="ask for less memory",
            )
        self.view = memoryview(ffi.buffer(ffi.cast("char *", BASE), size)).cast("B")

    def close(self) -> None:
        """Unmap it; every address into it is dead from then on. May be called twice."""
        if self.fd < 0:
            return
        self.view.release()
        lib.vmk_memory_fini()
        lib.vmk_unmap(self.base, self.size)
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> MachineMemory:
        """Use it as a context manager that closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


_POINTERS = {size: ffi.typeof(f"uint{size * 8}_t *") for size in (1, 2, 4, 8)}


def load(address: int, size: int) -> int:
    """Read an unsigned integer of 1, 2, 4 or 8 bytes at a virtual address of this process."""
    return int(ffi.cast(_POINTERS[size], address)[0])


def store(address: int, size: int, value: int) -> None:
    """Write an integer of 1, 2, 4 or 8 bytes at a virtual address of this process, wrapped to its size."""
    ffi.cast(_POINTERS[size], address)[0] = value & ((1 << size * 8) - 1)


def load_bytes(address: int, length: int) -> bytes:
    """Copy ``length`` bytes out of this process's memory."""
    return bytes(ffi.buffer(ffi.cast("char *", address), length))


def store_bytes(address: int, data: bytes) -> None:
    """Copy ``data`` to a virtual address of this process."""
    ffi.memmove(ffi.cast("char *", address), data, len(data))


def load_string(address: int, limit: int = 4096) -> str:
    """The zero-terminated string at an address, decoded as UTF-8 with replacement; "" for a null pointer."""
    if not address:
        return ""
    text: bytes = ffi.string(ffi.cast("char *", address), limit)
    return text.decode("utf-8", "replace")
