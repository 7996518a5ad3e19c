"""What drivers let QEMU's e1000e and vmxnet3 do to a frame: checksums, VLAN tags, TCP segmentation.

Independent: QEMU's cards, and Debian's drivers where the engine is Linux. The judge is RFC 1071's sum, written for
these tests. QEMU 7.2 cuts what these two cards shall segment into IP fragments instead (its e1000, which is tested
elsewhere, segments): so the far end puts fragments together, as RFC 791 tells, and looks at what the driver handed to
the card as a whole.
"""

from __future__ import annotations

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import Peer
from tests.e2e.engines import on_each
from tests.e2e.packets import (
    ACK,
    IPV4,
    IPV6,
    NAMES,
    PEER,
    PSH,
    TCP,
    UDP,
    Datagram,
    pattern,
    raw_address,
    sized,
    tagged,
    unfinished,
    unsummed,
)
from vmkernel_core.net.uplink import Frame, Uplink

PAYLOADS = (0, 1, 5, 26, 27, 100, 999, 1440)
IP = slice(14, 34)


driven = on_each("e1000e", "e1000e-msix", "vmxnet3")


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=NAMES.get)
@pytest.mark.parametrize("kind", [IPV4, IPV6], ids=NAMES.get)
def test_checksum(nic: Uplink, wire: Peer, kind: int, protocol: int) -> None:
    frames = [unsummed(pattern(length, length), kind, protocol) for length in PAYLOADS]
    arrived = wire.sent_by(nic, frames)
    for frame, seen in zip(frames, map(Datagram, arrived), strict=True):
        assert not Datagram(frame.data).checksum_is_good, "the test gave the checksum away"
        assert (seen.checksum_is_good, seen.header_is_good) == (True, True)
        assert seen.payload == Datagram(frame.data).payload


def test_frames_that_ask_for_nothing_are_left_alone(nic: Uplink, wire: Peer) -> None:
    wanted = unsummed(b"summed by the card", IPV4, TCP)
    frames: list[bytes | Frame] = [wanted, wanted.data, wanted, wanted.data]
    arrived = [Datagram(frame) for frame in wire.sent_by(nic, frames)]
    assert [seen.checksum_is_good for seen in arrived] == [True, False, True, False]
    assert arrived[1].frame == wanted.data


def test_tags(nic: Uplink, wire: Peer) -> None:
    plain = [sized(PEER, length, length, source=raw_address(MAC)) for length in (60, 61, 1000, 1514)]
    nic.set_vlans([0x123])
    try:
        assert wire.sent_by(nic, [Frame(frame, vlan=0x6123) for frame in plain]) == [
            tagged(frame, 0x6123) for frame in plain
        ]
        (arrived,) = wire.sent_by(nic, [unsummed(b"tagged and summed", IPV4, TCP, vlan=0x123)])
        assert arrived[12:16] == bytes.fromhex("81000123")
        assert Datagram(arrived[:12] + arrived[16:]).checksum_is_good
        wire.listens(nic)
        back = [tagged(sized(raw_address(MAC), length, length), 0x123) for length in (60, 200, 1514)]
        assert wire.received_by(nic, back) == back
    finally:
        nic.set_vlans([])


def put_together(frames: list[bytes]) -> bytes:
    """The IPv4 packet that arrived in fragments, without the Ethernet header."""
    body = bytearray()
    for frame in frames:
        header = frame[IP]
        assert Datagram(frame).header_is_good
        at = (int.from_bytes(header[6:8], "big") & 0x1FFF) * 8
        assert at == len(body), "the fragments come in order and leave no gap"
        body += frame[34 : 14 + int.from_bytes(header[2:4], "big")]
    return bytes(body)


@pytest.mark.parametrize(("size", "length"), [(1448, 1449), (1448, 2896), (536, 10_000), (1460, 65_481)])
def test_what_shall_be_segmented_goes_to_the_card_whole(
    nic: Uplink, wire: Peer, size: int, length: int
) -> None:
    payload = pattern(length, 3)
    data = unfinished(PEER, payload, flags=ACK | PSH)
    end = sized(PEER, 60, 1, source=raw_address(MAC))
    nic.transmit_all([Frame(data, checksum=(34, 16), gso_size=size, header_length=54), end])
    arrived = []
    while (frame := wire.next()) != end:
        arrived.append(frame)
    assert len(arrived) > 1
    assert max(map(len, arrived)) <= 54 + size
    packet = put_together(arrived)
    assert packet[20:] == payload
    assert packet[:16] == data[34:50], "the TCP header, up to its checksum"
