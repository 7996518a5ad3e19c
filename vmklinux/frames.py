"""Frames on their way between an uplink and a port of the C core's, for both engines."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, UsageError
from vmkernel_core.net.uplink import Frame, LinkDown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmkernel_core.errors import VmkError

ETH_P_8021Q = 0x8100  # include/uapi/linux/if_ether.h
#: Bytes, and frames, that one receive() can hand out.
RECEIVE_BUFFER, RECEIVE_MOST = 4 << 20, 1024


@cache
def _plain(frames: int) -> struct.Struct:
    """struct linux_frame for so many frames that ask nothing of the device."""
    return struct.Struct("<" + "I16x" * frames)


def _descriptor(frame: bytes | Frame) -> bytes:
    if not isinstance(frame, Frame):
        return _plain(1).pack(len(frame))
    start, offset = frame.checksum or (0, 0)
    gso_type = lib.LINUX_GSO_NONE
    if frame.gso_size:
        at = 16 if frame.data[12:14] == b"\x81\x00" else 12
        gso_type = lib.LINUX_GSO_TCPV6 if frame.data[at : at + 2] == b"\x86\xdd" else lib.LINUX_GSO_TCPV4
    flags = lib.LINUX_FRAME_NEEDS_CSUM if frame.checksum else 0
    vlan = (0, 0) if frame.vlan is None else (frame.vlan, 1)
    try:
        return struct.pack(
            "<I8H",
            len(frame.data),
            *vlan,
            flags,
            gso_type,
            frame.header_length,
            frame.gso_size,
            start,
            offset,
        )
    except struct.error as error:
        raise UsageError("a number in a frame does not fit 16 bits", where=f"{frame!r:.200}") from error


def with_tag_inside(frame: bytes | Frame) -> bytes | Frame:
    """The frame with its VLAN tag put in by us."""
    if not isinstance(frame, Frame) or frame.vlan is None:
        return frame
    _descriptor(frame)  # refuses numbers that do not fit
    tag = struct.pack(">HH", ETH_P_8021Q, frame.vlan)
    start, offset = frame.checksum or (0, 0)
    return replace(
        frame,
        data=frame.data[:12] + tag + frame.data[12:],
        vlan=None,
        checksum=frame.checksum and (start + len(tag), offset),
        header_length=frame.header_length and frame.header_length + len(tag),
    )


def pack(frames: Sequence[bytes | Frame], *, device_tags: bool) -> tuple[Any, Any]:
    """A batch as the C core takes it: the frames' bytes, one after the other, and an array of struct linux_frame.

    ``device_tags``: the device puts VLAN tags in; else it is done here. UsageError for numbers that do not fit.
    """
    try:
        data = b"".join(frames)  # type: ignore[arg-type]  # Frames take the other way
        described = _plain(len(frames)).pack(*map(len, frames))  # type: ignore[arg-type]  # likewise
    except TypeError:
        ready = frames if device_tags else list(map(with_tag_inside, frames))
        data = b"".join(frame.data if isinstance(frame, Frame) else frame for frame in ready)
        described = b"".join(map(_descriptor, ready))
    return ffi.from_buffer(data), ffi.from_buffer("struct linux_frame[]", described)


def refusal(error: int, name: str, driver: str, mtu: int) -> VmkError:
    """What a negative result of a port means to the program that had it send."""
    if error == -errno.EMSGSIZE:
        return UsageError(
            f"a frame does not fit: {name} takes 14 to {mtu + 14} bytes at its MTU, 4 more with a VLAN tag, and"
            " offloads that lie inside the frame (a gso_size of 64 or more)",
            remedy="none of the frames was sent; set a larger mtu, or gso_size for TCP",
        )
    if error == -errno.EOPNOTSUPP:
        return UsageError(
            f"a frame asks for an offload that {name} does not do now",
            remedy="none of the frames was sent; `features` tells what it does, set_feature() switches it",
        )
    if error == -errno.ENODEV:
        return DeviceGone(f"the device behind {driver} has gone")
    return LinkDown(f"{name} has no link", where=driver, remedy="wait_link() tells when it has")


class Receiver:
    """Fetches received frames from a port; ``fetch`` is its C function without the port."""

    def __init__(self, fetch: Callable[[Any, int, Any, Any, int], int]) -> None:
        self._fetch = fetch
        self._buffer = bytearray(RECEIVE_BUFFER)
        self._data = ffi.from_buffer(self._buffer)
        self._lengths = ffi.new("uint32_t[]", RECEIVE_MOST)

    def receive(self, max_frames: int) -> list[bytes]:
        """Fetch frames."""
        have = self._fetch(self._data, RECEIVE_BUFFER, self._lengths, ffi.NULL, min(max_frames, RECEIVE_MOST))
        frames, at, view = [], 0, memoryview(self._buffer)
        for length in self._lengths[0:have]:
            frames.append(bytes(view[at : at + length]))
            at += length
        return frames

    def receive_frames(self, max_frames: int) -> list[Frame]:
        """Fetch frames with what is known of them."""
        most = min(max_frames, RECEIVE_MOST)
        told = ffi.new("struct linux_frame[]", most)
        have = self._fetch(self._data, RECEIVE_BUFFER, self._lengths, told, most)
        frames, at, view = [], 0, memoryview(self._buffer)
        for frame in told[0:have]:
            unfinished = frame.flags & lib.LINUX_FRAME_NEEDS_CSUM
            frames.append(
                Frame(
                    bytes(view[at : at + frame.length]),
                    checksum=(frame.csum_start, frame.csum_offset) if unfinished else None,
                    gso_size=frame.gso_size,
                    header_length=frame.header_length,
                    verified=bool(frame.flags & lib.LINUX_FRAME_CSUM_GOOD),
                )
            )
            at += frame.length
        return frames
