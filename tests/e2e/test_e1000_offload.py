"""What an e1000's driver lets the card do to a frame: checksums, TCP segmentation, VLAN tags; judged on the wire.

Independent: Debian's driver, where the engine is Linux, and QEMU's e1000, where the platform is QEMU. The judge is
RFC 1071's sum, written for these tests.
"""

from __future__ import annotations

import itertools

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import Peer
from tests.e2e.packets import (
    ACK,
    FIN,
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
from vmkernel_core.errors import UsageError
from vmkernel_core.net.uplink import Frame, Uplink

ME = raw_address(MAC)
#: Payload lengths around the padding to 60 bytes, odd ones, and the most that fits a frame with any header.
PAYLOADS = (0, 1, 5, 6, 7, 26, 27, 100, 999, 1440)
VLAN = 0x0123
#: Segment size, payload: two segments, with a rest of one byte, without a rest, and nearly 64 KiB of IP packet.
SEGMENTATIONS = [(1448, 1449), (1448, 2896), (536, 10_000), (1460, 65_481)]


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=NAMES.get)
@pytest.mark.parametrize("kind", [IPV4, IPV6], ids=NAMES.get)
def test_checksum(nic: Uplink, wire: Peer, kind: int, protocol: int) -> None:
    frames = [unsummed(pattern(length, length), kind, protocol) for length in PAYLOADS]
    arrived = wire.sent_by(nic, frames)
    for frame, seen in zip(frames, map(Datagram, arrived), strict=True):
        assert not Datagram(frame.data).checksum_is_good, "the test gave the checksum away"
        assert seen.checksum_is_good
        assert seen.header_is_good
        assert seen.payload == Datagram(frame.data).payload
        assert len(seen.frame) == max(60, len(frame.data))


def test_frames_that_ask_for_nothing_are_left_alone(nic: Uplink, wire: Peer) -> None:
    """A checksum context of the frame before must not leak into the next one."""
    wanted = unsummed(b"summed by the card", IPV4, TCP)
    frames: list[bytes | Frame] = [wanted, wanted.data, wanted, wanted.data]
    arrived = [Datagram(frame) for frame in wire.sent_by(nic, frames)]
    assert [seen.checksum_is_good for seen in arrived] == [True, False, True, False]
    assert arrived[1].frame == wanted.data


@pytest.mark.parametrize(("size", "length"), SEGMENTATIONS)
def test_segmentation(nic: Uplink, wire: Peer, platform_name: str, size: int, length: int) -> None:
    full, rest = divmod(length, size)
    # Where no rest is left, QEMU's e1000 sends the last segment's header again, without payload.
    expected = [size] * full + ([rest] if rest or platform_name == "qemu" else [])
    payload = pattern(length, 3)
    data = unfinished(PEER, payload, flags=ACK | PSH | FIN, sequence=0xFFFF_F000, identification=0x7F00)
    header = len(data) - length
    frame = Frame(data, checksum=(34, 16), gso_size=size, header_length=header)
    before = sized(PEER, 60, 1, source=ME)
    arrived = wire.sent_by(nic, [before, frame, before], len(expected) + 2)
    assert arrived[0] == arrived[-1] == before
    seen = [Datagram(each) for each in arrived[1:-1]]
    assert b"".join(segment.payload for segment in seen) == payload
    assert [len(segment.payload) for segment in seen] == expected
    for number, segment in enumerate(seen):
        assert segment.frame[:14] == data[:14]
        assert segment.end == header + len(segment.payload), "the IP header's length"
        assert (segment.header_is_good, segment.checksum_is_good) == (True, True)
        assert segment.identification == 0x7F00 + number
        assert segment.sequence == (0xFFFF_F000 + number * size) % (1 << 32)
        last = number >= (length - 1) // size
        assert segment.flags == (ACK | PSH | FIN if last else ACK), "FIN and PSH are the last segment's"


