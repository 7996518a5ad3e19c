"""What the 82540EM computes over frames: checksums, TCP segmentation, VLAN tags.

Section 3.5 of Intel's SDM (transmit), "Receive Packet Checksum Offloading" (receive); RFC 1071's arithmetic.

The SDM has the IPv6 payload length include the 40 bytes of the IPv6 header, which would make every segment
invalid; here it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel_core.platform.e1000_registers import Rxcsum, RxError, RxStatus

# TUCMD of a context descriptor (SDM 3.3.6.1).
_TCP = 1 << 0
_IPV4 = 1 << 1
# POPTS of a data descriptor (SDM 3.3.7.3).
_INSERT_IP = 1 << 0
_INSERT_TCP_UDP = 1 << 1

_IPV6_HEADER = 40
_FIN_AND_PSH = 0x09
_TCP_PROTOCOL, _UDP_PROTOCOL = 6, 17


def ones_complement_sum(data: bytes | bytearray) -> int:
    """RFC 1071's sum of big-endian 16-bit words, an odd byte padded with zero; 0 only when all is zero.

    The end-around carry makes it the number modulo 65535, which is far quicker than adding word by word.
    """
    value = int.from_bytes(data, "big") << (len(data) & 1) * 8
    return value % 0xFFFF or (0xFFFF if value else 0)


def insert_checksum(frame: bytearray, start: int, offset: int, end: int, *, udp: bool = False) -> None:
    """Sum ``frame`` from ``start`` to ``end`` (inclusive; 0: the rest), store the complement at ``offset``.

    What stands there already is part of the sum: the pseudo-header's, which software leaves there. Nothing is
    done when the field is outside the frame. ``udp``: a checksum of 0 is sent as 0xffff (RFC 768).
    """
    if offset + 2 > len(frame):
        return
    checksum = ones_complement_sum(frame[start : end + 1 if end else None]) ^ 0xFFFF
    if udp and not checksum:
        checksum = 0xFFFF
    frame[offset : offset + 2] = checksum.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class OffloadContext:
    """A TCP/IP context descriptor (SDM 3.3.6): where the checksums lie and how to segment."""

    ipcss: int
    ipcso: int
    ipcse: int
    tucss: int
    tucso: int
    tucse: int
    command: int
    header_length: int
    mss: int

    @classmethod
    def decode(cls, low: int, high: int) -> OffloadContext:
        """From the descriptor's two 64-bit words."""
        return cls(
            ipcss=low & 0xFF,
            ipcso=low >> 8 & 0xFF,
            ipcse=low >> 16 & 0xFFFF,
            tucss=low >> 32 & 0xFF,
            tucso=low >> 40 & 0xFF,
            tucse=low >> 48,
            command=high >> 24 & 0xFF,
            header_length=high >> 40 & 0xFF,
            mss=high >> 48,
        )

    def checksummed(self, frame: bytearray, options: int) -> bytes:
        """The frame with the checksums that ``options`` (POPTS) asks for."""
        if options & _INSERT_TCP_UDP:
            insert_checksum(frame, self.tucss, self.tucso, self.tucse, udp=not self.command & _TCP)
        if options & _INSERT_IP:
            insert_checksum(frame, self.ipcss, self.ipcso, self.ipcse)
        return bytes(frame)

    def segments(self, packet: bytes, options: int) -> list[bytes]:
        """The frames that a large packet becomes; none when the context does not fit the packet.

        SDM 3.5.9: each repeats the header with its own IP length, identification, TCP sequence
        number and checksums; FIN and PSH stay with the last.
        """
        size = self.header_length
        fields_end = max(self.ipcss + 6, self.tucss + (14 if self.command & _TCP else 6), self.tucso + 2)
        if not self.mss or not fields_end <= size < len(packet):
            return []
        header = packet[:size]
        frames = []
        for index, start in enumerate(range(size, len(packet), self.mss)):
            frame = bytearray(header)
            frame += packet[start : start + self.mss]
            last = start + self.mss >= len(packet)
            self._number(frame, index, start - size, last)
            if options & _INSERT_TCP_UDP:
                # Software leaves the pseudo-header's sum without the length, which each frame has its own of.
                _add(frame, self.tucso, len(frame) - self.tucss, carry=True)
            frames.append(self.checksummed(frame, options))
        return frames

    def _number(self, frame: bytearray, index: int, sent: int, last: bool) -> None:
        if self.command & _IPV4:
            _store(frame, self.ipcss + 2, len(frame) - self.ipcss)
            _add(frame, self.ipcss + 4, index)
        else:
            _store(frame, self.ipcss + 4, len(frame) - self.ipcss - _IPV6_HEADER)
        if self.command & _TCP:
            sequence = slice(self.tucss + 4, self.tucss + 8)
            number = int.from_bytes(frame[sequence], "big") + sent
            frame[sequence] = (number & 0xFFFF_FFFF).to_bytes(4, "big")
            if not last:
                frame[self.tucss + 13] &= ~_FIN_AND_PSH
        else:
            _store(frame, self.tucss + 4, len(frame) - self.tucss)


def _store(frame: bytearray, offset: int, value: int) -> None:
    frame[offset : offset + 2] = (value & 0xFFFF).to_bytes(2, "big")


def _add(frame: bytearray, offset: int, value: int, *, carry: bool = False) -> None:
    total = (frame[offset] << 8 | frame[offset + 1]) + value
    _store(frame, offset, total + (total >> 16) if carry else total)


def received_checksums(frame: bytes, control: int) -> tuple[int, int]:
    """What the receive unit found out about a frame: the status and error bits of its descriptor.

    ``control`` is RXCSUM. Only IPv4 is looked into, behind at most one VLAN tag; fragments have no TCP or UDP
    checksum of their own.
    """
    ip = 18 if frame[12:14] == b"\x81\x00" else 14
    header = (frame[ip] & 0x0F) * 4
    end = ip + (frame[ip + 2] << 8 | frame[ip + 3])
    is_ipv4 = frame[ip - 2 : ip] == b"\x08\x00" and frame[ip] >> 4 == 4
    if not is_ipv4 or not ip + 20 <= ip + header <= end <= len(frame):
        return RxStatus.IXSM, 0
    status = errors = 0
    if control & Rxcsum.IPOFL:
        status |= RxStatus.IPCS
        if ones_complement_sum(frame[ip : ip + header]) != 0xFFFF:
            errors |= RxError.IPE
    protocol = frame[ip + 9]
    start = ip + header
    is_fragment = (frame[ip + 6] << 8 | frame[ip + 7]) & 0x3FFF
    no_checksum = protocol == _UDP_PROTOCOL and frame[start + 6 : start + 8] == b"\0\0"
    has_one = protocol in (_TCP_PROTOCOL, _UDP_PROTOCOL) and not is_fragment and not no_checksum
    if control & Rxcsum.TUOFL and has_one:
        status |= RxStatus.TCPCS
        pseudo = protocol + end - start
        covered = frame[ip + 12 : ip + 20] + pseudo.to_bytes(4, "big") + frame[start:end]
        if ones_complement_sum(covered) != 0xFFFF:
            errors |= RxError.TCPE
    return status or RxStatus.IXSM, errors
