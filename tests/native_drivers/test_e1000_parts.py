"""What lies behind the e1000's registers: EEPROM, PHY, link, filters, interrupts, counters, as the driver sets them.

Independent: QEMU's 82540EM, 82544GC, 82545EM and 82574L; registers are read without the driver, by the addresses in
Intel's manuals.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from native_drivers.net.e1000.driver import E1000
from tests.e2e.cards import CARDS, MAC
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import OneNic, one_nic
from tests.vmkernel_core.hardware import until
from vmkernel_core._core import ffi, lib
from vmkernel_core.bus import Space
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.net.settings import Duplex
from vmkernel_core.net.uplink import Uplink, UplinkEvent
from vmklinux.native.device import baton

ME = raw_address(MAC)


@pytest.fixture(scope="module", params=["qemu", "82544gc", "82545em", "e1000e"])
def platform_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("platform_name", names, indirect=True)


@pytest.fixture(scope="module")
def card(platform_name: str) -> Iterator[OneNic]:
    with one_nic(E1000, CARDS[platform_name].make()) as card:
        yield card


@pytest.fixture(scope="module")
def nic(card: OneNic) -> Iterator[Uplink]:
    with card.uplink as uplink:
        uplink.wait_link(timeout=LIMIT)
        yield uplink


def register(card: OneNic, offset: int) -> int:
    """A register, read past the driver."""
    bar = card.driver.pdev.function.bars[0].address
    return card.platform.bus.read(Space.MEMORY, bar + offset, 4)


def phy(card: OneNic, number: int) -> int:
    """A register of the PHY, read past the driver (SDM 13.4.7)."""
    bar, bus = card.driver.pdev.function.bars[0].address, card.platform.bus
    with baton():
        bus.write(Space.MEMORY, bar + 0x20, 4, 2 << 26 | 1 << 21 | number << 16)
        until("MDIC.R", lambda: bus.read(Space.MEMORY, bar + 0x20, 4) >> 28 & 1)
        value = bus.read(Space.MEMORY, bar + 0x20, 4)
    assert not value & 1 << 30, f"PHY register {number}"
    return value & 0xFFFF


def test_eeprom(card: OneNic, nic: Uplink) -> None:
    content = nic.eeprom()
    words = [int.from_bytes(content[at : at + 2], "little") for at in range(0, 128, 2)]
    assert content[:6] == ME
    assert sum(words) & 0xFFFF == 0xBABA
    ids = card.driver.pdev.function
    assert words[0x0D] == ids.device
    assert nic.eeprom(3, 4) == content[3:7]


def test_addresses_are_in_the_filter(card: OneNic, nic: Uplink) -> None:
    assert register(card, 0x5400) == int.from_bytes(ME[:4], "little")
    assert register(card, 0x5404) == 1 << 31 | int.from_bytes(ME[4:], "little")
    groups = [bytes([0x01, 0x00, 0x5E, 0, number, 7 * number]) for number in range(20)]
    nic.set_multicast([group.hex(":") for group in groups])
    exact = [
        (register(card, 0x5400 + 8 * entry) | register(card, 0x5404 + 8 * entry) << 32) & (1 << 48) - 1
        for entry in range(1, 16)
    ]
    assert [address.to_bytes(6, "little") for address in exact] == groups[:15]
    table = [register(card, 0x5200 + 4 * index) for index in range(128)]
    hashed = {
        index * 32 + number for index, word in enumerate(table) for number in range(32) if word >> number & 1
    }
    assert hashed == {(group[5] << 8 | group[4]) >> 4 for group in groups[15:]}
    nic.set_multicast([])
    assert not any(register(card, 0x5404 + 8 * entry) >> 31 for entry in range(1, 16))
    assert not any(register(card, 0x5200 + 4 * index) for index in range(128))


def test_hashed_groups_come_in(card: OneNic, nic: Uplink) -> None:
    groups = [bytes([0x01, 0x00, 0x5E, 0, number, number]) for number in range(40)]
    nic.set_multicast([group.hex(":") for group in groups])
    card.peer.listens(nic)
    frames = [sized(group, 80, number) for number, group in enumerate(groups)]
    assert card.peer.received_by(nic, frames) == frames
    nic.set_multicast([])
    card.peer.listens(nic)
    assert card.peer.received_by(nic, frames) == []


def test_receive_control_is_written_only_when_it_changes(card: OneNic, nic: Uplink) -> None:
    """QEMU's 82540EM receives nothing for a second after it was. The machine may be slow, but not each time."""
    card.peer.listens(nic)
    frame, took = sized(ME, 80, 1), list[float]()
    while not took or (min(took) >= 1 and len(took) < 10):
        nic.set_multicast(["01:00:5e:00:00:01"])
        nic.set_multicast([])
        began = time.monotonic()
        assert card.peer.received_by(nic, [frame]) == [frame]
        took.append(time.monotonic() - began)
    assert min(took) < 1


