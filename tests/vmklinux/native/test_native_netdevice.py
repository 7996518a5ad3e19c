"""What network drivers in Python are given: life cycle, batches, polling, settings, the watchdog, errors.

Independent of us: nobody; the driver here has no hardware (QEMU's edu stands in for it) and says what it was asked.
Drivers with hardware are tested end to end in tests/e2e.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, NotSupported, UsageError, VmkError
from vmkernel_core.net.settings import Coalescing, Rings
from vmkernel_core.net.uplink import Frame, LinkDown, Uplink, UplinkDriver, UplinkEvent
from vmklinux.errors import DriverStopped
from vmklinux.native.device import baton
from vmklinux.native.netdevice import (
    NetDeviceOps,
    alloc_etherdev,
    napi_complete,
    napi_schedule,
    netif_carrier_off,
    netif_carrier_on,
    netif_wake_queue,
    register_netdev,
)
from vmklinux.native.pci import PciDev, PciDriver
from vmklinux.native.tx_batch import TxBatch
from vmklinux.native.workqueue import Workqueue

MAC = bytes.fromhex("525400abcdef")
LIMIT = 10.0


def ethernet(payload: bytes, kind: int = 0x88B5) -> bytes:
    return MAC + bytes(6) + kind.to_bytes(2, "big") + payload


class Loopback(PciDriver, NetDeviceOps):
    """A card in memory: what it sends, up to ``room`` frames, it receives when it is polled."""

    name = "loopback"
    supported_coalesce_params = frozenset({"rx_usecs"})

    @classmethod
    def claims(cls, function: object) -> bool:
        return False

    def probe(self) -> None:
        dev = alloc_etherdev(self.pdev, self)
        dev.dev_addr, dev.max_mtu, dev.watchdog_timeo = MAC, 9000, 0.2
        dev.features = frozenset({"vlan-filter", "vlan-insert", "tx-checksum"})
        dev.hw_features = frozenset({"tx-checksum", "tso", "rx-checksum"})
        self.calls: list[str] = []
        self.sent: list[Frame] = []
        self.room = 1000
        self.given_back = 0
        self.fails: type[Exception] | None = None
        self.timed_out = threading.Event()
        self.rings = Rings(64, 64, 0, 0, 256, 256, 0, 0)
        register_netdev(dev)

    def _note(self, text: str) -> None:
        self.calls.append(text)
        if self.fails:
            raise self.fails(text)

    def ndo_open(self) -> None:
        self.pdev.devres.add(lambda: self.calls.append("released"))
        self._note("open")
        netif_carrier_on(self.netdev)

    def ndo_stop(self) -> None:
        self._note("stop")

    def ndo_start_xmit(self, batch: TxBatch) -> None:
        if self.fails:
            raise self.fails("xmit")
        while len(self.sent) < self.room and (frame := batch.next()):
            self.sent.append(frame)
            batch.take()
        napi_schedule(self.netdev)

    def poll(self, budget: int) -> int:
        if self.fails:
            raise self.fails("poll")
        done = self.sent[:budget]
        for frame in done:
            data = ffi.from_buffer(frame.data)
            piece = ffi.new("struct native_piece *", {"data": data, "length": len(frame.data)})
            flags = lib.LINUX_FRAME_CSUM_GOOD if frame.checksum else 0
            tag = 0 if frame.vlan is None else frame.vlan | 0x10000
            assert lib.native_port_put(self.netdev.handle, piece, 1, flags, tag)
        if self.room >= 1000 and done:
            del self.sent[:budget]
            netif_wake_queue(self.netdev)
        if len(done) < budget:
            napi_complete(self.netdev)
        return len(done)

    def ndo_set_rx_mode(self) -> None:
        groups = [group.hex() for group in self.netdev.mc_list]
        self._note(f"rx_mode {self.netdev.promiscuous} {groups}")

    def ndo_change_mtu(self, mtu: int) -> None:
        self._note(f"mtu {mtu}")

    def ndo_tx_timeout(self) -> None:
        self.timed_out.set()

    def ndo_fix_features(self, features: frozenset[str]) -> frozenset[str]:  # type: ignore[override]  # names suffice
        return features if "tx-checksum" in features else features - {"tso"}

    def ndo_vlan_rx_add_vid(self, vid: int) -> None:
        self._note(f"add {vid}")

    def ndo_vlan_rx_kill_vid(self, vid: int) -> None:
        self._note(f"kill {vid}")

    def get_ringparam(self) -> Rings:
        return self.rings

    def set_ringparam(self, settings: Rings) -> None:
        self.rings = settings

    def get_coalesce(self) -> Coalescing:
        return Coalescing(**{field.name: 0 for field in fields(Coalescing)})  # type: ignore[arg-type]  # False is 0

    def set_coalesce(self, settings: Coalescing) -> None:
        raise NotSupported("it keeps its pace")

    def suspend(self) -> None:
        self._note("suspend")

    def resume(self) -> None:
        self._note("resume")


@pytest.fixture
def pdev(plug: Callable[[str, tuple[int, int]], PciDev]) -> PciDev:
    return plug("edu", (0x1234, 0x11E8))


@pytest.fixture
def made(pdev: PciDev) -> tuple[Loopback, Uplink]:
    """The driver, and the uplink of its device."""
    uplinks: list[Uplink] = []

    def uplink_of(driver: UplinkDriver) -> Uplink:
        uplinks.append(Uplink("vmnic0", driver))
        return uplinks[0]

    pdev.on_uplink = uplink_of
    driver = Loopback(pdev, {})
    pdev.on_stopped = lambda error: uplinks[0].kill("stopped", error)
    with baton():
        driver.probe()
    return driver, uplinks[0]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_life(made: tuple[Loopback, Uplink], pdev: PciDev) -> None:
    driver, nic = made
    events: list[UplinkEvent] = []
    nic.subscribe(events.append)
    with pytest.raises(LinkDown):
        nic.transmit([ethernet(b"closed")])
    for _ in range(2):
        with nic:
            assert nic.link_up
    assert driver.calls == ["open", "rx_mode False []", "stop", "released"] * 2
    assert [event.kind for event in events] == ["link-up"] * 2
    nic.open()
    with baton():
        pdev.devres.release_all()
    assert driver.calls[-2:] == ["stop", "released"]
    with pytest.raises(DeviceGone):
        nic.transmit([ethernet(b"gone")])


def test_an_open_that_fails_leaves_nothing(made: tuple[Loopback, Uplink], pdev: PciDev) -> None:
    driver, nic = made
    taken, driver.fails = len(pdev.devres), VmkError
    with pytest.raises(VmkError, match="open"):
        nic.open()
    assert driver.calls == ["open", "released"]
    assert len(pdev.devres) == taken
    driver.fails = None
    with nic:
        assert nic.transmit([ethernet(b"x")]) == 1


def test_filters_that_fail_close_it_again(
    made: tuple[Loopback, Uplink], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, nic = made

    def fails() -> None:
        raise VmkError("no filter")

    monkeypatch.setattr(driver, "ndo_set_rx_mode", fails)
    with pytest.raises(VmkError, match="no filter"):
        nic.open()
    assert driver.calls == ["open", "stop", "released"]
    monkeypatch.undo()
    with nic:
        assert nic.transmit([ethernet(b"x")]) == 1


def test_frames_go_round(made: tuple[Loopback, Uplink]) -> None:
    _, nic = made
    frames = [ethernet(bytes([n % 256]) * (46 + n % 1400)) for n in range(600)]
    with nic:
        assert nic.transmit(frames) == len(frames)
        back: list[bytes] = []
        while len(back) < len(frames):
            assert nic.wait(rx=True, timeout=LIMIT)
            back += nic.receive(100)
        stats = nic.stats
    assert back == frames
    assert (stats.tx_frames, stats.rx_frames, stats.rx_dropped, stats.tx_busy) == (600, 600, 0, 0)
    assert stats.tx_bytes == stats.rx_bytes == sum(map(len, frames))


def test_the_port_keeps_what_it_has_room_for(made: tuple[Loopback, Uplink]) -> None:
    """4096 frames wait, of any size that fits 16 MiB; what is between them is never overwritten."""
    driver, nic = made
    nic.mtu = 9000
    with nic, baton():
        for turn, length in enumerate((60, 9014, 1514, 9014, 60)):
            sent: list[bytes] = []
            for number in range(5000):
                frame = ethernet(number.to_bytes(4, "big").ljust(length - 14, bytes([turn])))
                piece = ffi.new("struct native_piece *", {"data": ffi.from_buffer(frame), "length": length})
                if lib.native_port_put(driver.netdev.handle, piece, 1, 0, 0):
                    sent.append(frame)
            assert len(sent) == min(4096, (16 << 20) // length)
            back: list[bytes] = []
            while len(back) < len(sent) - 7:
                back += nic.receive(min(100, len(sent) - 7 - len(back)))
            assert back == sent[: len(back)]
            while nic.receive(1000):
                pass


def test_a_ring_of_bytes_wraps(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    lengths = itertools.cycle([9014, 60, 1514, 4000, 61])
    expected: list[bytes] = []
    with nic, baton():
        for number in range(8000):
            frame = ethernet(number.to_bytes(4, "big").ljust(next(lengths) - 14, b"w"))
            halves = frame[:40], frame[40:]
            pieces = ffi.new("struct native_piece[2]")
            keep = [ffi.from_buffer(half) for half in halves]
            for piece, data, half in zip(pieces, keep, halves, strict=True):
                piece.data, piece.length = data, len(half)
            assert lib.native_port_put(driver.netdev.handle, pieces, 2, 0, 0)
            expected.append(frame)
            if len(expected) > 3000:
                (got,) = nic.receive(1)
                assert got == expected.pop(0)


def test_tags_and_checksums(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    frame = ethernet(bytes(range(100)))
    tagged = frame[:12] + bytes.fromhex("81002005") + frame[12:]
    with nic:
        assert nic.transmit([Frame(frame, vlan=0x2005), Frame(frame, checksum=(14, 6))]) == 2
        nic.set_vlans([5, 7])
        nic.set_vlans([5])
        assert nic.transmit([Frame(frame, vlan=0x2005)]) == 1
        assert nic.wait(rx=True, timeout=LIMIT)
        until(lambda: nic.stats.tx_frames == 3)
        received = nic.receive_frames(10)
        with pytest.raises(UsageError, match="offload that vmnic0 does not do"):
            nic.transmit([Frame(frame, checksum=(14, 6), gso_size=64, header_length=30)])
        with pytest.raises(UsageError, match="14 to 1514 bytes"):
            nic.transmit([frame, bytes(1515)])
    assert [one.data for one in received] == [tagged, frame, tagged]
    assert [one.verified for one in received] == [False, True, False]
    assert driver.calls[2:5] == ["add 5", "add 7", "kill 7"]


def test_settings(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    with nic:
        nic.mtu = 4000
        with pytest.raises(UsageError, match="use 68 to 9000"):
            nic.mtu = 9001
        driver.fails = VmkError
        with pytest.raises(VmkError, match="mtu 5000"):
            nic.mtu = 5000
        driver.fails = None
        assert nic.mtu == 4000
        assert nic.transmit([bytes(4014)]) == 1
        nic.set_promiscuous(True)
        nic.set_multicast(["01:00:5e:00:00:01"])
        assert driver.calls[-1] == "rx_mode True ['01005e000001']"
        with pytest.raises(NotSupported, match="cannot change its MAC address"):
            nic.mac = "52:54:00:00:00:01"
        assert nic.mac == MAC.hex(":")
        nic.set_feature("tso", True)
        nic.set_feature("tx-checksum", False)
        assert nic.features == {"vlan-filter", "vlan-insert"}
        nic.set_feature("tx-checksum", True)
        assert "tso" in nic.features
        for feature in ("gro", "vlan-insert"):
            with pytest.raises(UsageError, match=f"cannot switch {feature}"):
                nic.set_feature(feature, True)


def test_controls(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    nic.rings = replace(nic.rings, rx=128)
    assert driver.rings.rx == 128
    with pytest.raises(UsageError, match="257 is out of range for tx; use 0 to 256"):
        nic.rings = replace(nic.rings, tx=257)
    with pytest.raises(NotSupported, match="driver cannot do this: it has no get_channels"):
        _ = nic.channels
    with pytest.raises(NotSupported, match="cannot change its coalescing: it keeps its pace"):
        nic.coalescing = replace(nic.coalescing, rx_usecs=7)
    with pytest.raises(NotSupported, match=r"it has no tx_usecs \(it has rx_usecs\)"):
        nic.coalescing = replace(nic.coalescing, tx_usecs=7)
    assert nic.driver_info.driver == "driver"
    nic.message_level = frozenset({"hw"})
    assert driver.netdev.msg_enable == {"hw"}
    assert nic.speed == 0


def test_sleep(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    with nic:
        nic.suspend()
        nic.resume()
        assert driver.calls[-2:] == ["suspend", "resume"]


def test_a_full_device_is_waited_for(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    frames = [ethernet(bytes([n]) * 46) for n in range(10)]
    with nic:
        driver.room = 4
        assert nic.transmit(frames) == 4
        assert nic.transmit(frames[4:]) == 0
        assert not nic.wait(tx=True, timeout=0.01)
        assert driver.timed_out.wait(LIMIT), "the watchdog did not look"
        with baton():
            driver.sent.clear()
            netif_wake_queue(driver.netdev)
        assert nic.wait(tx=True, timeout=LIMIT)
        driver.room = 1000
        assert nic.transmit(frames[4:]) == 6


def test_the_carrier(made: tuple[Loopback, Uplink]) -> None:
    driver, nic = made
    with nic:
        with baton():
            netif_carrier_off(driver.netdev)
        with pytest.raises(LinkDown, match="vmnic0 has no link"):
            nic.transmit([ethernet(b"x")])
        threading.Timer(0.05, lambda: _locked(lambda: netif_carrier_on(driver.netdev))).start()
        nic.wait_link(timeout=LIMIT)


def _locked(act: Callable[[], object]) -> None:
    with baton():
        act()


@pytest.mark.parametrize("where", ["xmit", "poll", "open", "mtu 1400"])
def test_an_exception_stops_the_driver(made: tuple[Loopback, Uplink], pdev: PciDev, where: str) -> None:
    driver, nic = made
    if where != "open":
        nic.open()
    driver.fails = ZeroDivisionError

    def polled() -> None:
        with baton():
            napi_schedule(driver.netdev)
        until(lambda: nic.error)
        _ = nic.stats

    acts: dict[str, Callable[[], object]] = {
        "open": nic.open,
        "xmit": lambda: nic.transmit([ethernet(b"x")]),
        "poll": polled,
        "mtu 1400": lambda: setattr(nic, "mtu", 1400),
    }
    with pytest.raises(DriverStopped, match=f"ZeroDivisionError: {where}"):
        acts[where]()
    assert isinstance(nic.error, DriverStopped)
    with baton():
        pdev.devres.release_all()
    assert driver.calls.count("stop") == 0
    assert driver.calls[-1] == "released" or where == "mtu 1400"


def test_one_configures_at_a_time(made: tuple[Loopback, Uplink], pdev: PciDev) -> None:
    """A work item that has the RTNL and sleeps is waited for."""
    driver, nic = made
    order: list[str] = []
    work, begun = Workqueue(pdev), threading.Event()

    def reset() -> None:
        with driver.netdev.rtnl.lock():
            begun.set()
            lib.vmk_world_sleep(100_000_000)
            order.append("reset")

    with nic:
        with baton():
            work.schedule_work(reset)
        assert begun.wait(LIMIT)
        nic.mtu = 1300
        order.append("mtu")
    assert order == ["reset", "mtu"]
