"""A PCnet with its driver in Python: frames, filters, rings, ports of both widths, tests, sleep, resets, removal.

Independent: QEMU's Am79C970A, and what it says at the far end of its wire and in its own registers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from native_drivers.net.pcnet32 import Pcnet32
from native_drivers.net.pcnet32.ports import DOUBLE_WORDS, WORDS, Ports
from native_drivers.net.pcnet32.registers import CSR0, CSR3, CSR15, LADRF, PADR
from tests.e2e.cards import MAC, qemu
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import OneNic, crosses, one_nic
from tests.native_drivers.wires import wait_until_taken
from vmkernel_core.errors import DeviceGone, NotSupported, UsageError
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.native.device import baton

ME = raw_address(MAC)
OTHER = "52:54:00:00:00:77"


@pytest.fixture
def card() -> Iterator[OneNic]:
    with one_nic(Pcnet32, qemu("pcnet")()) as card:
        yield card


@pytest.fixture
def nic(card: OneNic) -> Iterator[Uplink]:
    with card.uplink as nic:
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        yield nic


def driver_of(card: OneNic) -> Pcnet32:
    assert isinstance(card.driver, Pcnet32)
    return card.driver


def test_frames(card: OneNic, nic: Uplink) -> None:
    assert (nic.mac, nic.speed, driver_of(card).chip.name) == (MAC, 10, "Am79C970A")
    for _ in range(10):
        assert crosses(card, nic)


def test_a_full_ring_waits_for_room(card: OneNic, nic: Uplink) -> None:
    frames = [sized(PEER, 60 + seed % 90, seed, source=ME) for seed in range(1000)]
    arriving = card.peer.collect(len(frames))
    taken = nic.transmit(frames)
    # QEMU may have sent the last frame of before, and not yet have told.
    assert nic.rings.tx - 1 <= taken <= nic.rings.tx
    csr = driver_of(card).csr
    nic.transmit_all(frames[taken:], timeout=LIMIT)
    assert arriving.result(LIMIT) == frames
    assert crosses(card, nic)
    with baton():
        assert csr.read(CSR3).TINTM == 1  # nobody waits


def test_a_receive_ring_that_runs_over(card: OneNic, nic: Uplink) -> None:
    """More frames come than there are descriptors while nobody looks: the others are lost and counted."""
    nic.rings = replace(nic.rings, rx=16)
    nic.wait_link(timeout=LIMIT)
    card.peer.listens(nic)
    for _ in range(3):
        before = nic.stats
        frames = [sized(ME, 60 + seed, seed) for seed in range(100)]
        with baton():  # no interrupt is served meanwhile
            card.peer.send(frames)
            wait_until_taken(card)
        came: list[bytes] = []
        while len(came) < 16:
            assert nic.wait(rx=True, timeout=LIMIT)
            came += nic.receive()
        assert came == frames[:16]
        card.peer.listens(nic)
        after = nic.stats
        assert after.driver["rx_missed_errors"] - before.driver["rx_missed_errors"] == len(frames) - 16
        assert after.rx_errors - before.rx_errors == len(frames) - 16


def test_ring_sizes(card: OneNic, nic: Uplink) -> None:
    nic.rings = replace(nic.rings, rx=100, tx=3)
    assert (nic.rings.rx, nic.rings.tx) == (128, 4)
    assert crosses(card, nic)
    nic.rings = replace(nic.rings, rx=512, tx=512)
    assert crosses(card, nic)
    with pytest.raises(UsageError):
        nic.rings = replace(nic.rings, rx=513)
    nic.close()
    nic.rings = replace(nic.rings, rx=64, tx=64)
    nic.open()
    assert (nic.rings.rx, nic.rings.tx) == (64, 64)
    assert crosses(card, nic)


def test_filters(card: OneNic, nic: Uplink) -> None:
    csr = driver_of(card).csr
    group = sized(raw_address("01:00:5e:00:00:01"), 80, 1)
    strange = sized(raw_address(OTHER), 80, 2)
    assert card.peer.received_by(nic, [group, strange]) == []
    nic.set_multicast(["01:00:5e:00:00:01"])
    assert card.peer.received_by(nic, [group, strange]) == [group]
    with baton():
        assert sum(csr.read(LADRF[i]).raw.bit_count() for i in range(4)) == 1
    nic.set_promiscuous(True)
    assert card.peer.received_by(nic, [group, strange]) == [group, strange]
    with baton():
        assert csr.read(CSR15).PROM == 1
    nic.set_promiscuous(False)
    nic.set_multicast([])
    assert card.peer.received_by(nic, [group, strange]) == []


def test_filters_change_while_frames_come(card: OneNic, nic: Uplink) -> None:
    """QEMU keeps what comes to a suspended chip until it is started again: none may be stuck."""
    frames = [sized(ME, 60 + seed, seed) for seed in range(100)]
    with ThreadPoolExecutor(1) as pool:
        for turn in range(20):
            sending = pool.submit(card.peer.send, frames)
            for _ in range(5):
                nic.set_promiscuous(turn % 2 == 0)
            sending.result(LIMIT)
            card.peer.listens(nic)


def test_another_address_while_it_runs(card: OneNic, nic: Uplink) -> None:
    csr = driver_of(card).csr
    nic.mac = OTHER
    mine = sized(raw_address(OTHER), 80, 1)
    assert card.peer.received_by(nic, [sized(ME, 80, 2), mine]) == [mine]
    with baton():
        assert b"".join(csr.read(PADR[i]).raw.to_bytes(2, "little") for i in range(3)) == raw_address(OTHER)
    nic.mac = MAC
    assert crosses(card, nic)


def test_a_frame_that_is_too_long_is_dropped(card: OneNic, nic: Uplink) -> None:
    frames = [sized(ME, 1518, 1), sized(ME, 1700, 2), sized(ME, 60, 3)]
    assert card.peer.received_by(nic, frames) == [frames[0], frames[2]]
    assert nic.stats.rx_errors > 0


def test_ports_of_double_words(card: OneNic) -> None:
    """A write of 32 bits to RDP switches them on (BCR18.DWIO)."""
    ports = driver_of(card).ports
    with baton():
        ports.window.write(DOUBLE_WORDS.RDP, 4, 0)
        ports.layout = DOUBLE_WORDS
        ports._selected = -1
        assert ports.read_csr(88) == 0x1003
        assert ports.read_aprom()[:6] == ME
        assert Ports(ports.window, "again").layout is WORDS  # after a reset, as QEMU has it
        ports.layout = WORDS
        ports._selected = -1
    with card.uplink as nic:
        assert crosses(card, nic)


def test_link_settings(card: OneNic, nic: Uplink) -> None:
    before = nic.link
    assert (before.speed, before.duplex, before.autonegotiation) == (10, "half", False)
    nic.link = replace(before, duplex="full")
    assert nic.link.duplex == "full"
    assert crosses(card, nic)
    with pytest.raises(UsageError, match="cannot do that"):
        nic.link = replace(before, speed=100)
    with pytest.raises(NotSupported, match="does not negotiate"):
        nic.renegotiate()


def test_the_cable(card: OneNic, nic: Uplink) -> None:
    address = card.driver.pdev.function.address
    card.platform.set_link(address, False)
    nic.wait_link(False, timeout=LIMIT)
    card.platform.set_link(address, True)
    assert crosses(card, nic)


def test_frames_without_a_link_are_counted(card: OneNic, nic: Uplink) -> None:
    card.platform.set_link(card.driver.pdev.function.address, False)
    assert nic.transmit([sized(PEER, 60, seed, source=ME) for seed in range(5)]) == 5  # nobody has looked yet
    assert nic.stats.tx_errors == 5
    assert nic.stats.driver["tx_carrier_errors"] == 5
    nic.close()
    nic.open()
    assert nic.stats.tx_errors == 5
    card.platform.set_link(card.driver.pdev.function.address, True)
    assert crosses(card, nic)


def test_questions(card: OneNic, nic: Uplink) -> None:
    dump = nic.registers()
    assert dump.data[:6] == ME
    assert dump.data[14:16] == b"WW"
    assert nic.eeprom() == dump.data[:16]
    assert int.from_bytes(dump.data[16 + 2 * 88 :][:2], "little") == 0x1003
    nic.identify(0.3)
    assert crosses(card, nic)


def test_self_test(card: OneNic, nic: Uplink) -> None:
    assert nic.self_test(offline=True).results == {"Link": 0, "Loopback": 0}
    assert crosses(card, nic)
    nic.close()
    assert nic.self_test(offline=True).passed
    nic.open()
    assert crosses(card, nic)


def test_sleep(card: OneNic, nic: Uplink) -> None:
    for _ in range(2):
        nic.suspend()
        nic.resume()
        assert crosses(card, nic)


def test_a_chip_that_forgets_all_is_reset(card: OneNic, nic: Uplink) -> None:
    """It is reset behind the driver's back; then the queue times out."""
    with baton():
        driver_of(card).ports.reset()
    with baton():
        driver_of(card).ndo_tx_timeout()
    card.settle()
    assert crosses(card, nic)


def test_a_closed_card_is_quiet(card: OneNic, nic: Uplink) -> None:
    csr = driver_of(card).csr
    nic.close()
    with baton():
        status = csr.read(CSR0)
    assert (status.STOP, status.STRT, status.IENA) == (1, 0, 0)
    nic.open()
    assert crosses(card, nic)


@pytest.mark.parametrize("opened", [True, False])
def test_the_machine_goes(card: OneNic, opened: bool) -> None:
    """Whatever is left of it ends; one_nic sees to it that everything is given back."""
    nic = card.uplink
    if opened:
        nic.open()
        nic.wait_link(timeout=LIMIT)
    assert isinstance(card.platform, QemuPlatform)
    os.kill(card.platform.pid, signal.SIGKILL)
    card.driver.pdev.gone = True
    if opened:
        nic.close()
    with pytest.raises(DeviceGone):
        nic.open()


def test_no_frame_is_taken_before_it_is_there(card: OneNic, nic: Uplink) -> None:
    """QEMU's device hands a descriptor back before it writes length and end; here it runs beside the driver."""
    for turn in range(30):
        frames = [sized(ME, 1514 - seed, turn + seed) for seed in range(60)]
        assert card.peer.received_by(nic, frames) == frames
