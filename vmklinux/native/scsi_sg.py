"""The data of SCSI commands in the segments that an adapter takes (scsi_sg.c cuts it, for Linux's drivers too)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmkernel_core.storage.sg_array import SgArray
    from vmklinux.native.scsi_host import ScsiHost


class SgLimits:
    """What one command of a host's can carry."""

    def __init__(self, host: ScsiHost) -> None:
        """The limits that its driver has set."""
        self._host = host
        limits = self._limits = ffi.new("struct linux_sg_limits *")
        limits.boundary, limits.alignment = host.dma_boundary, host.dma_alignment
        limits.size, limits.segments = host.max_segment_size, max(host.sg_tablesize, 1)

    def most(self, sectors: int) -> int:
        """Bytes of one command, in whatever contiguous memory they lie, that is to have no more sectors than those."""
        segments = max(self._host.sg_tablesize - 1, 1)  # they may begin amid a page
        return max(min(sectors * 512, segments * self._host.max_segment_size), 4096)

    def fits(self, buffer: SgArray, offset: int, length: int) -> int:
        """How many bytes of that part of a buffer one command can carry."""
        return self._cut(buffer, offset, length, ffi.NULL)[1]

    def _cut(self, buffer: SgArray, offset: int, length: int, out: Any) -> tuple[int, int]:
        """Cut data into segments, which are written to ``out``; how many they are, and how many bytes they hold."""
        pieces, fits = ffi.cast("struct vmk_sg_elem *", buffer.pieces), ffi.new("uint32_t *")
        count = lib.linux_sg_cut(self._limits, pieces, buffer.count, offset, length, out, fits)
        return int(count), int(fits[0])

    def segments(self, buffer: SgArray, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Where a command's data lies; UsageError when it is not in the buffer, or in too many pieces."""
        if buffer.count == 1:
            start = buffer.elements[0][0] + offset
            host = self._host
            if (
                length <= host.max_segment_size
                and offset + length <= buffer.length
                and not start & host.dma_alignment
                and start | host.dma_boundary >= start + length - 1
            ):
                return ((start, length),)
        pieces = ffi.new("struct vmk_sg_elem[]", self._limits.segments)
        count, fits = self._cut(buffer, offset, length, pieces)
        if fits == length:
            return [(piece.address, piece.length) for piece in pieces[0:count]]
        raise UsageError(
            "the data of a command is not in its buffer, or in pieces that the adapter cannot take in one command",
            where=self._host.name,
            remedy="read and write cut it; limits.transfer holds for contiguous data",
        )
