"""Frames that an 8255x with its driver in Python carries: batches, filters, rings that run over.

Independent: QEMU's 8255x. What it took and gave is judged at the far end of its wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from native_drivers.net.e100 import E100
from native_drivers.net.e100.command_unit import STRETCH
from tests.e2e.cards import E100 as DEVICES
from tests.e2e.cards import MAC, qemu
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import OneNic, one_nic
from tests.native_drivers.wires import wait_until_taken
from vmkernel_core.net.uplink import Uplink
from vmklinux.native.device import baton

ME = raw_address(MAC)
GROUPS = [f"01:00:5e:00:00:{number:02x}" for number in range(80)]


@pytest.fixture(scope="module", params=["i82557b", "i82559c"])
def card(request: pytest.FixtureRequest) -> Iterator[OneNic]:
    """One chip that can mask single interrupts, and one that cannot."""
    with one_nic(E100, qemu(request.param)()) as card, card.uplink as nic:
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        yield card


@pytest.fixture
def nic(card: OneNic) -> Uplink:
    return card.uplink


def driver_of(card: OneNic) -> E100:
    assert isinstance(card.driver, E100)
    return card.driver


@pytest.mark.parametrize("device", DEVICES)
def test_every_chip(device: str) -> None:
    with one_nic(E100, qemu(device)()) as card, card.uplink as nic:
        assert nic.mac == MAC
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        out = [sized(PEER, 60 + 30 * seed, seed, source=ME) for seed in range(40)]
        assert card.peer.sent_by(nic, out) == out
        back = [sized(ME, 60 + 30 * seed, seed) for seed in range(40)]
        assert card.peer.received_by(nic, back) == back


def test_batches_around_a_stretch(card: OneNic, nic: Uplink) -> None:
    for count in (1, STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH, 64, 127):
        frames = [sized(PEER, 60 + seed, seed, source=ME) for seed in range(count)]
        assert card.peer.sent_by(nic, frames) == frames


def test_a_full_ring_waits_for_room(card: OneNic, nic: Uplink) -> None:
    frames = [sized(PEER, 60 + seed % 90, seed, source=ME) for seed in range(1000)]
    arriving = card.peer.collect(len(frames))
    taken = nic.transmit(frames)
    # QEMU may have sent the last frame of before, and not yet have told.
    assert nic.rings.tx - 2 <= taken < nic.rings.tx
    nic.transmit_all(frames[taken:], timeout=LIMIT)
    assert arriving.result(LIMIT) == frames


def test_commands_between_frames(card: OneNic, nic: Uplink) -> None:
    for turn in range(20):
        nic.set_promiscuous(turn % 2 == 1)
        nic.set_multicast(GROUPS[:turn])
        frames = [sized(PEER, 60 + seed, seed, source=ME) for seed in range(20)]
        assert card.peer.sent_by(nic, frames) == frames
    nic.set_promiscuous(False)
    nic.set_multicast([])


def test_more_groups_than_the_chip_takes(card: OneNic, nic: Uplink) -> None:
    nic.set_multicast(GROUPS)
    other = sized(raw_address("01:00:5e:7f:00:01"), 80, 1)
    assert card.peer.received_by(nic, [other]) == [other]
    nic.set_multicast([])
    assert card.peer.received_by(nic, [other]) == []


def test_a_receive_ring_that_runs_over(card: OneNic, nic: Uplink) -> None:
    """More frames come than there are descriptors while nobody looks: the others are lost, then it goes on."""
    before = nic.rings
    nic.rings = replace(before, rx=16)
    nic.wait_link(timeout=LIMIT)
    card.peer.listens(nic)
    try:
        for _ in range(3):
            missed = nic.stats.driver["rx_missed_errors"]
            frames = [sized(ME, 60 + seed, seed) for seed in range(100)]
            with baton():  # no interrupt is served meanwhile
                card.peer.send(frames)
                wait_until_taken(card)
            came: list[bytes] = []
            while len(came) < 16:
                assert nic.wait(rx=True, timeout=LIMIT)
                came += nic.receive()
            assert came == frames[:16]
            assert nic.stats.driver["rx_missed_errors"] - missed == len(frames) - 16
            card.peer.listens(nic)
            assert card.peer.received_by(nic, frames[:10]) == frames[:10]
    finally:
        nic.rings = before
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)


def test_a_frame_that_is_too_long_is_dropped(card: OneNic, nic: Uplink) -> None:
    """QEMU's device cuts it off and says that all is well."""
    frames = [sized(ME, 1518, 1), sized(ME, 1600, 2), sized(ME, 60, 3)]
    before = nic.stats
    assert card.peer.received_by(nic, frames) == [frames[0], frames[2]]
    # An 82557 receives nothing that is longer than 1518 bytes with its checksum; QEMU's without it.
    after, discarded = nic.stats, int(driver_of(card).chip.masks)
    assert after.driver["rx_discarded"] - before.driver["rx_discarded"] == discarded
    assert after.rx_errors - before.rx_errors == discarded


def test_small_rings_turn_over(card: OneNic, nic: Uplink) -> None:
    before = nic.rings
    nic.rings = replace(before, rx=1, tx=1)
    try:
        assert (nic.rings.rx, nic.rings.tx) == (16, 64)
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        for turn in range(20):
            frames = [sized(PEER, 60 + seed, turn + seed, source=ME) for seed in range(40)]
            assert card.peer.sent_by(nic, frames) == frames
            back = [sized(ME, 60 + seed, turn + seed) for seed in range(10)]
            assert card.peer.received_by(nic, back) == back
    finally:
        nic.rings = before
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)


def test_no_frame_is_taken_before_it_is_there(card: OneNic, nic: Uplink) -> None:
    """QEMU's device says that a frame is done before it writes it; here it runs beside the driver."""
    for turn in range(30):
        frames = [sized(ME, 1514 - seed, turn + seed) for seed in range(60)]
        assert card.peer.received_by(nic, frames) == frames
