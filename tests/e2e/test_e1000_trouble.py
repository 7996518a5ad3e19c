"""A device that vanishes and a driver that goes wrong, in the middle of traffic; the process goes on.

Independent: Debian's e1000.ko; QEMU, whose process is killed. Debian's driver goes wrong because the test writes into
its memory what no driver would, the one in Python because the test puts a function into it that raises.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from native_drivers.net.e1000.receive import Receiver
from native_drivers.net.e1000.transmit import Transmitter
from tests.e2e.cards import MAC
from tests.e2e.conftest import LIMIT, PLATFORMS, Peer, exchange
from tests.e2e.engines import Engine, by_engine
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone, VmkError
from vmkernel_core.memory import store
from vmkernel_core.net.uplink import Uplink, UplinkEvent
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.btf import Btf
from vmklinux.errors import DriverStopped
from vmklinux.kernels import Kernel
from vmklinux.netdevice import NetDevices

Events = queue.Queue[UplinkEvent]


@contextlib.contextmanager
def flood(send: Callable[[], object]) -> Iterator[None]:
    """Calls a function over and over in a thread, which ends at its first OSError at the latest."""
    stop = threading.Event()

    def run() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                send()

    thread = threading.Thread(target=run, name="flood", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LIMIT)
        assert not thread.is_alive()


def drained(peer: Peer) -> None:
    """Reads what is on the wire, waiting for it a moment."""
    with contextlib.suppress(TimeoutError):
        peer.next(0.01)
    peer.drain()


def use_until(error: type[VmkError], use: Callable[[], object]) -> VmkError:
    """Use the uplink until it fails, which it has to with this error."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            use()
        except error as caught:
            return caught
    raise AssertionError(f"no {error.__name__} in {LIMIT} s")


def transmitting(nic: Uplink) -> Callable[[], object]:
    frames = [sized(PEER, 500, seed) for seed in range(64)]

    def use() -> None:
        if not nic.transmit(frames):
            nic.wait(tx=True, timeout=LIMIT)

    return use


def receiving(nic: Uplink) -> Callable[[], object]:
    return lambda: nic.wait(rx=True, timeout=LIMIT) and nic.receive()


USES = {"transmitting": transmitting, "receiving": receiving}


@contextlib.contextmanager
def busy(host: VMkernel) -> Iterator[tuple[Uplink, Events]]:
    """An uplink on which frames cross both ways, as far as the test itself plays its part."""
    nic = host.uplinks["vmnic0"]
    events: Events = queue.Queue()
    nic.subscribe(events.put)
    incoming = sized(raw_address(MAC), 200, 1)
    with ThreadPoolExecutor(1) as pool:
        peer = Peer(host.platform.wires[0].socket, pool)
        nic.open()
        nic.wait_link(timeout=LIMIT)
        assert events.get(timeout=LIMIT).kind == "link-up"
        peer.listens(nic)
        peer.socket.settimeout(0.1)
        with flood(lambda: peer.send([incoming])), flood(lambda: drained(peer)):
            yield nic, events


def is_over(nic: Uplink, error: type[VmkError]) -> None:
    """Every use of a dead uplink raises the same error; none waits for its time to be up."""
    uses: list[Callable[[], object]] = [
        lambda: nic.transmit([sized(PEER, 60, 1)]),
        nic.receive,
        lambda: nic.wait(rx=True, timeout=LIMIT),
        lambda: nic.wait_link(timeout=LIMIT),
        lambda: nic.stats,
        lambda: nic.mac,
        nic.open,
        nic.close,
    ]
    began = time.monotonic()
    for use in uses:
        with pytest.raises(error):
            use()
    assert time.monotonic() - began < LIMIT
    assert not nic.is_open


@by_engine
@pytest.mark.parametrize("use", USES)
def test_qemu_is_killed(engine: Engine, use: str) -> None:
    platform = QemuPlatform([f"e1000,netdev=wire0,addr=5,mac={MAC}"])
    with VMkernel(platform, **engine.options) as host, busy(host) as (nic, events):
        action = USES[use](nic)
        for _ in range(20):
            action()
        os.kill(platform.pid, signal.SIGKILL)
        error = use_until(DeviceGone, action)
        assert "vmnic0 has gone" in str(error)
        assert events.get(timeout=LIMIT).kind == "removed"
        is_over(nic, DeviceGone)
    with VMkernel(PLATFORMS["model"](), **engine.options) as host:
        exchange(host)
    assert host.leaks == []