def test_vlan_table(card: OneNic, nic: Uplink) -> None:
    filtering = 1 << 18  # RCTL.VFE
    assert not register(card, 0x100) & filtering
    nic.set_vlans([0x123, 5])
    assert register(card, 0x100) & filtering
    assert register(card, 0x5600 + 4 * (0x123 >> 5)) == 1 << (0x123 & 31)
    assert register(card, 0x5600) == 1 << 5
    nic.set_promiscuous(True)
    assert not register(card, 0x100) & filtering
    nic.set_promiscuous(False)
    nic.set_vlans([])
    assert not register(card, 0x100) & filtering
    assert register(card, 0x5600) == 0


def test_forced_modes_reach_phy_and_mac(card: OneNic, nic: Uplink) -> None:
    before = nic.link
    autonegotiation, full, fast = 1 << 12, 1 << 8, 1 << 13
    wanted: tuple[tuple[int, Duplex, int, int], ...] = (
        (10, "half", 0, 0), (100, "full", fast | full, 1 << 8 | 1), (10, "full", full, 1),
    )  # fmt: skip
    try:
        for speed, duplex, control, ctrl in wanted:
            nic.link = replace(before, autonegotiation=False, speed=speed, duplex=duplex)
            assert not nic.link.autonegotiation
            assert phy(card, 0) & (autonegotiation | full | fast) == control
            forced = 1 << 11 | 1 << 12
            assert register(card, 0) & (forced | 3 << 8 | 1) == forced | ctrl
        nic.link = replace(before, autonegotiation=False, speed=1000, duplex="full")
        assert nic.link.autonegotiation, "1000BASE-T is negotiated always"
        assert nic.link.advertised & before.advertised - {"TP", "Autoneg"} == {"1000baseT/Full"}
        with pytest.raises(UsageError, match="there is no 1000baseT/Half"):
            nic.link = replace(before, autonegotiation=False, speed=1000, duplex="half")
    finally:
        nic.link = before
    nic.wait_link(timeout=LIMIT)
    assert phy(card, 0) & autonegotiation


def test_what_is_advertised(card: OneNic, nic: Uplink) -> None:
    before, pause = nic.link, nic.pause
    assert phy(card, 4) & 0x0DE1 == 0x05E1, "all modes, symmetric PAUSE"
    nic.link = replace(before, advertised=frozenset({"100baseT/Full", "10baseT/Half"}))
    assert (phy(card, 4) & 0x01E0, phy(card, 9) & 0x0300) == (0x0120, 0)
    nic.link = before
    for rx, tx, bits in ((True, False, 0x0C00), (False, True, 0x0800), (False, False, 0)):
        nic.pause = replace(pause, rx=rx, tx=tx)
        assert (nic.pause.rx, nic.pause.tx) == (rx, tx)
        assert phy(card, 4) & 0x0C00 == bits
    nic.pause = replace(pause, autonegotiation=False, rx=True, tx=True)
    nic.wait_link(timeout=LIMIT)
    assert register(card, 0) >> 27 & 3 == 3, "CTRL.RFCE and TFCE"
    nic.pause = pause
    nic.wait_link(timeout=LIMIT)


def test_link_follows_the_cable(card: OneNic, nic: Uplink) -> None:
    events: queue.Queue[UplinkEvent] = queue.Queue()
    nic.subscribe(events.put)
    address = card.driver.pdev.function.address
    for _ in range(3):
        card.platform.set_link(address, False)
        assert events.get(timeout=LIMIT).kind == "link-down"
        assert (nic.link_up, nic.speed, nic.link.duplex) == (False, 0, "unknown")
        card.platform.set_link(address, True)
        assert events.get(timeout=LIMIT).kind == "link-up"
    assert (nic.speed, nic.link.duplex) == (1000, "full")
    assert nic.link.partner >= {"Autoneg", "1000baseT/Full"}


