"""The life of an 8255x with its driver in Python: registers, EEPROM, PHY, tests, wake on LAN, sleep, resets, removal.

Independent: QEMU's 8255x. What the driver says it did is looked for in the device's own registers.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from native_drivers.net.e100 import E100
from native_drivers.net.e100.eeprom import EepromDamaged, read_eeprom
from native_drivers.net.e100.registers import MDI, PORT, SCB_INTERRUPT, SCB_STATUS, SELECTIVE_RESET
from tests.e2e.cards import MAC, qemu
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import OneNic, one_nic
from vmkernel_core.errors import DeviceGone, NotSupported, UsageError
from vmkernel_core.net.settings import Duplex
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.native.device import baton
from vmklinux.native.mii import BMCR
from vmklinux.native.pci import CAPABILITY_POWER, POWER_CONTROL, pci_find_capability
from vmklinux.native.register import RegisterTimeout

ME = raw_address(MAC)


@pytest.fixture
def card() -> Iterator[OneNic]:
    with one_nic(E100, qemu("i82559c")()) as card:
        yield card


@pytest.fixture
def nic(card: OneNic) -> Iterator[Uplink]:
    with card.uplink as nic:
        nic.wait_link(timeout=LIMIT)
        yield nic


def driver_of(card: OneNic) -> E100:
    assert isinstance(card.driver, E100)
    return card.driver


def crosses(card: OneNic, nic: Uplink) -> bool:
    """Whether frames go both ways."""
    out, back = [sized(PEER, 100, 1, source=ME)], [sized(ME, 100, 2)]
    nic.wait_link(timeout=LIMIT)
    card.peer.listens(nic)
    return card.peer.sent_by(nic, out) == out and card.peer.received_by(nic, back) == back


def test_eeprom(card: OneNic, nic: Uplink) -> None:
    content = nic.eeprom()
    assert len(content) == 128
    assert content[:6] == ME
    words = [int.from_bytes(content[at : at + 2], "little") for at in range(0, 128, 2)]
    assert sum(words) & 0xFFFF == 0xBABA


def test_a_damaged_eeprom(card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("native_drivers.net.e100.eeprom._SUM", 0xBABB)
    csr = driver_of(card).csr
    with baton():
        with pytest.raises(EepromDamaged, match="checksum is wrong"):
            read_eeprom(csr)
        assert read_eeprom(csr, damaged=True) == nic.eeprom()
    assert nic.self_test().results == {"Link": 0, "EEPROM": -errno.EIO}


def test_values_print_their_fields(card: OneNic) -> None:
    assert repr(MDI(OPCODE=2, PHYADD=1, REGADD=4)) == "<MDI 0x08240000 REGADD=4 PHYADD=1 OPCODE=2>"
    with pytest.raises(UsageError):
        MDI(PHYADD=32)


def test_forced_modes_reach_the_phy_and_last(card: OneNic, nic: Uplink) -> None:
    before, phy = nic.link, driver_of(card).phy
    modes: tuple[tuple[int, Duplex], ...] = ((10, "half"), (10, "full"), (100, "half"), (100, "full"))
    for speed, duplex in modes:
        nic.link = replace(before, autonegotiation=False, speed=speed, duplex=duplex)
        nic.close()
        nic.open()  # QEMU's PHY is reset with its MAC
        link = nic.link
        assert (link.speed, link.duplex, link.autonegotiation) == (speed, duplex, False)
        with baton():
            control = phy.read(BMCR)
        assert (0, speed == 100, duplex == "full") == (control.ANENABLE, control.SPEED100, control.FULLDPLX)
    nic.link = replace(before, advertised=frozenset({"10baseT/Full", "10baseT/Half"}))
    assert (nic.link.speed, nic.link.duplex) == (10, "full")
    with pytest.raises(UsageError, match="no mode would be left"):
        nic.link = replace(before, advertised=frozenset())
    nic.link = before
    assert nic.link == before
    assert crosses(card, nic)


def test_offline_tests(card: OneNic, nic: Uplink) -> None:
    result = nic.self_test(offline=True)
    # QEMU's 8255x does not send to itself, but out.
    assert result.results == {
        "Link": 0, "EEPROM": 0, "Self test": 0, "MAC loopback": -errno.EAGAIN, "PHY loopback": -errno.EAGAIN,
    }  # fmt: skip
    assert [card.peer.next() for _ in range(2)] == [b"\xff" * 1500] * 2
    assert crosses(card, nic)


def test_tests_of_a_closed_card(card: OneNic) -> None:
    assert not card.uplink.is_open
    assert card.uplink.self_test(offline=True).results["Self test"] == 0
    assert [card.peer.next() for _ in range(2)] == [b"\xff" * 1500] * 2


def test_registers(card: OneNic, nic: Uplink) -> None:
    dump = nic.registers()
    words = [int.from_bytes(dump.data[at : at + 4], "little") for at in range(0, 120, 4)]
    assert len(dump.data) == 4 * 30 + 596
    assert words[29] & 0xFFFF == 0x3000  # the PHY's control register, last
    assert words[27] & 0xFFFF == 0x02A8  # its identifier


def test_lights(nic: Uplink) -> None:
    nic.identify(0.3)


def test_wake_on_lan(card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch) -> None:
    pdev = card.driver.pdev
    at = pci_find_capability(pdev, CAPABILITY_POWER) + POWER_CONTROL
    written: list[tuple[int, int]] = []
    write = card.platform.config_write

    def note(address: PciAddress, offset: int, size: int, value: int) -> None:
        if offset == at:
            written.append((size, value))
        write(address, offset, size, value)

    monkeypatch.setattr(card.platform, "config_write", note)
    assert nic.wake_on_lan.supported == {"magic"}
    assert nic.wake_on_lan.enabled == frozenset()
    for enabled in (True, False):
        nic.wake_on_lan = replace(nic.wake_on_lan, enabled=frozenset({"magic"} if enabled else ()))
        nic.suspend()
        nic.resume()
        # PME_Status is cleared, PME_En set or not (PCI Power Management 1.2, 3.2.4); then D3hot and the way back, where
        # QEMU's device, whose PMCSR reads as 0, has lost PME_En.
        wake = 0x100 if enabled else 0
        assert written == [(2, 0x8000 | wake), (2, 3), (2, 0), (2, 0x8000)]
        written.clear()
        assert crosses(card, nic)


def test_an_82557_cannot_wake_the_machine() -> None:
    with one_nic(E100, qemu("i82557b")()) as card:
        assert card.uplink.wake_on_lan.supported == frozenset()
        with pytest.raises((NotSupported, UsageError)):
            card.uplink.wake_on_lan = replace(card.uplink.wake_on_lan, enabled=frozenset({"magic"}))


def test_a_device_that_forgets_all_is_reset(card: OneNic, nic: Uplink) -> None:
    """It is reset behind the driver's back; then the queue times out."""
    csr = driver_of(card).csr
    with baton():
        csr.write(PORT(FUNCTION=SELECTIVE_RESET))
        csr.write(SCB_INTERRUPT(M=1))
        csr.read(SCB_STATUS)
    with baton():
        driver_of(card).ndo_tx_timeout()
    card.settle()
    assert crosses(card, nic)


