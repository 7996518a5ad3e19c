"""Frames that an e1000 with its driver in Python carries: sizes, chained buffers, offloads, tags.

Independent: QEMU's 82540EM, 82544GC, 82545EM and 82574L. What frames look like is judged on the wire, by RFC 1071's sum.
Of what its 82574L shall segment QEMU 7.2 makes IP fragments instead; tests/e2e/test_card_offload.py looks at these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from native_drivers.net.e1000.driver import E1000
from tests.e2e.cards import CARDS, MAC
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import (
    IPV4,
    IPV6,
    NAMES,
    PEER,
    TCP,
    UDP,
    Datagram,
    ethernet,
    ones_complement_sum,
    pattern,
    raw_address,
    sized,
    tagged,
    unfinished,
    unsummed,
)
from tests.native_drivers.one_nic import OneNic, one_nic
from vmkernel_core.errors import UsageError
from vmkernel_core.net.uplink import Frame, Uplink

ME = raw_address(MAC)


segmenting = pytest.mark.parametrize("platform_name", ["qemu", "model", "82544gc", "82545em"], indirect=True)


@pytest.fixture(scope="module", params=["qemu", "model", "82544gc", "82545em", "e1000e"])
def platform_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def card(platform_name: str) -> Iterator[OneNic]:
    with one_nic(E1000, CARDS[platform_name].make()) as card, card.uplink as nic:
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        yield card


@pytest.fixture
def nic(card: OneNic) -> Uplink:
    return card.uplink


def test_every_size(card: OneNic, nic: Uplink) -> None:
    for sizes in (range(60, 600), range(600, 1515)):
        out = [sized(PEER, size, size, source=ME) for size in sizes]
        assert card.peer.sent_by(nic, out) == out
    for first in range(60, 1515, 97):
        back = [sized(ME, size, size) for size in range(first, min(first + 97, 1515))]
        assert card.peer.received_by(nic, back) == back


def test_a_batch_larger_than_the_ring(card: OneNic, nic: Uplink) -> None:
    frames = [sized(PEER, 60 + seed % 1400, seed, source=ME) for seed in range(2000)]
    assert card.peer.sent_by(nic, frames) == frames


def test_long_frames(card: OneNic, nic: Uplink, platform_name: str) -> None:
    """They are chained over several buffers either way."""
    nic.mtu = most = CARDS[platform_name].most_mtu
    try:
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        sizes = [60, 1514, 1515, 2047, 2048, 2049, 4096, 4097, 6144, 8191, 9000, most + 13, most + 14]
        out = [sized(PEER, size, size, source=ME) for size in sizes]
        assert card.peer.sent_by(nic, 4 * out) == 4 * out
        back = [sized(ME, size, size) for size in sizes]
        assert card.peer.received_by(nic, back) == back
        with pytest.raises(UsageError):
            nic.transmit([sized(PEER, most + 15, 1, source=ME)])
    finally:
        nic.mtu = 1500
        nic.wait_link(timeout=LIMIT)
    card.peer.listens(nic)


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=NAMES.get)
@pytest.mark.parametrize("kind", [IPV4, IPV6], ids=NAMES.get)
def test_checksums(card: OneNic, nic: Uplink, kind: int, protocol: int) -> None:
    frames: list[bytes | Frame] = []
    for length in (0, 1, 6, 27, 100, 999, 1440):
        wanted = unsummed(pattern(length, length), kind, protocol)
        frames += [wanted, wanted, wanted.data]
    arrived = [Datagram(frame) for frame in card.peer.sent_by(nic, frames)]
    assert [seen.checksum_is_good for seen in arrived] == [True, True, False] * 7
    for frame, seen in zip(frames, arrived, strict=True):
        assert seen.payload == Datagram(frame.data if isinstance(frame, Frame) else frame).payload


def test_a_checksum_beyond_the_chips_reach(card: OneNic, nic: Uplink) -> None:
    content = pattern(900, 1)
    for start, offset in ((300, 6), (250, 6), (256, 0)):
        data = ethernet(PEER, content, source=ME)
        data = data[: start + offset] + bytes(2) + data[start + offset + 2 :]
        (arrived,) = card.peer.sent_by(nic, [Frame(data, checksum=(start, offset))])
        assert ones_complement_sum(arrived[start:]) == 0xFFFF
        assert (
            arrived[: start + offset] + arrived[start + offset + 2 :]
            == data[: start + offset] + data[start + offset + 2 :]
        )


@segmenting
@pytest.mark.parametrize("kind", [IPV4, IPV6], ids=NAMES.get)
@pytest.mark.parametrize(("size", "length"), [(1400, 1401), (536, 10_000), (1400, 65_001)])
def test_segments(card: OneNic, nic: Uplink, platform_name: str, kind: int, size: int, length: int) -> None:
    payload = pattern(length, 3)
    data = unfinished(PEER, payload, kind=kind, sequence=0xFFFF_F000)
    start = Datagram(data).start
    frame = Frame(data, checksum=(start, 16), gso_size=size, header_length=start + 20)
    if kind == IPV6 and platform_name == "82544gc":
        assert "tso6" not in nic.features
        with pytest.raises(UsageError):
            nic.transmit([frame])
        return
    before = sized(PEER, 60, 1, source=ME)
    count = -(-length // size)
    arrived = card.peer.sent_by(nic, [before, frame, before, unsummed(b"after", kind, TCP)], count + 3)
    assert arrived[0] == arrived[-2] == before
    assert Datagram(arrived[-1]).checksum_is_good
    seen = [Datagram(each) for each in arrived[1:-2]]
    assert b"".join(segment.payload for segment in seen) == payload
    assert all(segment.checksum_is_good and segment.header_is_good for segment in seen)
    assert [segment.sequence for segment in seen] == [(0xFFFF_F000 + size * n) % 2**32 for n in range(count)]


def test_a_header_that_is_too_long_to_be_cut_behind(card: OneNic, nic: Uplink) -> None:
    data = unfinished(PEER, pattern(3000, 1))
    before = nic.stats.tx_errors
    nic.transmit_all([Frame(data, checksum=(34, 16), gso_size=1000, header_length=256)])
    assert nic.stats.tx_errors - before == 1
    frame = sized(PEER, 60, 1, source=ME)
    assert card.peer.sent_by(nic, [frame]) == [frame]


@segmenting
def test_many_segmentations(card: OneNic, nic: Uplink) -> None:
    payloads = [pattern(28_961 + seed, seed) for seed in range(24)]
    frames = [
        Frame(unfinished(PEER, payload, sequence=0), checksum=(34, 16), gso_size=1448, header_length=54)
        for payload in payloads
    ]
    count = sum(-(-len(payload) // 1448) for payload in payloads)
    arriving = card.peer.collect(count)
    nic.transmit_all(frames, timeout=LIMIT)
    seen = [Datagram(frame) for frame in arriving.result(2 * LIMIT)]
    assert all(segment.checksum_is_good and segment.header_is_good for segment in seen)
    assert b"".join(segment.payload for segment in seen) == b"".join(payloads)


def test_tags(card: OneNic, nic: Uplink) -> None:
    nic.set_vlans([0x123])
    try:
        card.peer.listens(nic)
        plain = [sized(PEER, size, size, source=ME) for size in (60, 61, 1000, 1514)]
        expected = [tagged(frame, 0x6123) for frame in plain]
        assert card.peer.sent_by(nic, [Frame(frame, vlan=0x6123) for frame in plain]) == expected
        (arrived,) = card.peer.sent_by(nic, [replace(unsummed(b"tagged and summed", IPV4, TCP), vlan=0x123)])
        assert arrived[12:16] == bytes.fromhex("81000123")
        assert Datagram(arrived[:12] + arrived[16:]).checksum_is_good
        mine, other = tagged(sized(ME, 80, 1), 0x6123), tagged(sized(ME, 80, 2), 0x124)
        assert card.peer.received_by(nic, [mine, other]) == [mine]
    finally:
        nic.set_vlans([])
    card.peer.listens(nic)
    assert card.peer.received_by(nic, [mine, other]) == [mine, other], "priority and id are given back"


def test_tags_without_the_chip(card: OneNic, nic: Uplink) -> None:
    nic.set_vlans([0x123])
    nic.set_feature("vlan-strip", False)
    try:
        assert "vlan-insert" not in nic.features
        card.peer.listens(nic)
        frame = sized(PEER, 80, 1, source=ME)
        assert card.peer.sent_by(nic, [Frame(frame, vlan=0x6123)]) == [tagged(frame, 0x6123)]
        mine = tagged(sized(ME, 80, 1), 0x6123)
        assert card.peer.received_by(nic, [mine]) == [mine]
    finally:
        nic.set_feature("vlan-strip", True)
        nic.set_vlans([])


@pytest.mark.parametrize("strip", [True, False])
def test_a_tag_that_the_chip_need_not_put_in(card: OneNic, nic: Uplink, strip: bool) -> None:
    """No VLAN was set: it is in the frame already when the chip computes the checksum."""
    nic.set_feature("vlan-strip", strip)
    try:
        frames: list[bytes | Frame] = [
            replace(unsummed(pattern(100, 1), kind, TCP), vlan=0x6123) for kind in (IPV4, IPV6)
        ]
        arrived = card.peer.sent_by(nic, frames)
        assert [frame[12:16] for frame in arrived] == 2 * [bytes.fromhex("81006123")]
        assert all(Datagram(frame[:12] + frame[16:]).checksum_is_good for frame in arrived)
        if card.driver.pdev.function.device != 0x10D3:
            payload = pattern(5000, 3)
            whole = Frame(unfinished(PEER, payload), (34, 16), 1400, 54, vlan=0x123)
            cut = [Datagram(each[:12] + each[16:]) for each in card.peer.sent_by(nic, [whole], 4)]
            assert b"".join(segment.payload for segment in cut) == payload
            assert all(segment.checksum_is_good and segment.header_is_good for segment in cut)
    finally:
        nic.set_feature("vlan-strip", True)


def test_verified_checksums(card: OneNic, nic: Uplink, platform_name: str) -> None:
    """Of QEMU's, only the 82574L verifies."""
    good = unsummed(pattern(100, 1), IPV4, TCP)
    (summed,) = card.peer.sent_by(nic, [good])
    bad = good.data
    found: list[Frame] = []
    card.peer.listens(nic)
    card.peer.send([ME + summed[6:], ME + bad[6:]])
    while len(found) < 2:
        assert nic.wait(rx=True, timeout=LIMIT)
        found += nic.receive_frames()
    assert [frame.data for frame in found] == [ME + summed[6:], ME + bad[6:]]
    assert [frame.verified for frame in found] == [platform_name in ("model", "e1000e"), False]