def test_a_change_of_link_that_nobody_told_of_is_seen(card: OneNic, nic: Uplink) -> None:
    card.platform.bus.write(
        Space.MEMORY, card.driver.pdev.function.bars[0].address + 0xD8, 4, 1 << 2
    )  # IMC.LSC
    card.platform.set_link(card.driver.pdev.function.address, False)
    nic.wait_link(False, timeout=LIMIT)
    card.platform.set_link(card.driver.pdev.function.address, True)
    nic.wait_link(timeout=LIMIT)


def test_moderation(card: OneNic, nic: Uplink, platform_name: str) -> None:
    if platform_name == "82544gc":
        with pytest.raises(NotSupported, match="the 82544GC does not moderate interrupts"):
            _ = nic.coalescing
        return
    before = nic.coalescing
    nic.coalescing = replace(before, rx_usecs=1000)
    assert (nic.coalescing.rx_usecs, register(card, 0xC4)) == (1000, 1000_000 // 256)
    with pytest.raises(UsageError, match="us between interrupts; use 0 to 16776"):
        nic.coalescing = replace(before, rx_usecs=20_000)
    nic.coalescing = before
    with pytest.raises(NotSupported, match=r"it has no tx_frames \(it has rx_usecs\)"):
        nic.coalescing = replace(before, tx_frames=3)


def test_rings(card: OneNic, nic: Uplink) -> None:
    before = nic.rings
    assert (before.rx, before.tx, before.rx_max, before.tx_max) == (256, 256, 4096, 4096)
    nic.rings = replace(before, rx=1001, tx=1)
    assert (nic.rings.rx, nic.rings.tx) == (1008, 80)
    assert (register(card, 0x2808), register(card, 0x3808)) == (1008 * 16, 80 * 16)
    nic.wait_link(timeout=LIMIT)
    frames = [sized(PEER, 60 + seed, seed, source=ME) for seed in range(300)]
    assert card.peer.sent_by(nic, frames) == frames
    nic.rings = before
    nic.wait_link(timeout=LIMIT)


@only("qemu")
def test_counters_are_the_chips(card: OneNic, nic: Uplink) -> None:
    card.peer.listens(nic)
    before = nic.stats
    out = [sized(PEER, 100 + seed, seed, source=ME) for seed in range(20)]
    assert card.peer.sent_by(nic, out) == out
    # QEMU's 82540EM counts only groups that its hash let through: those after the 15th.
    groups = [bytes([0x01, 0x00, 0x5E, 0, number, 7]) for number in range(16)]
    nic.set_multicast([group.hex(":") for group in groups])
    group = sized(groups[15], 300, 1)
    assert card.peer.received_by(nic, [group, sized(b"\xff" * 6, 80, 1)]) == [
        group,
        sized(b"\xff" * 6, 80, 1),
    ]
    nic.set_multicast([])
    after = nic.stats
    came = {name: after.driver[name] - before.driver[name] for name in after.driver}
    assert (came["tx_packets"], came["rx_packets"]) == (20, 3)
    assert (came["rx_multicast"], came["rx_broadcast"], after.multicast - before.multicast) == (1, 1, 1)
    assert came["rx_511_bytes"] == 1
    assert (after.rx_errors, after.tx_errors) == (before.rx_errors, before.tx_errors)


def test_frames_leave_without_interrupts(card: OneNic, nic: Uplink) -> None:
    """Finished descriptors are looked for when there is more to send, as long as the ring has room."""
    line, stats = card.driver.pdev.function.line, ffi.new("struct vmk_irq_stats *")
    frames = [sized(PEER, 60 + seed, seed, source=ME) for seed in range(64)]
    assert card.peer.sent_by(nic, frames) == frames
    assert lib.vmk_irq_stats(line, stats) == 0
    interrupts, accesses = stats.delivered, lib.vmk_bus_accesses()
    for _ in range(20):
        assert card.peer.sent_by(nic, frames) == frames
    assert lib.vmk_irq_stats(line, stats) == 0
    assert stats.delivered == interrupts
    # A doorbell for each batch; every two seconds, and the machine may be slow, a look at the link.
    assert lib.vmk_bus_accesses() - accesses < 20 + 20


def test_registers_can_be_dumped(card: OneNic, nic: Uplink) -> None:
    dump = nic.registers()
    assert int.from_bytes(dump.data[:4], "little") == register(card, 0)
    assert dump.data[-22:-20] == phy(card, 0).to_bytes(2, "little")


def test_self_test(card: OneNic, nic: Uplink, platform_name: str) -> None:
    assert nic.self_test().passed
    result = nic.self_test(offline=True)
    # QEMU's 8254x have no register FCAL (0x28).
    expected = 0 if platform_name == "e1000e" else 0x28
    assert list(result.results.values()) == [expected, 0, 0, 0, 0]
    assert result.passed == (expected == 0)
    nic.wait_link(timeout=LIMIT)
    card.peer.listens(nic)
    frame = sized(ME, 80, 1)
    assert card.peer.received_by(nic, [frame]) == [frame], "no frame of the test's own comes in"


def test_self_test_of_a_closed_chip(nic: Uplink) -> None:
    nic.close()
    assert list(nic.self_test(offline=True).results.values())[1:] == [0, 0, 0, 0]
    nic.open()
    nic.wait_link(timeout=LIMIT)


@only("qemu")
def test_identify_switches_the_lights(card: OneNic, nic: Uplink) -> None:
    before, seen = register(card, 0xE00), set()
    thread = threading.Thread(target=nic.identify, args=(1.0,))
    thread.start()
    while thread.is_alive():
        seen.add(register(card, 0xE00) & 0xF)
    thread.join()
    assert seen >= {0xE, 0xF}
    assert register(card, 0xE00) == before


@only("e1000e")
def test_wake_on_lan(card: OneNic, nic: Uplink) -> None:
    before = nic.wake_on_lan
    assert not before.enabled
    assert before.supported == {"phy", "unicast", "multicast", "broadcast", "magic"}
    nic.wake_on_lan = replace(before, enabled=frozenset({"magic", "multicast"}))
    nic.suspend()
    try:
        assert register(card, 0x5808) == 1 << 1 | 1 << 3
        assert register(card, 0x100) & (1 << 1 | 1 << 4) == 1 << 1 | 1 << 4, "what is to wake it comes in"
    finally:
        nic.resume()
    assert register(card, 0x5808) == 0
    nic.wake_on_lan = before
    nic.wait_link(timeout=LIMIT)


@only("qemu")
def test_a_chip_without_power_management_wakes_nobody(nic: Uplink) -> None:
    with pytest.raises(UsageError, match="the device cannot wake on magic"):
        nic.wake_on_lan = replace(nic.wake_on_lan, enabled=frozenset({"magic"}))


def test_a_closed_chip_is_quiet(card: OneNic, nic: Uplink) -> None:
    assert register(card, 0x100) & register(card, 0x400) & 2
    nic.close()
    assert not (register(card, 0x100) | register(card, 0x400)) & 2
    assert register(card, 0xD0) == 0
    assert phy(card, 0) & 1 << 11, "the PHY is turned off"
    nic.open()
    nic.wait_link(timeout=LIMIT)


@only("qemu")
def test_a_chip_that_hangs_is_reset(card: OneNic, nic: Uplink) -> None:
    """Transmission is switched off behind the driver's back; the ring fills up and stays so."""
    bar = card.driver.pdev.function.bars[0].address
    control = register(card, 0x400)
    card.platform.bus.write(Space.MEMORY, bar + 0x400, 4, control & ~2)
    before = nic.stats.driver["tx_timeout_count"]
    frames = [sized(PEER, 60, seed, source=ME) for seed in range(300)]
    assert nic.transmit(frames) < len(frames)
    until("reset", lambda: nic.stats.driver["tx_timeout_count"] > before, 3 * LIMIT)
    assert nic.wait(tx=True, timeout=LIMIT)
    nic.wait_link(timeout=LIMIT)
    card.peer.drain()
    assert card.peer.sent_by(nic, frames[:10]) == frames[:10]
