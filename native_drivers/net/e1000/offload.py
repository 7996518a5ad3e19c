"""Frames of which the chip computes the checksum, or which it cuts into TCP segments (SDM 3.3.5 to 3.3.7, 3.5, 3.6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from native_drivers.net.e1000.descriptors import CONTEXT, DATA, TCONTEXT, TDATA

if TYPE_CHECKING:
    from vmkernel_core.net.uplink import Frame

_ETHERNET, _TAG = 14, 4
_TYPE_VLAN, _TYPE_IPV6 = 0x8100, 0x86DD
_TCP = 6
#: Of IPv4 headers: where total length, header checksum and addresses lie (RFC 791).
_IPV4_LENGTH, _IPV4_CHECKSUM, _IPV4_ADDRESSES = 2, 10, slice(12, 20)
#: Of IPv6 headers: where payload length and addresses lie (RFC 8200).
_IPV6_LENGTH, _IPV6_ADDRESSES = 4, slice(8, 40)
#: The farthest place, and the longest header, that a context can tell.
_FARTHEST = 255


def is_possible(frame: Frame) -> bool:
    """Whether a context can tell where the frame's checksum lies, and its header ends."""
    assert frame.checksum is not None
    return max(sum(frame.checksum), frame.header_length if frame.gso_size else 0) <= _FARTHEST


def checksum_context(frame: Frame) -> TCONTEXT:
    """The context of a frame that asks for its checksum: the chip sums from ``start`` to the end."""
    assert frame.checksum is not None
    start, offset = frame.checksum
    return TCONTEXT(TUCSS=start, TUCSO=start + offset, DTYP=CONTEXT, DEXT=1, TCP=1, RS=1)


def segment_context(frame: Frame) -> TCONTEXT:
    """The context of a frame that is to be cut."""
    context, at, ipv6 = checksum_context(frame), *_network(frame.data)
    context.set(
        TSE=1,
        IP=int(not ipv6),
        IPCSS=at,
        IPCSO=at + _IPV4_CHECKSUM,
        IPCSE=0 if ipv6 else context.TUCSS - 1,
        PAYLEN=len(frame.data) - frame.header_length,
        HDRLEN=frame.header_length,
        MSS=frame.gso_size,
    )
    return context


def data_descriptor(frame: Frame) -> TDATA:
    """The data descriptors of the frame, but for address, length and EOP."""
    made = TDATA(DTYP=DATA, DEXT=1, IFCS=1, RS=1, TXSM=1)
    if frame.gso_size:
        made.set(TSE=1, IXSM=int(not _network(frame.data)[1]))
    if frame.vlan is not None:
        made.set(VLE=1, special=frame.vlan)
    return made


def segment_data(frame: Frame) -> bytes:
    """The bytes of a frame that is to be cut, as the chip wants them: lengths 0, and in place of the checksums what the
    lengths of the segments are added to (SDM 3.5.7).
    """
    assert frame.checksum is not None
    data, (at, ipv6) = bytearray(frame.data), _network(frame.data)
    addresses = _IPV6_ADDRESSES if ipv6 else _IPV4_ADDRESSES
    pseudo_header = bytes(data[at + addresses.start : at + addresses.stop]) + bytes([0, _TCP])
    if ipv6:
        struct.pack_into(">H", data, at + _IPV6_LENGTH, 0)
    else:
        struct.pack_into(">H", data, at + _IPV4_LENGTH, 0)
        struct.pack_into(">H", data, at + _IPV4_CHECKSUM, 0)
    struct.pack_into(">H", data, sum(frame.checksum), _folded(pseudo_header))
    return bytes(data)


def summed(frame: Frame) -> bytes:
    """The frame with its checksum, computed here; 0 means none in UDP, so it becomes its other form (RFC 768)."""
    assert frame.checksum is not None
    (start, offset), data = frame.checksum, bytearray(frame.data)
    covered = data[start:] + bytes(len(data[start:]) % 2)
    struct.pack_into(">H", data, start + offset, 0xFFFF - _folded(covered) or 0xFFFF)
    return bytes(data)


def _network(data: bytes) -> tuple[int, bool]:
    """Where the IP header begins, and whether it is IPv6's."""
    at, (kind,) = _ETHERNET, struct.unpack_from(">H", data, 12)
    if kind == _TYPE_VLAN:
        at, (kind,) = at + _TAG, struct.unpack_from(">H", data, at + 2)
    return at, kind == _TYPE_IPV6


def _folded(data: bytes | bytearray) -> int:
    """The sum of the 16-bit words in ones' complement (RFC 1071), not inverted."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
