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
    napi_enable,
    napi_schedule,
    netif_carrier_off,
    netif_carrier_on,
    netif_stop_queue,
    netif_wake_queue,
    register_netdev,
)
from vmklinux.native.pci import PciDev, PciDriver, pci_enable_device, pci_read_config, pci_set_master
from vmklinux.native.timer import Timer, mod_timer, msleep
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


def test_the_time_of_a_queue_counts_from_its_stop(made: tuple[Loopback, Uplink]) -> None:
    """Not from the last frame: the device may have been idle for long."""
    driver, nic = made
    with nic, baton():
        port, begin = driver.netdev.handle, lib.vmk_now()
        netif_stop_queue(driver.netdev)
        stopped = lib.native_port_last_sent(port)
        netif_stop_queue(driver.netdev)
        assert begin <= stopped == lib.native_port_last_sent(port)


# ---- drivers that fail, and devices that go, at any moment ----


class Failing(Loopback):
    """The same, with all that a device can have: what is named ``where`` does what the test says."""

    def probe(self) -> None:
        pci_enable_device(self.pdev)
        pci_set_master(self.pdev)
        self.where = ""
        self.what: Callable[[], object] = lambda: None
        self.work = Workqueue(self.pdev)
        self.timer = Timer(self.pdev, lambda: self._at("timer"))
        super().probe()

    def _at(self, place: str) -> None:
        if self.where == place:
            self.what()

    def _note(self, text: str) -> None:
        super()._note(text)
        self._at(text.partition(" ")[0])

    def ndo_open(self) -> None:
        self.pdev.devres.add(self._given_back)
        super().ndo_open()

    def _given_back(self) -> None:
        """Memory that the device has would go back now."""
        master = pci_read_config(self.pdev, 4, 2) & 4
        self.calls.append(f"given back, master {bool(master)}")

    def ndo_start_xmit(self, batch: TxBatch) -> None:
        self._at("xmit")
        super().ndo_start_xmit(batch)

    def poll(self, budget: int) -> int:
        self._at("poll")
        return super().poll(budget)

    def get_ringparam(self) -> Rings:
        self._at("ethtool")
        return super().get_ringparam()

    def ndo_get_stats(self) -> None:
        self._at("stats")


@pytest.fixture
def card(pdev: PciDev) -> tuple[Failing, Uplink]:
    """A driver that fails, opened, and its uplink."""
    uplinks: list[Uplink] = []

    def uplink_of(driver: UplinkDriver) -> Uplink:
        uplinks.append(Uplink("vmnic0", driver))
        return uplinks[0]

    pdev.on_uplink = uplink_of
    driver = Failing(pdev, {})
    pdev.on_stopped = lambda error: uplinks[0].kill("stopped", error)
    with baton():
        driver.probe()
    uplinks[0].open()
    return driver, uplinks[0]


def provoke(driver: Failing, nic: Uplink, where: str) -> None:
    """Have the driver called there; what it raises comes out, where somebody called it."""
    match where:
        case "xmit":
            nic.transmit([ethernet(b"x")])
        case "poll":
            with baton():
                napi_schedule(driver.netdev)
        case "timer":
            with baton():
                mod_timer(driver.timer, 0)
        case "work":
            with baton():
                driver.work.schedule_work(lambda: driver._at("work"))
        case "ethtool":
            _ = nic.rings
        case "stats":
            _ = nic.stats
        case "mtu":
            nic.mtu = 1400
        case "rx_mode":
            nic.set_promiscuous(True)
        case "add":
            nic.set_vlans([7])
        case "suspend":
            nic.suspend()
        case "stop":
            nic.close()


CALLED = ["xmit", "ethtool", "stats", "mtu", "rx_mode", "add", "suspend", "stop"]
DELIVERED = ["poll", "timer", "work"]


@pytest.mark.parametrize("where", [*CALLED, *DELIVERED])
def test_a_mistake_stops_the_driver_wherever_it_is(
    card: tuple[Failing, Uplink], pdev: PciDev, where: str
) -> None:
    driver, nic = card

    def mistake() -> None:
        raise ZeroDivisionError(where)

    driver.where, driver.what = where, mistake
    if where in CALLED:
        with pytest.raises(DriverStopped, match=f"ZeroDivisionError: {where}"):
            provoke(driver, nic, where)
    else:
        provoke(driver, nic, where)
        until(lambda: nic.error)
    assert isinstance(nic.error, DriverStopped)
    assert nic.error.where
    assert not pci_read_config(pdev, 4, 2) & 4
    for use in (nic.open, nic.close, lambda: nic.transmit([ethernet(b"x")]), lambda: nic.receive(1)):
        with pytest.raises(DriverStopped):
            use()
    with baton():
        pdev.devres.release_all()
    assert driver.calls[-2:] == ["released", "given back, master False"]


