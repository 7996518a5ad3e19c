"""Cards that come and go while frames cross, in slots of QEMU's PCI Express ports.

Independent: QEMU's ports, slots and cards, whose hot-plug follows the specification that VMkernel's controller driver
does; Debian's drivers, where the engine is Linux; the far end of each wire.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import ENGINES, LINUX, NATIVE, Engine, by_engine, with_engines
from tests.e2e.packets import PEER, ethernet, raw_address
from tests.e2e.test_e1000_trouble import adapter_field, drained, flood, is_over
from vmkernel_core._core import lib
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone, VmkError
from vmkernel_core.hotplug import DeviceEvent
from vmkernel_core.memory import store, store_bytes
from vmkernel_core.net.uplink import Uplink, UplinkEvent
from vmkernel_core.pci_function import CAPABILITY_PCI_EXPRESS
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.errors import DriverStopped

PORTS = ["pcie-root-port,id=port0,chassis=1,addr=3", "pcie-root-port,id=port1,chassis=2,addr=4"]
#: QEMU's name of a card, and the driver that the vmkernel finds for it.
CARDS = {"e1000": "e1000", "e1000e": "e1000e", "rtl8139": "8139cp"}
#: The same of drivers in Python.
NATIVE_CARDS = {"e1000": "e1000", "e1000e": "e1000", "pcnet": "pcnet32", "i82559c": "e100"}
#: Each of them with each engine that has a driver for it.
by_card = pytest.mark.parametrize(
    ("card", "driven"),
    [
        pytest.param(card, (card, engine), id=f"{card}-{engine}")
        for engine in ENGINES
        for card in (NATIVE_CARDS if engine == NATIVE else CARDS)
    ],
    indirect=["driven"],
)
BUSY = 50
#: The register Slot Status in the PCI Express capability, and its event of the attention button (PCI Express Base 3.0,
#: 7.8.11).
SLOT_STATUS, BUTTON = 0x1A, 1 << 0

Devices = queue.Queue[DeviceEvent]


@contextmanager
def machine(
    engine: Engine, *cards: str, modules: dict[str, str] | None = None
) -> Iterator[tuple[VMkernel, QemuPlatform, Devices]]:
    """A host with two slots, cards in the first of them; at its end nothing may have leaked."""
    devices = [f"{card},netdev=wire{n},bus=port{n}" for n, card in enumerate(cards)]
    platform = QemuPlatform(PORTS + devices)
    with VMkernel(platform, modules=modules, **engine.options) as host:
        events: Devices = queue.Queue()
        host.watch_devices(events.put)
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        yield host, platform, events
    assert host.leaks == []


def uplink_at(host: VMkernel, address: PciAddress) -> Uplink:
    """The uplink of the card there."""
    adapter = next(adapter for adapter in host.adapters if adapter.function.address == address)
    assert adapter.error is None
    assert adapter.uplink is not None
    return adapter.uplink


def crosses(platform: QemuPlatform, nic: Uplink, wire: int) -> None:
    """A frame crosses each way."""
    with ThreadPoolExecutor(1) as pool:
        peer = Peer(platform.wires[wire].socket, pool)
        nic.wait_link(timeout=LIMIT)
        peer.drain()
        out = ethernet(PEER, b"out".ljust(46), source=raw_address(nic.mac))
        assert peer.sent_by(nic, [out]) == [out]
        peer.listens(nic)
        came = ethernet(raw_address(nic.mac), b"in".ljust(46))
        assert peer.received_by(nic, [came]) == [came]


@contextmanager
def traffic(platform: QemuPlatform, nic: Uplink, wire: int) -> Iterator[None]:
    """Frames cross both ways until the block ends or the uplink dies."""
    nic.wait_link(timeout=LIMIT)
    end = platform.wires[wire].socket
    end.settimeout(0.1)
    frames = [ethernet(PEER, bytes([number]) * 200) for number in range(BUSY)]
    incoming = ethernet(raw_address(nic.mac), bytes(200))
    with ThreadPoolExecutor(1) as pool:
        peer = Peer(end, pool)

        def send() -> None:
            with suppress(BlockingIOError, TimeoutError):
                peer.send([incoming])

        def transmit() -> None:
            try:
                nic.transmit(frames)
                nic.receive(BUSY)
            except VmkError as error:
                raise OSError from error

        with flood(send), flood(transmit), flood(lambda: drained(peer)):
            yield
    end.settimeout(None)


def removal(events: Devices) -> DeviceEvent:
    """The next device event, which has to be a removal."""
    event = events.get(timeout=LIMIT)
    assert event.kind == "removed"
    return event


@by_card
def test_plugged_at_run_time(engine: Engine, card: str) -> None:
    with machine(engine) as (host, platform, events):
        assert host.uplinks == {}
        for round in range(2):  # a slot is good for more than one card
            address = platform.plug(f"{card},netdev=wire{round},bus=port0")
            assert events.get(timeout=LIMIT) == DeviceEvent("added", address)
            nic = uplink_at(host, address)
            assert nic.driver_name == (CARDS if engine.kernel else NATIVE_CARDS)[card]
            with nic:
                crosses(platform, nic, round)
            platform.unplug(address)
            assert removal(events) == DeviceEvent("removed", address)
            assert host.uplinks == {}
            is_over(nic, DeviceGone)


@with_engines("kernel612")
def test_plugged_when_the_module_was_stopped(engine: Engine) -> None:
    with machine(engine, "e1000") as (host, platform, events):
        store(adapter_field(host, "tx_ring"), 8, 0x6660_0000_0000)
        with pytest.raises(DriverStopped):
            host.uplinks["vmnic0"].open()
        address = platform.plug("e1000,netdev=wire1,bus=port1")
        assert events.get(timeout=LIMIT) == DeviceEvent("added", address)
        card = next(one for one in host.adapters if one.function.address == address)
        assert card.error is not None
        assert card.error.what == "the module e1000 was stopped and takes no device any more"
        assert (card.error.remedy, card.bound) == ("unload it and load it again", False)
        host.unload("e1000")
        host.load("e1000")
        with uplink_at(host, address) as nic:
            crosses(platform, nic, 1)


@with_engines("kernel612")
@pytest.mark.parametrize("seen", ["twice", "late"])
def test_an_event_of_before_does_not_take_a_card_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """QEMU tells of a new card as by its slot's button, too. Seen by two readers, or by the second reading only, that
    would be a wish to take the card out.
    """
    with machine(engine) as (host, platform, events):
        read, done = platform.config_read, False

        def config_read(address: PciAddress, offset: int, size: int) -> int:
            nonlocal done
            value = read(address, offset, size)
            slot = host.hotplug.slot_of(PciAddress(0, 1, 0, 0))
            if slot and address == slot.port.address and offset == status and value & BUTTON and not done:
                done = True
                if seen == "late":
                    return value & ~BUTTON  # as if it came after this reading
                host.hotplug.interrupted(slot)  # the interrupt comes before the first reader has cleared it
            return value

        port = next(a.function for a in host.adapters if a.function.address == PciAddress(0, 0, 3, 0))
        express = port.capability(CAPABILITY_PCI_EXPRESS)
        assert express is not None
        status = express.offset + SLOT_STATUS
        monkeypatch.setattr(platform, "config_read", config_read)
        for number in range(2):
            address = platform.plug(f"e1000e,netdev=wire{number},bus=port{number}")
            assert events.get(timeout=LIMIT) == DeviceEvent("added", address)
        assert done
        assert len(host.uplinks) == 2


@by_card
@pytest.mark.parametrize("by", ["the platform", "the host"])
def test_taken_out_in_order_while_traffic_runs(engine: Engine, card: str, by: str) -> None:
    with machine(engine, card, "e1000") as (host, platform, events):
        address, other = (a.function.address for a in host.adapters if a.uplink)
        nic, survivor = uplink_at(host, address), uplink_at(host, other)
        told: queue.Queue[UplinkEvent] = queue.Queue()
        with survivor, nic, traffic(platform, nic, 0):
            nic.subscribe(told.put)
            (platform if by == "the platform" else host).unplug(address)
            assert removal(events) == DeviceEvent("removed", address)
            while told.get(timeout=LIMIT).kind != "removed":
                pass
            is_over(nic, DeviceGone)
        with survivor:
            crosses(platform, survivor, 1)
        assert platform.config_read(address, 0, 2) == 0xFFFF
        assert all(adapter.function.address != address for adapter in host.adapters)


@by_card
def test_pulled_while_traffic_runs(engine: Engine, card: str) -> None:
    with machine(engine, card, "e1000") as (host, platform, events):
        address, other = (a.function.address for a in host.adapters if a.uplink)
        nic, survivor = uplink_at(host, address), uplink_at(host, other)
        with survivor:
            with nic, traffic(platform, nic, 0):
                platform.pull(address)
                assert removal(events) == DeviceEvent("removed", address, surprise=True)
                is_over(nic, DeviceGone)
            crosses(platform, survivor, 1)
            again = platform.plug("e1000,netdev=wire9,bus=port0")
            assert events.get(timeout=LIMIT) == DeviceEvent("added", again)
            with uplink_at(host, again) as fresh:
                crosses(platform, fresh, 2)


@by_engine
def test_pulled_on_the_root_bus(engine: Engine) -> None:
    platform = QemuPlatform(["e1000,netdev=wire0,addr=5"])
    with VMkernel(platform, **engine.options) as host:
        events: Devices = queue.Queue()
        host.watch_devices(events.put)
        nic = host.uplinks["vmnic0"]
        with nic, traffic(platform, nic, 0):
            platform.pull(PciAddress(0, 0, 5, 0))
            assert removal(events).surprise
            is_over(nic, DeviceGone)
    assert host.leaks == []


@by_engine
def test_qemu_killed_with_several_uplinks(engine: Engine) -> None:
    with machine(engine, "e1000", "rtl8139" if engine.kernel else "e1000") as (host, platform, events):
        nics = list(host.uplinks.values())
        assert len(nics) == 2
        with nics[1], nics[0], traffic(platform, nics[0], 0):
            os.kill(platform.pid, signal.SIGKILL)
            gone = {removal(events).address for _ in nics}
            assert len(gone) == 2
        for nic in nics:
            is_over(nic, DeviceGone)
        assert host.uplinks == {}


#: mov (%rdi),%eax; cmp $-1,%eax; je -7; ret: waits until a register is no longer all ones.
WAITS_FOR_EVER = bytes.fromhex("8b0783f8ff74f9c3")
#: Above what is held for the kernel: a heap may have grown to anywhere below.
CODE = 0x7F40_0000


@with_engines(*LINUX)
def test_code_that_waits_for_a_device_that_has_gone_is_stopped(engine: Engine) -> None:
    with machine(engine) as (host, platform, _):
        linux, bus = host.linux, platform.bus.handle
        linux.map_at(CODE, 4096, 7)
        store_bytes(CODE, WAITS_FOR_EVER)
        window = lib.vmk_window_open(bus, 0xFE00_0000, 4096)
        lib.vmk_windows_dead(bus, 0xFE00_0000, 4096, 200_000_000)
        began = time.monotonic()
        with pytest.raises(DriverStopped, match="does not stop asking it") as stopped:
            linux.call(CODE, window)
        assert stopped.value.reason == "gone"
        assert 0.1 < time.monotonic() - began < LIMIT
        lib.vmk_window_close(window)
        linux.unmap(CODE)
