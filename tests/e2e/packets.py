"""Frames for the tests, built field by field, and RFC 1071's checksum to judge those that come back."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

from vmkernel_core.net.uplink import Frame

PEER = bytes.fromhex("020000000001")
TEST_TYPE = 0x88B5
"""IEEE's EtherType for local experiments."""
VLAN_TYPE = b"\x81\x00"
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17
#: As a test's id tells them.
NAMES = {IPV4: "IPv4", IPV6: "IPv6", TCP: "TCP", UDP: "UDP"}
CHECKSUM_OFFSET = {TCP: 16, UDP: 6}
FIN, PSH, ACK = 0x01, 0x08, 0x10
_ADDRESSES = {
    IPV4: (bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2])),
    IPV6: (bytes.fromhex("20010db8" + "0" * 23 + "1"), bytes.fromhex("20010db8" + "0" * 23 + "2")),
}


def raw_address(text: str) -> bytes:
    """The six bytes of ``52:54:00:12:34:56``."""
    return bytes.fromhex(text.replace(":", ""))


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071's sum of 16-bit words; 0xffff over data that holds its own right checksum."""
    total: int = sum(word for (word,) in struct.iter_unpack(">H", data + bytes(len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pattern(length: int, seed: int) -> bytes:
    """Bytes that differ from one place to the next and from one seed to the next."""
    return bytes((seed * 7 + place * 13 + (place >> 8)) & 0xFF for place in range(length))


def ethernet(to: bytes, payload: bytes, *, kind: int = TEST_TYPE, source: bytes = PEER) -> bytes:
    """An Ethernet II frame without FCS."""
    return to + source + kind.to_bytes(2, "big") + payload


def sized(to: bytes, length: int, seed: int, source: bytes = PEER) -> bytes:
    """A frame of ``length`` bytes in all, its content a pattern."""
    return ethernet(to, pattern(length - 14, seed), source=source)


def tagged(frame: bytes, control: int) -> bytes:
    """The frame with an IEEE 802.1Q tag: priority, drop eligible, VLAN id in 16 bits."""
    return frame[:12] + VLAN_TYPE + control.to_bytes(2, "big") + frame[12:]


def pseudo_header(kind: int, protocol: int, length: int) -> bytes:
    """What TCP's and UDP's checksum covers of the IP header (RFC 9293, 3.1; RFC 8200, 8.1)."""
    layout = ">BBH" if kind == IPV4 else ">IxxxB"
    fields = (0, protocol, length) if kind == IPV4 else (length, protocol)
    return b"".join(_ADDRESSES[kind]) + struct.pack(layout, *fields)


def _ip(kind: int, protocol: int, length: int, identification: int) -> bytes:
    source, destination = _ADDRESSES[kind]
    if kind == IPV6:
        return struct.pack(">IHBB", 6 << 28, length, protocol, 64) + source + destination
    fixed = struct.pack(">BBHHHBB", 0x45, 0, 20 + length, identification, 0x4000, 64, protocol)
    check = ones_complement_sum(fixed + source + destination) ^ 0xFFFF
    return fixed + check.to_bytes(2, "big") + source + destination


def unfinished(
    to: bytes,
    payload: bytes,
    *,
    kind: int = IPV4,
    protocol: int = TCP,
    flags: int = ACK,
    sequence: int = 0x1000_0000,
    identification: int = 0x4000,
) -> bytes:
    """A TCP or UDP frame as a network stack leaves it to the device: the checksum field has the pseudo header's sum."""
    length = len(payload) + (20 if protocol == TCP else 8)
    seed = ones_complement_sum(pseudo_header(kind, protocol, length))
    if protocol == TCP:
        header = struct.pack(">HHIIBBHHH", 40000, 80, sequence, 77, 5 << 4, flags, 8192, seed, 0)
    else:
        header = struct.pack(">HHHH", 40000, 53, length, seed)
    return ethernet(to, _ip(kind, protocol, length, identification) + header + payload, kind=kind)


def unsummed(payload: bytes, kind: int, protocol: int, vlan: int | None = None) -> Frame:
    """A frame to PEER whose TCP or UDP checksum, and VLAN tag, the device shall put in."""
    data = unfinished(PEER, payload, kind=kind, protocol=protocol)
    return Frame(data, checksum=(Datagram(data).start, CHECKSUM_OFFSET[protocol]), vlan=vlan)


@dataclass(frozen=True)
class Datagram:
    """A received frame that holds IPv4 or IPv6 and TCP or UDP, taken apart."""

    frame: bytes

    @cached_property
    def kind(self) -> int:
        """The EtherType."""
        return int.from_bytes(self.frame[12:14], "big")

    @property
    def start(self) -> int:
        """Where the TCP or UDP header begins."""
        return 14 + (20 if self.kind == IPV4 else 40)

    @property
    def protocol(self) -> int:
        """TCP or UDP, by its number."""
        return self.frame[23] if self.kind == IPV4 else self.frame[20]

    @property
    def end(self) -> int:
        """Where the packet ends by its IP header; padding may follow."""
        length = int.from_bytes(self.frame[16:18] if self.kind == IPV4 else self.frame[18:20], "big")
        return length + (14 if self.kind == IPV4 else 54)

    @property
    def header_is_good(self) -> bool:
        """Whether the IPv4 header's checksum is right; IPv6 has none."""
        return self.kind != IPV4 or ones_complement_sum(self.frame[14:34]) == 0xFFFF

    @property
    def checksum_is_good(self) -> bool:
        """Whether the TCP or UDP checksum is right."""
        segment = self.frame[self.start : self.end]
        covered = pseudo_header(self.kind, self.protocol, len(segment)) + segment
        return ones_complement_sum(covered) == 0xFFFF

    @property
    def identification(self) -> int:
        """IPv4's identification."""
        return int.from_bytes(self.frame[18:20], "big")

    @property
    def sequence(self) -> int:
        """TCP's sequence number."""
        return int.from_bytes(self.frame[self.start + 4 : self.start + 8], "big")

    @property
    def flags(self) -> int:
        """TCP's flags."""
        return self.frame[self.start + 13]

    @property
    def payload(self) -> bytes:
        """What follows the TCP or UDP header."""
        header = (self.frame[self.start + 12] >> 4) * 4 if self.protocol == TCP else 8
        return self.frame[self.start + header : self.end]
