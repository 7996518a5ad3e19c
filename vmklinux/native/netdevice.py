"""Network devices of drivers in Python (Linux net/core/dev.c, include/linux/netdevice.h).

A driver's class inherits NetDeviceOps beside PciDriver. Its probe makes a NetDevice with ``alloc_etherdev``, fills in
what the device is and can do, and makes it known with ``register_netdev``, last. What runs per frame is in C (port.c).
Of what Linux adds in software there is no GRO and no GSO: a device does by itself what ``features`` tells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, NotSupported, UsageError, VmkError
from vmkernel_core.interrupt import interrupt_program
from vmklinux.native.ethtool import EthtoolOps
from vmklinux.native.rtnl import Rtnl
from vmklinux.native.uplink import NativeUplink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmkernel_core.net.uplink import Feature, Uplink
    from vmklinux.native.pci import PciDev
    from vmklinux.native.ring import TxRing
    from vmklinux.native.tx_batch import TxBatch

ETH_MIN_MTU, ETH_DATA_LEN = 68, 1500  # include/uapi/linux/if_ether.h
#: What Linux gives a device of which the driver says nothing else (GSO_MAX_SIZE, GSO_MAX_SEGS; a feature of its own).
GSO_MAX_SIZE, GSO_MAX_SEGS = 65535, 65535


@dataclass
class NetDeviceStats:
    """Errors that the device counted, and multicast frames that came in, since its driver has it (rtnl_link_stats64)."""

    tx_errors: int = 0
    rx_errors: int = 0
    multicast: int = 0


class NetDevice:
    """A network device: what its driver tells of it and what was set, for both to read (Linux's net_device).

    The driver fills in, before it registers it: ``dev_addr`` (six bytes), ``min_mtu`` and ``max_mtu`` (bytes of
    payload), ``features`` (what the device does at first), ``hw_features`` (what of it, and else, can be switched),
    ``watchdog_timeo`` (seconds that a stopped queue has, before ndo_tx_timeout), ``gso_max_size`` (bytes) and
    ``gso_max_segs``. ``msg_enable`` has the subjects to be logged, by ethtool's names.

    It reads ``dev_addr``, ``mtu``, ``promiscuous``, ``mc_list``, ``vlans``, ``features``: they are what shall be when
    the function of NetDeviceOps about them is called; the first two and the last are put back when that raises an
    error. ``running``: between open and stop. ``present``: not asleep. ``registered``: there is an uplink. ``handle``
    is the C core's struct native_port, for RxRing. ``stats`` are the driver's to count.
    """

    def __init__(self, pdev: PciDev, ops: NetDeviceOps) -> None:
        """``alloc_etherdev`` makes it."""
        self.pdev = pdev
        self.ops = ops
        self.uplink: Uplink | None = None
        self.dev_addr = bytes(6)
        self.mtu, self.min_mtu, self.max_mtu = ETH_DATA_LEN, ETH_MIN_MTU, ETH_DATA_LEN
        self.features: frozenset[Feature] = frozenset()
        self.hw_features: frozenset[Feature] = frozenset()
        self.gso_max_size, self.gso_max_segs = GSO_MAX_SIZE, GSO_MAX_SEGS
        self.promiscuous = False
        self.mc_list: list[bytes] = []
        self.vlans: frozenset[int] = frozenset()
        self.watchdog_timeo = 5.0
        self.msg_enable: frozenset[str] = frozenset({"drv", "probe", "link"})
        self.stats = NetDeviceStats()
        self.running = False
        self.present = True
        self.registered = False
        self.carrier = False
        self.rtnl = Rtnl()
        self.poll = partial(pdev.deliver, partial(ops.poll, POLL_WEIGHT))
        self._self = ffi.new_handle(self)
        port = lib.native_port_create(self._self)
        if port == ffi.NULL:
            raise VmkError("no memory for a network device", where=pdev.name)
        # Whoever is inside a call with the port holds this object: it is freed when nobody is.
        self.handle = ffi.gc(port, lib.native_port_free)

    @property
    def name(self) -> str:
        """What it is called in messages: the uplink's name, once there is one."""
        return self.uplink.name if self.uplink else self.pdev.name

    @contextmanager
    def configuring(self) -> Iterator[None]:
        """Around a call of the driver on behalf of whoever uses the device: one at a time, as long as there is a driver.

        DeviceGone, DriverStopped, TimedOut; what the driver raises.
        """
        with self.pdev.calling(), self.rtnl.lock():
            if self.pdev.stopped is not None:  # while it was waited for
                raise self.pdev.stopped
            if not self.registered:
                raise DeviceGone("its driver has let go of the device", where=self.name)
            yield

    def state_changed(self) -> None:
        """For this package: tell the port whether frames can go."""
        lib.native_port_run(self.handle, self.running and self.carrier and self.present)


class NetDeviceOps(EthtoolOps, ABC):
    """What a driver does for a network device, by Linux's names (net_device_ops). Every call has the baton.

    All but ndo_start_xmit, poll and ndo_tx_timeout may sleep, and none of them is called while another runs (``rtnl``).
    What ndo_open takes (interrupts, memory) is given back after ndo_stop, and when ndo_open raises an error.
    """

    netdev: NetDevice

    @abstractmethod
    def ndo_open(self) -> None:
        """Start the device. Interrupts may come, polling is enabled; the link is to be told by netif_carrier_on."""

    @abstractmethod
    def ndo_stop(self) -> None:
        """Stop it: no DMA, no interrupt. The hardware may have gone."""

    @abstractmethod
    def ndo_start_xmit(self, batch: TxBatch) -> None:
        """Take frames from the batch, as many as there is room for. It must not sleep.

        When some are left, the queue is stopped until netif_wake_queue: when the device is done with others.
        """

    @abstractmethod
    def poll(self, budget: int) -> int:
        """After napi_schedule: take back what was sent, hand up at most ``budget`` frames. How many they were.

        With fewer it is to call napi_complete, and to let the device interrupt again if that is true. It must not sleep.
        """

    def ndo_set_rx_mode(self) -> None:
        """``promiscuous`` and ``mc_list`` changed, or the device was opened. Only while it runs."""

    def ndo_set_mac_address(self, mac: bytes) -> None:
        """The address (``dev_addr``) is to change. NotSupported."""
        raise NotSupported("the driver cannot change its MAC address", where=self.netdev.name)

    def ndo_change_mtu(self, mtu: int) -> None:
        """The MTU, which is between ``min_mtu`` and ``max_mtu``, changed."""

    def ndo_tx_timeout(self) -> None:
        """The queue was stopped for longer than ``watchdog_timeo``. It must not sleep: a reset is for schedule_work."""

    def ndo_fix_features(self, features: frozenset[Feature]) -> frozenset[Feature]:
        """Those of the wanted features that can be on together."""
        return features

    def ndo_set_features(self, features: frozenset[Feature]) -> None:
        """``features`` changed."""

    def ndo_get_stats(self) -> None:
        """Bring ``netdev.stats`` up to date."""

    def ndo_vlan_rx_add_vid(self, vid: int) -> None:
        """A VLAN is let through from now on."""

    def ndo_vlan_rx_kill_vid(self, vid: int) -> None:
        """It is not let through any more."""


def alloc_etherdev(pdev: PciDev, ops: NetDeviceOps) -> NetDevice:
    """A network device that nobody knows yet. ``ops.netdev`` is set to it."""
    dev = ops.netdev = NetDevice(pdev, ops)
    pdev.exclusive = dev.rtnl.lock
    pdev.devres.add(partial(napi_disable, dev))  # whatever of the driver still runs: the port may be freed
    return dev


def register_netdev(dev: NetDevice) -> None:
    """Make it known, until the driver lets go of the hardware: it becomes an uplink. UsageError for a bad address."""
    if len(dev.dev_addr) != 6 or dev.dev_addr[0] & 1 or not any(dev.dev_addr):
        raise UsageError(f"{dev.dev_addr.hex(':')} is no MAC address for a device", where=dev.pdev.name)
    uplink = NativeUplink(dev)
    dev.pdev.devres.add(uplink.unregister)
    dev.registered = True
    dev.uplink = dev.pdev.on_uplink(uplink)


# ---- what a driver tells ----


def _set_carrier(dev: NetDevice, up: bool) -> None:
    if dev.carrier == up:
        return
    dev.carrier = up
    dev.state_changed()
    if dev.uplink and dev.uplink.error is None:
        dev.uplink.post("link-up" if up else "link-down")


def netif_carrier_on(dev: NetDevice) -> None:
    """There is a link."""
    _set_carrier(dev, True)


def netif_carrier_off(dev: NetDevice) -> None:
    """There is no link."""
    _set_carrier(dev, False)


def netif_stop_queue(dev: NetDevice) -> None:
    """No frame more for now."""
    lib.native_port_stop_queue(dev.handle)


def netif_wake_queue(dev: NetDevice) -> None:
    """There is room again: who waits for it is told."""
    lib.native_port_wake_queue(dev.handle)


def netif_queue_stopped(dev: NetDevice) -> bool:
    """Whether it is."""
    return bool(lib.native_port_queue_stopped(dev.handle))


def netif_txq_maybe_wake(dev: NetDevice, ring: TxRing[Any]) -> bool:
    """Wake a stopped queue once half of the ring is free; whether it was woken now."""
    if not netif_queue_stopped(dev) or ring.room <= ring.slots // 2:
        return False
    netif_wake_queue(dev)
    return True


def netif_device_detach(dev: NetDevice) -> None:
    """The device cannot be used for now: it is being put to sleep."""
    dev.present = False
    netif_stop_queue(dev)
    dev.state_changed()


def netif_device_attach(dev: NetDevice) -> None:
    """It can be used again."""
    dev.present = True
    dev.state_changed()
    netif_wake_queue(dev)


# ---- NAPI ----

#: Frames that a device may hand up before it is the next one's turn (NAPI_POLL_WEIGHT).
POLL_WEIGHT: int = lib.NATIVE_POLL_WEIGHT


def napi_schedule(dev: NetDevice) -> None:
    """Have ``poll`` called, right after the interrupt handlers, until napi_complete."""
    lib.native_port_schedule(dev.handle)


def napi_complete(dev: NetDevice) -> bool:
    """There is nothing more to do. False when it was scheduled meanwhile: it is polled again."""
    return bool(lib.native_port_complete(dev.handle))


def napi_enable(dev: NetDevice) -> None:
    """Polling may be scheduled; so it is when ndo_open is called. Nothing when the uplink has gone."""
    if not dev.registered:
        return
    lib.native_port_poll_enable(dev.handle, True)


def napi_disable(dev: NetDevice) -> None:
    """It is not polled, nor scheduled, any more: for a reset that sleeps. So it is when ndo_stop has returned."""
    lib.native_port_poll_enable(dev.handle, False)


@ffi.def_extern()  # type: ignore[untyped-decorator]  # cffi has no types for its decorators
def native_python_poll(handle: Any) -> int:
    """The C core's call of a driver's poll; core_build.py declares it."""
    dev: NetDevice = ffi.from_handle(handle)
    try:
        done = dev.poll()
    except KeyboardInterrupt:
        interrupt_program()
        return 0  # it is polled again
    if done is None:  # stopped, or the hardware went
        napi_disable(dev)
        return 0
    return done
