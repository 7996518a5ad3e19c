"""What happens to a network card while its driver in Python resets it, and what is left of one that cannot be started.

Independent: QEMU's cards, whose registers tell what a driver left behind, and the far end of their wires. The moment in
which a driver sleeps is made longer, so that what comes meanwhile hits it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from native_drivers.net.e100 import E100
from native_drivers.net.e1000 import E1000
from native_drivers.net.e1000.registers import RCTL, WUFC
from native_drivers.net.pcnet32 import Pcnet32
from tests.e2e.cards import MAC, qemu
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import OneNic, crosses, one_nic
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import DeviceGone, TimedOut
from vmkernel_core.memory import OutOfMachineMemory
from vmkernel_core.net.uplink import LinkDown, Uplink
from vmkernel_core.pci_function import COMMAND, COMMAND_MEMORY
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.native.device import baton
from vmklinux.native.ethernet import EthernetDriver
from vmklinux.native.register import RegisterTimeout
from vmklinux.native.timer import msleep

CARDS: dict[str, type[EthernetDriver]] = {"e1000": E1000, "i82559c": E100, "pcnet": Pcnet32}
ME = raw_address(MAC)
#: Milliseconds that a stop takes longer.
LONGER = 1000


@pytest.fixture(params=CARDS)
def card(request: pytest.FixtureRequest) -> Iterator[OneNic]:
    with one_nic(CARDS[request.param], qemu(request.param)()) as card:
        yield card


@pytest.fixture
def nic(card: OneNic) -> Iterator[Uplink]:
    with card.uplink as nic:
        nic.wait_link(timeout=LIMIT)
        yield nic


class Steps:
    """What the driver did, in order; ``resting`` is set when it sleeps after a stop."""

    def __init__(self, driver: EthernetDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.resting = threading.Event()
        start, stop = driver.start, driver.stop

        def started() -> None:
            self.done.append("start")
            start()

        def stopped() -> None:
            self.done.append("stop")
            stop()
            self.resting.set()
            msleep(LONGER)

        monkeypatch.setattr(driver, "start", started)
        monkeypatch.setattr(driver, "stop", stopped)


def driver_of(card: OneNic) -> EthernetDriver:
    assert isinstance(card.driver, EthernetDriver)
    return card.driver


def restart(card: OneNic) -> None:
    with baton():
        driver_of(card).ndo_tx_timeout()


def test_resets_while_frames_are_sent(card: OneNic, nic: Uplink) -> None:
    frames = [sized(PEER, 60 + seed, seed, source=ME) for seed in range(64)]
    last, ended = sized(PEER, 200, 200, source=ME), threading.Event()

    def send() -> None:
        while not ended.is_set():
            try:
                nic.transmit(frames)
            except LinkDown:
                nic.wait(tx=True, timeout=0.01)

    def swallow() -> None:
        while card.peer.socket.recv(2048) != last:
            pass

    sending, swallowing = threading.Thread(target=send), threading.Thread(target=swallow)
    sending.start()
    swallowing.start()
    for _ in range(5):
        restart(card)
        card.settle()
        nic.wait_link(timeout=LIMIT)
    ended.set()
    sending.join(LIMIT)
    nic.transmit_all([last], timeout=LIMIT)
    swallowing.join(LIMIT)
    assert not swallowing.is_alive()
    assert nic.error is None
    assert crosses(card, nic)


def test_cards_that_share_an_interrupt_line() -> None:
    """QEMU's board leads the pins of slots that are four apart to the same line; one of the cards is reset meanwhile."""
    devices = [f"{name},netdev=wire{n},addr={4 + 4 * n:x}" for n, name in enumerate(CARDS)]
    platform = QemuPlatform([f"{device},mac=52:54:00:00:00:0{n}" for n, device in enumerate(devices)])
    with ThreadPoolExecutor(6) as pool, VMkernel(platform, engine="native") as host:
        cards = [one for one in host.adapters if one.uplink]
        assert len({one.function.line for one in cards}) == 1
        nics = [one.uplink for one in cards if one.uplink]
        peers = [Peer(wire.socket, pool) for wire in platform.wires]
        for nic in nics:
            nic.open()
        for nic, peer in zip(nics, peers, strict=True):
            nic.wait_link(timeout=LIMIT)
            peer.listens(nic)
        for turn in range(20):
            nics[turn % 3].close()
            nics[turn % 3].open()
            for nic, peer in list(zip(nics, peers, strict=True))[1 + turn % 3 :]:
                nic.wait_link(timeout=LIMIT)
                frames = [sized(raw_address(nic.mac), 60 + turn, seed) for seed in range(40)]
                assert peer.received_by(nic, frames) == frames
        assert [nic.error for nic in nics] == [None] * 3