def test_a_device_that_accepts_no_command_is_reset(
    card: OneNic, nic: Uplink, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = driver_of(card).commands
    fails = [RegisterTimeout("SCB_COMMAND stays")]

    def settle() -> None:
        if fails:
            raise fails.pop()

    monkeypatch.setattr(commands, "_settle", settle)
    assert nic.transmit([sized(PEER, 60, 1, source=ME)]) == 0
    card.settle()
    monkeypatch.undo()
    assert crosses(card, nic)


def test_a_closed_card_is_quiet(card: OneNic, nic: Uplink) -> None:
    csr = driver_of(card).csr
    with baton():
        assert csr.read(SCB_STATUS).RUS == 4
        assert csr.read(SCB_INTERRUPT).M == 0
    nic.close()
    with baton():
        assert csr.read(SCB_STATUS).RUS == 0
        assert csr.read(SCB_INTERRUPT).M == 1
    nic.open()
    assert crosses(card, nic)


def test_another_address(card: OneNic, nic: Uplink) -> None:
    other = "52:54:00:00:00:77"
    nic.mac = other
    card.peer.listens(nic)
    mine = sized(raw_address(other), 80, 1)
    assert card.peer.received_by(nic, [sized(ME, 80, 2), mine]) == [mine]
    nic.mac = MAC
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
