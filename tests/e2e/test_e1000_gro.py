"""GRO: TCP segments that e1000.ko received become one frame, and nothing else does.

Independent: Debian's driver; QEMU's e1000 where the platform is QEMU. What is
expected is built here from the segments that were sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import LINUX, on_each, only
from tests.e2e.packets import (
    ACK,
    FIN,
    IPV4,
    IPV6,
    NAMES,
    PEER,
    PSH,
    Datagram,
    ones_complement_sum,
    pattern,
    pseudo_header,
    raw_address,
    sized,
    unfinished,
)  # fmt: skip
from vmkernel_core.net.uplink import Frame, Uplink

driven = on_each("qemu", "model", engines=LINUX)
ME = raw_address(MAC)
SIZE = 1400
LAST = sized(PEER, 60, 1, source=ME)


def segment(kind: int, sequence: int, payload: bytes, flags: int = ACK) -> bytes:
    """A whole segment, its checksum finished."""
    frame = unfinished(ME, payload, kind=kind, sequence=sequence, flags=flags)
    start = Datagram(frame).start
    check = ones_complement_sum(frame[start:]) ^ 0xFFFF
    return frame[: start + 16] + check.to_bytes(2, "big") + frame[start + 18 :]


def cut(kind: int, payload: bytes, sequence: int = 1000, last: int = ACK | PSH) -> list[bytes]:
    """The payload as segments of SIZE bytes."""
    places = range(0, len(payload), SIZE)
    return [
        segment(kind, sequence + at, payload[at : at + SIZE], last if at + SIZE >= len(payload) else ACK)
        for at in places
    ]


def fetch(nic: Uplink, payload: int) -> list[Frame]:
    """What arrives until so many bytes of TCP payload have."""
    frames: list[Frame] = []
    deadline = time.monotonic() + LIMIT
    while sum(len(Datagram(frame.data).payload) for frame in frames) < payload:
        assert nic.wait(rx=True, timeout=max(deadline - time.monotonic(), 0)), f"{len(frames)} frames came"
        frames += nic.receive_frames(64)
    return frames


@pytest.fixture
def merging(nic: Uplink) -> Iterator[Uplink]:
    nic.set_feature("gro", True)
    yield nic
    nic.set_feature("gro", False)


@pytest.mark.parametrize("kind", [IPV4, IPV6], ids=NAMES.get)
def test_segments_become_one_frame_and_the_payload_stays(merging: Uplink, wire: Peer, kind: int) -> None:
    payload = pattern(40 * SIZE + 77, 5)
    before = merging.stats
    wire.send(cut(kind, payload))
    frames = fetch(merging, len(payload))
    assert b"".join(Datagram(frame.data).payload for frame in frames) == payload
    merged = [frame for frame in frames if frame.gso_size]
    assert merging.stats.rx_merged - before.rx_merged == 41 - len(frames)
    assert merged, "41 segments in a row, and no two of them came out as one"
    for frame in merged:
        seen = Datagram(frame.data)
        assert (frame.gso_size, frame.checksum, frame.header_length) == (
            SIZE, (seen.start, 16), seen.start + 20,
        )  # fmt: skip
        assert seen.header_is_good
        assert seen.end == len(frame.data)
        length = len(frame.data) - seen.start
        seed = int.from_bytes(frame.data[seen.start + 16 : seen.start + 18], "big")
        assert seed == ones_complement_sum(pseudo_header(kind, 6, length))
    assert Datagram(frames[-1].data).flags == ACK | PSH


def test_a_merged_frame_can_be_sent_as_it_came(merging: Uplink, wire: Peer) -> None:
    payload = pattern(20 * SIZE, 9)
    wire.send(cut(IPV4, payload))
    frames = fetch(merging, len(payload))
    assert any(frame.gso_size for frame in frames)
    merging.transmit_all(frames)
    seen: list[Datagram] = []
    while sum(len(datagram.payload) for datagram in seen) < len(payload):
        seen.append(Datagram(wire.next()))
    assert all(datagram.checksum_is_good for datagram in seen)
    assert b"".join(datagram.payload for datagram in seen) == payload
    merging.transmit_all([LAST])
    # QEMU's e1000 repeats the header of a segmentation without a rest.
    while (frame := wire.next()) != LAST:
        assert Datagram(frame).payload == b""


NOT_ONE = {
    "gap": [segment(IPV4, 1000, pattern(SIZE, 1)), segment(IPV4, 1001 + SIZE, pattern(SIZE, 2))],
    "repeated": [segment(IPV4, 1000, pattern(SIZE, 1))] * 2,
    "longer": [segment(IPV4, 1000, pattern(SIZE, 1)), segment(IPV4, 1000 + SIZE, pattern(SIZE + 1, 2))],
    "fin": [segment(IPV4, 1000, pattern(SIZE, 1)), segment(IPV4, 1000 + SIZE, pattern(9, 2), ACK | FIN)],
    "wrong sum": [
        segment(IPV4, 1000, pattern(SIZE, 1)),
        segment(IPV4, 1000 + SIZE, pattern(SIZE, 2))[:-1] + b"!",
    ],
    "families": [segment(IPV4, 1000, pattern(SIZE, 1)), segment(IPV6, 1000 + SIZE, pattern(SIZE, 2))],
}


@pytest.mark.parametrize("frames", NOT_ONE.values(), ids=NOT_ONE.keys())
def test_what_does_not_follow_is_left_alone(merging: Uplink, wire: Peer, frames: list[bytes]) -> None:
    """Whatever the order of arrival in batches, these never become one."""
    wire.send(frames)
    seen = fetch(merging, sum(len(Datagram(frame).payload) for frame in frames))
    assert sorted(frame.data for frame in seen) == sorted(frames)
    assert [frame.gso_size for frame in seen] == [0] * len(frames)


def test_order_within_a_flow_and_other_frames_are_kept(merging: Uplink, wire: Peer) -> None:
    payload = pattern(4 * SIZE, 3)
    plain = sized(ME, 200, 7)
    frames = cut(IPV4, payload)
    came = wire.received_by(merging, [*frames[:2], plain, *frames[2:]])
    assert b"".join(Datagram(frame).payload for frame in came if frame != plain) == payload
    assert plain in came


@only("qemu", "model")
def test_off_means_every_frame_as_it_came(nic: Uplink, wire: Peer) -> None:
    frames = cut(IPV4, pattern(10 * SIZE, 2))
    assert "gro" not in nic.features
    assert wire.received_by(nic, frames) == frames


@only("qemu", "model")
def test_the_card_says_which_checksums_are_right(nic: Uplink, wire: Peer, platform_name: str) -> None:
    """QEMU's e1000 verifies none, and tells the driver so (IXSM, 82540EM manual, 3.2.3.2)."""
    good = segment(IPV4, 1, pattern(100, 1))
    wrong = good[:-1] + b"!"
    wire.send([good, wrong])
    first, second = fetch(nic, 200)
    assert (first.data, first.verified) == (good, platform_name == "model")
    assert second.verified is False
    assert second.data == wrong


def test_senders_of_a_padded_frame_do_not_confuse_it(merging: Uplink, wire: Peer) -> None:
    """An IP packet that ends before the Ethernet frame does is left alone."""
    whole = segment(IPV4, 1000, pattern(SIZE, 1))
    padded = segment(IPV4, 1000 + SIZE, b"x").ljust(60, b"\0")
    came = wire.received_by(merging, [whole, padded])
    assert came == [whole, padded]
    assert all(frame[6:12] == PEER for frame in came)