def test_a_driver_lets_go_of_its_card_after_the_reset(
    card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rings are given back, which a reset that goes on would have the card use."""
    steps = Steps(driver_of(card), monkeypatch)
    restart(card)
    assert steps.resting.wait(LIMIT)
    with baton():
        card.driver.pdev.devres.release_all()
    assert steps.done == ["stop", "start", "stop"]


def test_a_card_goes_during_its_reset(card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(driver_of(card), monkeypatch)
    restart(card)
    assert steps.resting.wait(LIMIT)
    assert isinstance(card.platform, QemuPlatform)
    card.driver.pdev.gone = True
    card.platform.pull(card.driver.pdev.function.address)
    card.settle()
    nic.close()
    assert card.driver.pdev.stopped is None
    with pytest.raises(DeviceGone):
        nic.open()


def test_a_reset_that_waits_leaves_a_card_asleep(
    card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(driver_of(card), monkeypatch)
    with baton(), driver_of(card).netdev.rtnl.lock():
        restart(card)
        nic.suspend()
    card.settle()
    assert steps.done == ["stop"]
    nic.resume()
    assert steps.done == ["stop", "start"]
    assert crosses(card, nic)


def test_a_card_that_does_not_stop_stays_awake(
    card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, stop = driver_of(card), driver_of(card).stop
    fails = [RegisterTimeout("it does not stop")]

    def stops() -> None:
        stop()
        if fails:
            raise fails.pop()

    monkeypatch.setattr(driver, "stop", stops)
    with pytest.raises(TimedOut, match="does not stop"):
        nic.suspend()
    assert not nic.is_suspended
    card.settle()
    assert crosses(card, nic)


def test_a_card_that_was_closed_is_not_reset(
    card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(driver_of(card), monkeypatch)
    with baton(), driver_of(card).netdev.rtnl.lock():
        restart(card)
        nic.close()
    card.settle()
    assert steps.done == ["stop"]
    nic.open()
    assert crosses(card, nic)


def test_no_memory_for_other_rings(card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch) -> None:
    before = nic.rings

    def none() -> None:
        raise OutOfMachineMemory("no memory for a ring")

    monkeypatch.setattr(driver_of(card), "make_rings", none)
    with pytest.raises(OutOfMachineMemory):
        nic.rings = replace(before, rx=128, tx=256)
    assert nic.rings == before
    monkeypatch.undo()
    assert crosses(card, nic)
    nic.rings = replace(before, rx=128, tx=256)
    assert crosses(card, nic)


def test_a_card_that_does_not_begin_is_stopped(
    card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rings go back at once: it must not have them."""
    nic.close()
    steps = Steps(driver_of(card), monkeypatch)

    def never() -> None:
        raise RegisterTimeout("it does not begin")

    monkeypatch.setattr(driver_of(card), "run", never)
    with pytest.raises(TimedOut):
        nic.open()
    assert steps.done == ["start", "stop"]
    monkeypatch.undo()
    nic.open()
    assert crosses(card, nic)


def test_a_machine_that_is_switched_off_can_be_woken() -> None:
    with one_nic(E1000, qemu("e1000e")()) as card:
        nic, pdev = card.uplink, card.driver.pdev
        nic.open()
        nic.wake_on_lan = replace(nic.wake_on_lan, enabled=frozenset({"magic"}))
        bar = pdev.function.bar(0)
        assert bar is not None
        with baton():
            card.driver.shutdown()
            pdev.devres.release_all()
            card.platform.config_write(pdev.function.address, COMMAND, 2, COMMAND_MEMORY)
            wake = WUFC(card.platform.bus.read(Space.MEMORY, bar.address + WUFC.offset, 4))
            reception = RCTL(card.platform.bus.read(Space.MEMORY, bar.address + RCTL.offset, 4))
        assert (wake, reception.EN) == (WUFC(MAG=1), 1)
