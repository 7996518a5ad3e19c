"""Settings and tests of a network card as ethtool has them, by Debian's drivers and ours in Python.

Independent: QEMU's cards, and Debian's drivers. What a driver reports is compared with the device's registers where
QEMU has them, else with what the driver's source and QEMU's say the device is.
"""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from tests.e2e.cards import MAC, Card
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import LINUX, Engine, on_each, only
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.net.settings import Channels, DriverInfo, Duplex
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.pci import BarKind

COPPER_100 = {"10baseT/Half", "10baseT/Full", "100baseT/Half", "100baseT/Full", "Autoneg", "TP"}


driven = on_each("qemu", "rtl8139")


def test_link_settings(nic: Uplink, card: Card) -> None:
    link = nic.link
    assert (link.speed, link.duplex, link.autonegotiation) == (card.speed, "full", True)
    assert link.supported >= COPPER_100
    assert ("1000baseT/Full" in link.supported) == (card.speed == 1000)
    assert link.advertised >= COPPER_100


def test_driver_info(nic: Uplink, card: Card) -> None:
    info = nic.driver_info
    assert info == DriverInfo(card.module, info.version, "", "0000:00:05.0")
    assert info.version


def test_message_level(nic: Uplink) -> None:
    before = nic.message_level
    nic.message_level = frozenset({"drv", "hw"})
    assert nic.message_level == {"drv", "hw"}
    nic.message_level = before
    with pytest.raises(UsageError, match="there is no gossip"):
        nic.message_level = frozenset({"gossip"})


def test_eeprom(nic: Uplink, card: Card) -> None:
    content = nic.eeprom()
    assert raw_address(MAC) in content
    assert nic.eeprom(4, 10) == content[4:14]
    for offset, length in ((-1, 4), (len(content), 1), (0, len(content) + 1), (2, 0)):
        with pytest.raises(UsageError, match=f"the EEPROM has {len(content)} bytes"):
            nic.eeprom(offset, length)


def test_what_a_driver_lacks(nic: Uplink, card: Card) -> None:
    with pytest.raises(NotSupported, match=f"{card.module} cannot do this: it has no get_channels"):
        _ = nic.channels
    with pytest.raises(NotSupported, match="set_channels"):
        nic.channels = Channels(1, 1, 0, 0, 1, 1, 0, 0)


def bmcr(host: VMkernel) -> int:
    """The PHY's control register (IEEE 802.3, 22.2.4.1), read from the card without its driver."""
    (card,) = (adapter.function for adapter in host.adapters if adapter.uplink)
    registers = next(bar.address for bar in card.bars if bar.kind is not BarKind.IO)
    bus = host.platform.bus
    # 8255x: MDI control register, opcode read, PHY 1, register 0 (Intel 8255x manual, 6.3.7).
    bus.write(Space.MEMORY, registers + 0x10, 4, 2 << 26 | 1 << 21)
    return bus.read(Space.MEMORY, registers + 0x10, 4) & 0xFFFF


# QEMU's RTL8139 keeps speed and duplex read only, its PCnet has no MII.
@only("i82557b")
def test_forced_speed_reaches_the_phy(host: VMkernel, nic: Uplink) -> None:
    autonegotiation, fast, full = 0x1000, 0x2000, 0x0100
    before = nic.link
    assert bmcr(host) & autonegotiation
    try:
        wanted: tuple[tuple[int, Duplex, int], ...] = (
            (10, "half", 0), (100, "full", fast | full), (10, "full", full),
        )  # fmt: skip
        for speed, duplex, expected in wanted:
            nic.link = replace(before, autonegotiation=False, speed=speed, duplex=duplex)
            link = nic.link
            assert (link.speed, link.duplex, link.autonegotiation) == (speed, duplex, False)
            assert bmcr(host) & (autonegotiation | fast | full) == expected
    finally:
        nic.link = before
    assert bmcr(host) & autonegotiation
    nic.wait_link(timeout=LIMIT)


@only("qemu")
def test_a_mode_that_is_none(nic: Uplink) -> None:
    with pytest.raises(UsageError, match="there is no 3baseT/Full"):
        nic.link = replace(nic.link, advertised=frozenset({"3baseT/Full"}))


@only("i82557b")
def test_self_test_of_an_e100(nic: Uplink) -> None:
    assert nic.self_test().passed
    offline = nic.self_test(offline=True)
    # QEMU's 8255x does not send to itself: after its loopback tests the driver gives EAGAIN.
    assert [number for number in offline.results.values() if number] == [-errno.EAGAIN] * 2
    assert (offline.passed, offline.offline) == (False, True)
    nic.wait_link(timeout=LIMIT)


