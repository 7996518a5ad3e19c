"""Frames on their way from an uplink to a driver in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi
from vmkernel_core.net.uplink import Frame
from vmklinux.frames import pack, with_tag_inside

if TYPE_CHECKING:
    from collections.abc import Sequence


class TxBatch:
    """Frames to be sent, of which the driver takes as many as it has room for, from the first on.

    ``handle`` is the C core's struct native_batch, for TxRing.post: it takes frames that ask for nothing but what a
    descriptor's fields tell.
    """

    def __init__(self, frames: Sequence[bytes | Frame], *, device_tags: bool) -> None:
        """``device_tags``: the device puts VLAN tags in. UsageError for numbers that do not fit."""
        self._frames, self._device_tags = frames, device_tags
        self._data, self._table = pack(frames, device_tags=device_tags)  # which C only points to
        self.handle: Any = ffi.new("struct native_batch *")
        self.handle.data, self.handle.frames, self.handle.count = self._data, self._table, len(frames)

    def __len__(self) -> int:
        """How many frames were given, the taken ones too."""
        return len(self._frames)

    @property
    def taken(self) -> int:
        """How many the driver took."""
        return int(self.handle.taken)

    def next(self) -> Frame | None:
        """The first that was not taken, with what it asks for; None when there is none left. A tag that the device need
        not put in is in its data.
        """
        if self.taken == len(self._frames):
            return None
        frame = self._frames[self.taken]
        if not self._device_tags:
            frame = with_tag_inside(frame)
        return frame if isinstance(frame, Frame) else Frame(frame)

    def take(self) -> None:
        """The driver took the frame that ``next`` told of by itself."""
        self.handle.offset += self._table[self.handle.taken].length
        self.handle.taken += 1
