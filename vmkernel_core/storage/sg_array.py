"""Data that lies in pieces: where in machine memory a device finds it, or puts it (ESX's vmk_SgArray)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import ffi
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmkernel_core.memory import MachineMemory


class SgArray:
    """Data in pieces of machine memory, in the order in which a device reads or fills them.

    ``elements`` are pairs: the machine address of a piece, which is its place in ``MachineMemory``, and its length in
    bytes; ``length`` is their sum. Where pieces may begin and end, a device's ``limits.alignment`` tells; the blocks of
    a disk may lie across them. Nothing is copied: the memory is the caller's, who keeps it until the commands that use
    it have ended. A guest's pages are such pieces.

    Raises UsageError for no pieces, an empty one, or one that is not inside the memory.
    """

    def __init__(self, memory: MachineMemory, elements: Iterable[tuple[int, int]]) -> None:
        self.elements = tuple(elements)
        for address, length in self.elements:
            if length <= 0 or not 0 <= address <= memory.size - length:
                raise UsageError(
                    f"{length} bytes at machine address {address:#x}",
                    remedy=f"pieces of at least one byte inside the machine's {memory.size} bytes",
                )
        if not self.elements:
            raise UsageError("data in no pieces")
        self.length = sum(length for _, length in self.elements)
        #: The same for the C half: so many struct vmk_sg_elem at an address of this process.
        self.count = len(self.elements)
        self._array = ffi.new("struct vmk_sg_elem[]", self.elements)
        self.pieces = int(ffi.cast("uint64_t", self._array))