@pytest.mark.parametrize("where", [*CALLED, *DELIVERED])
def test_a_device_that_goes_in_the_midst_of_it_is_nobodys_mistake(
    card: tuple[Failing, Uplink], pdev: PciDev, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What its driver makes of the ones that it reads then does not stop the driver."""
    driver, nic = card
    went = threading.Event()

    def vanish() -> None:
        pdev.gone = True
        went.set()
        raise IndexError("the descriptor 4294967295")

    driver.where, driver.what = where, vanish
    if where in CALLED and where != "stop":
        with pytest.raises(DeviceGone):
            provoke(driver, nic, where)
    else:
        provoke(driver, nic, where)
    assert went.wait(LIMIT)
    with baton():
        pdev.devres.release_all()
    assert pdev.stopped is None
    assert isinstance(nic.error, DeviceGone)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert "released" in driver.calls


def test_an_open_that_makes_a_mistake_is_stopped_before_its_memory_goes_back(
    card: tuple[Failing, Uplink], pdev: PciDev
) -> None:
    driver, nic = card
    nic.close()
    assert driver.calls[-1] == "given back, master True"

    def mistake() -> None:
        raise ZeroDivisionError("open")

    driver.where, driver.what = "open", mistake
    with pytest.raises(DriverStopped):
        nic.open()
    assert driver.calls[-1] == "given back, master False"


def test_a_device_that_cannot_be_stopped_is_cut_off(card: tuple[Failing, Uplink], pdev: PciDev) -> None:
    driver, nic = card

    def refuse() -> None:
        raise VmkError("the receiver does not stop")

    driver.where, driver.what = "stop", refuse
    with pytest.raises(DriverStopped, match="the receiver does not stop"):
        nic.close()
    assert driver.calls[-1] == "given back, master False"


def test_who_waits_while_the_driver_lets_go_finds_nothing(card: tuple[Failing, Uplink], pdev: PciDev) -> None:
    """One configures and sleeps, two wait for the RTNL, a third has the driver let go: no function of the driver's runs
    beside another one or afterwards.
    """
    driver, nic = card
    sleeping, failures = threading.Event(), list[type[BaseException]]()
    inside = [0, 0]

    def sleep() -> None:
        inside[0] += 1
        inside[1] = max(inside)
        sleeping.set()
        msleep(200)
        inside[0] -= 1

    driver.where, driver.what = "mtu", sleep

    def set_mtu(mtu: int) -> None:
        try:
            nic.mtu = mtu
        except VmkError as error:
            failures.append(type(error))

    threads = [threading.Thread(target=set_mtu, args=(mtu,)) for mtu in (1300, 1301, 1302)]
    threads[0].start()
    assert sleeping.wait(LIMIT)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)  # they wait, or will find it dead
    with baton():
        pdev.devres.release_all()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert inside == [0, 1]
    assert failures == [DeviceGone] * 2
    assert [call for call in driver.calls if call.startswith("mtu")] == ["mtu 1300"]
    assert driver.calls.index("mtu 1300") < driver.calls.index("stop")


def test_a_timer_and_work_while_it_goes_to_sleep(card: tuple[Failing, Uplink], pdev: PciDev) -> None:
    """Work that takes the RTNL waits until it sleeps; a timer that fires meanwhile queues it once more."""
    driver, nic = card
    order: list[str] = []

    def reset() -> None:
        with driver.netdev.rtnl.lock():
            order.append("reset")

    def slowly() -> None:
        driver.work.schedule_work(reset)
        mod_timer(driver.timer, 0.01)
        msleep(100)
        order.append("asleep")

    def fire() -> None:
        order.append("timer")
        driver.work.schedule_work(reset)

    driver.timer.function = fire
    driver.where, driver.what = "suspend", slowly
    nic.suspend()
    until(lambda: "reset" in order)
    nic.resume()
    with baton():
        driver.work.flush()
    assert order[:2] == ["timer", "asleep"]
    assert order.count("reset") in (1, 2)
    nic.close()


def test_a_vlan_that_is_refused_is_not_set(card: tuple[Failing, Uplink]) -> None:
    driver, nic = card
    nic.set_vlans([3, 4])

    def refuse() -> None:
        raise VmkError("the table is full")

    driver.where, driver.what = "add", refuse
    with pytest.raises(VmkError, match="the table is full"):
        nic.set_vlans([3, 9])
    assert driver.netdev.vlans == {3}
    driver.where = "kill"
    with pytest.raises(VmkError, match="the table is full"):
        nic.set_vlans([])
    assert driver.netdev.vlans == {3}


def test_polling_ends_with_the_driver(card: tuple[Failing, Uplink], pdev: PciDev) -> None:
    driver, _ = card
    with baton():
        pdev.devres.release_all()
        napi_enable(driver.netdev)
        napi_schedule(driver.netdev)
    polled = threading.Event()
    driver.where, driver.what = "poll", polled.set
    assert not polled.wait(0.1)


def test_an_operators_interrupt_reaches_the_program(card: tuple[Failing, Uplink], pdev: PciDev) -> None:
    """Wherever it came: nothing of the driver is harmed by it, and no traceback is printed."""
    driver, nic = card

    def interrupted() -> None:
        driver.where = ""
        raise KeyboardInterrupt

    driver.where, driver.what = "poll", interrupted
    with pytest.raises(KeyboardInterrupt):
        _transmit_and_wait(nic)
    assert nic.wait(rx=True, timeout=LIMIT)
    assert nic.receive() == [ethernet(b"x")]


def _transmit_and_wait(nic: Uplink) -> None:
    nic.transmit([ethernet(b"x")])
    time.sleep(LIMIT)


def test_an_offload_that_the_card_does_not_do_is_refused(card: tuple[Failing, Uplink]) -> None:
    """There is no segmentation in software: the whole batch is refused, as by Linux's engine, and nothing is sent."""
    driver, nic = card
    large = Frame(ethernet(bytes(4000)), checksum=(34, 16), gso_size=1400, header_length=54)
    for feature in ("tso", "tx-checksum"):
        assert (feature in nic.features) == (feature == "tx-checksum")
    with pytest.raises(UsageError, match="asks for an offload that vmnic0 does not do now") as refused:
        nic.transmit([ethernet(b"x"), large])
    assert "features" in refused.value.remedy
    assert driver.sent == []
    nic.set_feature("tso", True)
    assert nic.transmit([large]) == 1
    nic.set_feature("tx-checksum", False)
    with pytest.raises(UsageError, match="asks for an offload"):
        nic.transmit([Frame(ethernet(bytes(60)), checksum=(34, 16))])