def test_many_segmentations_in_a_batch(nic: Uplink, wire: Peer) -> None:
    """More than the ring holds: every payload arrives whole and in order."""
    payloads = [pattern(30_000 + seed, seed) for seed in range(24)]
    frames = [
        Frame(unfinished(PEER, payload, sequence=0), checksum=(34, 16), gso_size=1448, header_length=54)
        for payload in payloads
    ]
    count = sum(-(-len(payload) // 1448) for payload in payloads)
    seen = [Datagram(frame) for frame in wire.sent_by(nic, frames, count)]
    assert all(segment.checksum_is_good and segment.header_is_good for segment in seen)
    assert b"".join(segment.payload for segment in seen) == b"".join(payloads)


def test_a_tag_that_the_card_inserts(nic: Uplink, wire: Peer) -> None:
    plain = [sized(PEER, length, length, source=ME) for length in (60, 61, 1000, 1514)]
    frames = [Frame(frame, vlan=0x6000 | VLAN) for frame in plain]
    mixed: list[bytes | Frame] = list(itertools.chain(*zip(frames, plain, strict=True)))
    expected = list(
        itertools.chain(*zip([tagged(frame, 0x6000 | VLAN) for frame in plain], plain, strict=True))
    )
    assert wire.sent_by(nic, mixed) == expected


def test_a_tag_and_a_checksum(nic: Uplink, wire: Peer) -> None:
    frame = unsummed(b"tagged and summed", IPV4, TCP, vlan=VLAN)
    (arrived,) = wire.sent_by(nic, [frame])
    assert arrived[12:16] == bytes.fromhex("8100") + VLAN.to_bytes(2, "big")
    seen = Datagram(arrived[:12] + arrived[16:])
    assert (seen.checksum_is_good, seen.payload) == (True, b"tagged and summed")


def test_a_tag_in_the_frame_goes_out_whole(nic: Uplink, wire: Peer) -> None:
    frames = [tagged(sized(PEER, size, size, source=ME), 0x6000 | VLAN) for size in (60, 200, 1514)]
    assert wire.sent_by(nic, frames) == frames


def test_a_tag_that_the_card_strips_is_given_back(nic: Uplink, wire: Peer) -> None:
    """e1000.ko keeps the VLAN id only (its mask is 0xfff), so the priority here is 0."""
    assert "vlan-strip" in nic.features
    frames = [tagged(sized(ME, size, size), VLAN) for size in (60, 200, 1514)]
    assert wire.received_by(nic, frames) == frames


def test_a_tag_that_the_card_leaves_has_its_priority(nic: Uplink, wire: Peer) -> None:
    nic.set_feature("vlan-strip", False)
    try:
        wire.listens(nic)
        frames = [tagged(sized(ME, size, size), 0x6000 | VLAN) for size in (60, 200, 1514)]
        assert wire.received_by(nic, frames) == frames
    finally:
        nic.set_feature("vlan-strip", True)
    wire.listens(nic)


def test_a_received_frame_is_whole_whatever_its_checksum(nic: Uplink, wire: Peer) -> None:
    bad = unfinished(ME, b"its checksum is wrong")
    assert not Datagram(bad).checksum_is_good
    assert wire.received_by(nic, [bad.ljust(60, b"\0")]) == [bad.ljust(60, b"\0")]


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        sized(PEER, 60, 1)[:13],
        sized(PEER, 1519, 1),
        Frame(sized(PEER, 60, 1), vlan=0x10000),
        Frame(sized(PEER, 60, 1), checksum=(-1, 0)),
        Frame(sized(PEER, 60, 1), checksum=(61, 0)),
        Frame(sized(PEER, 3000, 1), gso_size=1 << 16, header_length=54, checksum=(34, 16)),
        Frame(sized(PEER, 3000, 1), gso_size=1448, header_length=3001, checksum=(34, 16)),
    ],
)
def test_a_frame_that_cannot_be_is_refused_before_any_is_sent(
    nic: Uplink, wire: Peer, wrong: bytes | Frame
) -> None:
    good = sized(PEER, 60, 2, source=ME)
    with pytest.raises(UsageError, match="frame"):
        nic.transmit([good, wrong])
    assert wire.sent_by(nic, [good]) == [good]
