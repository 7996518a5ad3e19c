"""Data buffers in machine memory: the device's DMA reaches them, so nothing is copied on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import UsageError
from vmkernel_core.memory import OutOfMachineMemory
from vmkernel_core.storage.sg_array import SgArray

if TYPE_CHECKING:
    from types import TracebackType

    from vmkernel_core.memory import MachineMemory


class Buffer(SgArray):
    """``length`` bytes of contiguous machine memory; ``view`` is a writable memoryview over them.

    ``address`` is where they lie in this process, ``machine_address`` where a device sees them.

    Whoever reads a device into it, or writes from it, finds the device's own bytes there. It is given back by
    ``close``, at the end of a ``with``, or when nobody refers to it or to ``view`` any more; a command in flight does.
    When the vmkernel stops its memory goes: ``view`` must not be used from then on.
    Raises UsageError for no bytes, OutOfMachineMemory.
    """

    def __init__(self, memory: MachineMemory, length: int) -> None:
        if length <= 0:
            raise UsageError(f"a buffer of {length} bytes")
        self.address: int = lib.vmk_run_alloc(length, 0)
        if not self.address:
            raise OutOfMachineMemory(
                f"no room for a buffer of {length} bytes",
                remedy="use smaller buffers, or give the machine more memory",
            )
        self.machine_address = self.address - memory.base
        super().__init__(memory, [(self.machine_address, length)])

        def give_back(owned: object) -> None:
            if memory.fd >= 0:
                lib.vmk_free(int(ffi.cast("uint64_t", owned)))

        self._memory = ffi.gc(ffi.cast("char *", self.address), give_back, length)
        self.view = memoryview(ffi.buffer(self._memory, length)).cast("B")

    def close(self) -> None:
        """Give the memory back. May be called twice; BufferError when somebody has a part of ``view``."""
        self.view.release()
        ffi.release(self._memory)

    def __enter__(self) -> Buffer:
        """Use it as a context manager that closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