def test_the_device_is_unplugged(boot: Callable[..., VMkernel], engine: Engine) -> None:
    """The driver finds it out by itself, or does not; either way it ends, and in time."""
    with boot() as host:
        with busy(host) as (nic, _):
            for _ in range(20):
                transmitting(nic)()
            (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
            host.platform.unplug(adapter.function.address)
            with contextlib.suppress(VmkError):
                nic.transmit([sized(PEER, 60, 1)])
                nic.wait(rx=True, timeout=0.1)
                nic.receive()
        began = time.monotonic()
    assert time.monotonic() - began < LIMIT
    with VMkernel(PLATFORMS["model"](), **engine.options) as host:
        exchange(host)
    assert host.leaks == []


@by_engine
def test_the_device_is_unplugged_in_order(engine: Engine) -> None:
    with VMkernel(PLATFORMS["model"](), **engine.options) as host:
        with busy(host) as (nic, events):
            transmitting(nic)()
            host.unplug(host.adapters[0].function.address)
            assert events.get(timeout=LIMIT).kind == "removed"
            is_over(nic, DeviceGone)
        assert host.adapters == []
    assert host.leaks == []


def adapter_field(host: VMkernel, field: str) -> int:
    """The address of a field of the driver's struct e1000_adapter, which lies behind the net_device."""
    linux = host.linux
    file = host.loader.modules["e1000"].file
    types = Btf(file.btf, linux.types, origin="e1000")
    (device,) = linux.state(NetDevices).registered
    net_device = linux.types.struct("net_device")
    private = (
        linux.types.offsetof("net_device", "priv")
        if "priv" in net_device.fields
        else -(-net_device.size // 32) * 32
    )
    return device + private + types.offsetof("e1000_adapter", field)


#: A pointer that the driver uses for it, and what the test writes there: nobody's memory, and an address that cannot
#: be. The first is met in the caller's name, the second in the softirq's.
POINTERS = {"transmitting": ("tx_ring", 0x6660_0000_0000), "receiving": ("rx_ring", 0xDEAD_0000_0000_0000)}


@pytest.mark.parametrize("use", USES)
def test_the_driver_goes_wrong(kernel: Kernel, use: str) -> None:
    field, value = POINTERS[use]
    with VMkernel(PLATFORMS["model"](), kernel=kernel.release) as host:
        with busy(host) as (nic, events):
            action = USES[use](nic)
            for _ in range(20):
                action()
            store(adapter_field(host, field), 8, value)
            error = use_until(DriverStopped, action)
            assert isinstance(error, DriverStopped)
            assert error.reason == "fault"
            assert error.site.endswith("[e1000]")
            assert events.get(timeout=LIMIT).kind == "stopped"
            is_over(nic, DriverStopped)
        began = time.monotonic()
    assert time.monotonic() - began < LIMIT
    with VMkernel(PLATFORMS["model"](), kernel=kernel.release) as host:
        exchange(host)
    assert host.leaks == []


#: What of the driver in Python the test replaces for each use: it is met in the caller's name, and at a delivery.
BROKEN = {"transmitting": (Transmitter, "send"), "receiving": (Receiver, "harvest")}


@pytest.mark.parametrize("use", USES)
def test_the_driver_in_python_raises(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    with VMkernel(PLATFORMS["model"](), engine="native") as host:
        address = host.adapters[0].function.address
        with busy(host) as (nic, events):
            action = USES[use](nic)
            for _ in range(20):
                action()
            monkeypatch.setattr(*BROKEN[use], broken)
            error = use_until(DriverStopped, action)
            assert isinstance(error, DriverStopped)
            assert error.reason == "python"
            assert "ZeroDivisionError: on purpose" in error.what
            assert events.get(timeout=LIMIT).kind == "stopped"
            is_over(nic, DriverStopped)
            assert not host.platform.config_read(address, 4, 2) & 0x4, "it is no bus master any more"
            monkeypatch.undo()
    assert host.leaks == []
    with VMkernel(PLATFORMS["model"](), engine="native") as host:
        exchange(host)
    assert host.leaks == []