@only("pcnet")
def test_self_test_of_a_pcnet32(nic: Uplink) -> None:
    offline = nic.self_test(offline=True)
    assert (offline.passed, offline.offline, set(offline.results.values())) == (True, True, {0})
    nic.wait_link(timeout=LIMIT)


@only("qemu")
def test_rings(nic: Uplink, wire: Peer) -> None:
    before = nic.rings
    assert (before.rx, before.tx, before.rx_max, before.tx_max) == (256, 256, 4096, 4096)
    nic.rings = replace(before, rx=512, tx=128)
    try:
        assert (nic.rings.rx, nic.rings.tx) == (512, 128)
        nic.wait_link(timeout=LIMIT)
        frames = [sized(PEER, 60 + seed, seed, source=raw_address(MAC)) for seed in range(300)]
        assert wire.sent_by(nic, frames) == frames
        with pytest.raises(UsageError, match=r"8192 is out of range for rx; use 0 to 4096"):
            nic.rings = replace(before, rx=8192)
    finally:
        nic.rings = before
        nic.wait_link(timeout=LIMIT)
    wire.listens(nic)


@only("qemu")
def test_wake_on_lan_without_power_management(nic: Uplink) -> None:
    # QEMU's 82540EM has no power management capability: both drivers hold that it cannot wake the machine.
    with pytest.raises(
        UsageError, match=r"e1000 cannot change its wake on lan|the device cannot wake on magic"
    ):
        nic.wake_on_lan = replace(nic.wake_on_lan, enabled=frozenset({"magic"}))


@only("qemu", engines=LINUX)
def test_a_setting_that_the_driver_refuses(nic: Uplink) -> None:
    with pytest.raises(NotSupported, match="e1000 cannot change its coalescing: Operation not supported"):
        nic.coalescing = replace(nic.coalescing, rx_usecs=125)


@only("82545em")
def test_coalescing(nic: Uplink) -> None:
    before = nic.coalescing
    nic.coalescing = replace(before, rx_usecs=125)
    assert nic.coalescing.rx_usecs == 125
    nic.coalescing = before
    with pytest.raises(NotSupported, match=r"it has no tx_frames \(it has rx_usecs\)"):
        nic.coalescing = replace(before, tx_frames=3)


@only("qemu")
def test_pause(nic: Uplink) -> None:
    before = nic.pause
    nic.pause = replace(before, autonegotiation=False, rx=True, tx=True)
    assert nic.pause == replace(before, autonegotiation=False, rx=True, tx=True)
    nic.pause = before
    nic.wait_link(timeout=LIMIT)


@only("rtl8139")
def test_wake_on_lan(nic: Uplink) -> None:
    before = nic.wake_on_lan
    assert before.supported >= {"magic", "unicast", "multicast", "broadcast"}
    nic.wake_on_lan = replace(before, enabled=frozenset({"magic"}))
    assert nic.wake_on_lan.enabled == {"magic"}
    nic.wake_on_lan = before
    with pytest.raises(UsageError, match="the device cannot wake on arp"):
        nic.wake_on_lan = replace(before, enabled=frozenset({"arp"}))


def test_renegotiation(nic: Uplink, wire: Peer) -> None:
    nic.renegotiate()
    nic.wait_link(timeout=LIMIT)
    wire.listens(nic)
    frame = sized(PEER, 60, 1, source=raw_address(MAC))
    assert wire.sent_by(nic, [frame]) == [frame]


@only("qemu")
def test_self_test(nic: Uplink, wire: Peer, engine: Engine) -> None:
    offline = nic.self_test(offline=True)
    assert offline.offline
    results = {name.partition(" test")[0]: number for name, number in offline.results.items()}
    # QEMU's 82540EM has no register FCAL (0x28), and drops what arrives within a second of a write to RCTL: ours waits.
    loopback = 13 if engine.kernel else 0
    assert (results["Register"], results["Eeprom"], results["Loopback"], results["Link"]) == (
        0x28,
        0,
        loopback,
        0,
    )
    assert not offline.passed
    nic.wait_link(timeout=LIMIT)
    wire.listens(nic)


@only("qemu")
def test_identify(nic: Uplink) -> None:
    nic.identify(0.3)
    with pytest.raises(UsageError, match="cannot blink for 0 s"):
        nic.identify(0)


def test_registers(nic: Uplink, card: Card) -> None:
    dump = nic.registers()
    assert len(dump.data) >= 100
    if card.module == "8139cp":
        assert dump.data[:6] == raw_address(MAC), "IDR0 to IDR5 (RTL8139C+ datasheet, 6)"
