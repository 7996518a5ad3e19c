"""net_device, the control half (Linux net/core/dev.c): life cycle, state, filters, and the uplink on top.

What runs per packet is in netdevice.c and skbuff.c.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.memory import load_bytes, store_bytes
from vmkernel_core.net.settings import LinkSettings
from vmkernel_core.net.uplink import Uplink, UplinkStats
from vmklinux import power
from vmklinux.api import linux_api
from vmklinux.device import driver_name
from vmklinux.devres import Devres
from vmklinux.errors import DriverRefused, DriverStopped
from vmklinux.ethtool import Ethtool
from vmklinux.firmware import MissingFirmware
from vmklinux.frames import ETH_P_8021Q, Receiver, pack, refusal
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_add_tail, list_init
from vmklinux.rtnl import Rtnl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmkernel_core.net.uplink import Feature, Frame
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

ARPHRD_ETHER = 1  # include/uapi/linux/if_arp.h
# include/uapi/linux/if.h
IFF_UP, IFF_RUNNING, IFF_PROMISC = 0x1, 0x40, 0x100
#: Seconds that a driver which says nothing has for a frame (dev_watchdog's own default).
WATCHDOG = 5

#: enum netdev_stat_type to the member of net_device and what it points to (include/linux/netdevice.h).
COUNTERS = {
    "LSTATS": ("lstats", "pcpu_lstats"), "TSTATS": ("tstats", "pcpu_sw_netstats"), "DSTATS": ("dstats", "pcpu_dstats"),
}  # fmt: skip

#: Feature names of vmkernel_core to the bits of netdev_features_t that mean them.
FEATURES: dict[Feature, tuple[str, ...]] = {
    "scatter-gather": ("NETIF_F_SG_BIT",),
    "tx-checksum": ("NETIF_F_HW_CSUM_BIT", "NETIF_F_IP_CSUM_BIT", "NETIF_F_IPV6_CSUM_BIT"),
    "rx-checksum": ("NETIF_F_RXCSUM_BIT",),
    "tso": ("NETIF_F_TSO_BIT",),
    "tso6": ("NETIF_F_TSO6_BIT",),
    "gro": ("NETIF_F_GRO_BIT",),
    "vlan-insert": ("NETIF_F_HW_VLAN_CTAG_TX_BIT",),
    "vlan-strip": ("NETIF_F_HW_VLAN_CTAG_RX_BIT",),
    "vlan-filter": ("NETIF_F_HW_VLAN_CTAG_FILTER_BIT",),
}


class NetDevice:
    """A net_device that its driver registered: the driver's side of an Uplink (UplinkDriver)."""

    def __init__(self, linux: Linux, obj: Obj, owner: int) -> None:
        """Give the device a port."""
        self.linux = linux
        self.obj = obj
        self.owner = owner
        self.driver_name = driver_name(linux, obj.dev.parent)
        self.uplink: Uplink | None = None
        self.controls = Ethtool(self)
        self.groups: list[Obj] = []
        self.counters = 0
        self._watched = False
        self._vlans: set[int] = set()
        port = lib.linux_port_create(int(obj), owner)
        if port == ffi.NULL:
            raise UsageError("too many network devices in one process", remedy="start another process")
        # Whoever is inside a call with the port holds this object: it is freed when nobody is.
        self._port = ffi.gc(port, lib.linux_port_free)
        self._receiver = Receiver(partial(lib.linux_port_receive, self._port))
        self._result = ffi.new("struct vmk_result *")

    def destroy(self) -> None:
        """Give the port back; frames that wait in it are dropped, and who waits for it is told."""
        self._unwatch()
        lib.linux_port_detach(self._port)

    @property
    def rtnl(self) -> Rtnl:
        """The lock under which it is configured."""
        return self.linux.state(Rtnl)

    def _notify(self, event: str) -> int:
        return self.linux.state(NetDevices).notify(event, self.obj)

    def _ops(self, name: str) -> int:
        """A function of the driver's net_device_ops; 0 when it has none."""
        return int(getattr(self.obj.netdev_ops, name))

    def call(self, name: str, *arguments: int | Obj) -> int:
        """Call a function of net_device_ops, with the RTNL where Linux has it; its int."""
        return self.linux.call_int(self._ops(name), self.obj, *arguments, owner=self.owner)

    def _require(self, name: str, what: str, *arguments: int | Obj, remedy: str = "") -> None:
        error = -self.call(name, *arguments)
        if error:
            text = os.strerror(error) if error > 0 else f"result {-error}"
            raise DriverRefused(
                f"{self.driver_name} refused to {what}: {text}",
                error,
                where=self.name,
                remedy=remedy or self.linux.state(MissingFirmware).remedy(self.obj.dev.parent),
            )

    @property
    def name(self) -> str:
        """What a program knows it by, ``vmnic0``; Linux's name while it is no uplink."""
        return self.uplink.name if self.uplink else self.linux_name

    @property
    def linux_name(self) -> str:
        """Linux's name of it, ``eth0``."""
        return str(self.obj.name.text())

    def _state(self, bit: str) -> int:
        return 1 << self.linux.types.enumerator(bit)

    def set_state(self, bit: str, on: bool) -> None:
        """Set or clear a bit of net_device.state."""
        mask = self._state(bit)
        self.obj.state = self.obj.state | mask if on else self.obj.state & ~mask

    def has_state(self, bit: str) -> bool:
        """Whether a bit of net_device.state is set."""
        return bool(self.obj.state & self._state(bit))

    # ---- UplinkDriver ----

    def open(self) -> None:
        """dev_open."""
        with self.linux.baton(), self.rtnl:
            if self.obj.flags & IFF_UP:
                return
            self.set_state("__LINK_STATE_START", True)
            try:
                if self._ops("ndo_validate_addr"):
                    self._require("ndo_validate_addr", "use its MAC address")
                self._require("ndo_open", "open")
            except BaseException:
                self.set_state("__LINK_STATE_START", False)
                raise
            self.obj.flags |= IFF_UP
            self._set_rx_mode()
            self._watch()
            self._notify("NETDEV_UP")

    def close(self) -> None:
        """dev_close."""
        with self.linux.baton(), self.rtnl:
            if not self.obj.flags & IFF_UP:
                return
            self._notify("NETDEV_GOING_DOWN")
            self._unwatch()
            self.set_state("__LINK_STATE_START", False)
            try:
                self._require("ndo_stop", "close")
            finally:
                self.obj.flags &= ~(IFF_UP | IFF_RUNNING)
            self._notify("NETDEV_DOWN")

    def suspend(self) -> None:
        """Put the device to sleep; its driver detaches the net_device."""
        with self.linux.baton():
            power.suspend(self.linux, self.obj.dev.parent)

    def resume(self) -> None:
        """Wake it up."""
        with self.linux.baton():
            power.resume(self.linux, self.obj.dev.parent)

    def _watch(self) -> None:
        """dev_watchdog: look again after the time that the driver allows a frame."""
        period = (self.obj.watchdog_timeo or WATCHDOG * self.linux.hz) * 1_000_000_000 // self.linux.hz
        self._watched = True
        self.linux.idle.timers.set(("watchdog", int(self.obj)), lib.vmk_now() + period, self._look)

    def _unwatch(self) -> None:
        self._watched = False
        self.linux.idle.timers.cancel(("watchdog", int(self.obj)))

    def _look(self) -> None:
        with self.linux.baton():
            if not self._watched:  # closed, or gone, while this world waited for the CPU
                return
            now, most = lib.linux_jiffies(), self.obj.watchdog_timeo or WATCHDOG * self.linux.hz
            try:
                for number in range(self.obj.real_num_tx_queues):
                    queue = self.obj._tx[number]
                    stopped = queue.state & self._state("__QUEUE_STATE_DRV_XOFF")
                    if not stopped or now - queue.trans_start <= most:
                        continue
                    present = self.has_state("__LINK_STATE_PRESENT")
                    if present and self.link_up() and self._ops("ndo_tx_timeout"):
                        log.warning("%s: transmit queue %d timed out", self.name, number)
                        queue.trans_start = now
                        self.linux.call(self._ops("ndo_tx_timeout"), self.obj, number, owner=self.owner)
            except DriverStopped:
                return  # on_stopped has been told
            self._watch()

    def transmit(self, frames: Sequence[bytes | Frame]) -> int:
        """Send a batch through ndo_start_xmit."""
        # Drivers set their cards up for tags when a VLAN id is registered, and only then do so again after a reset.
        data, table = pack(frames, device_tags=bool(self._vlans))
        sent: int = lib.linux_port_transmit(self._port, data, table, len(frames), self._result)
        if sent >= 0:
            return sent
        self.linux.check(self._result)
        raise refusal(sent, self.name, self.driver_name, self.mtu())

    def receive(self, max_frames: int) -> list[bytes]:
        """Fetch received frames."""
        return self._receiver.receive(max_frames)

    def receive_frames(self, max_frames: int) -> list[Frame]:
        """Fetch received frames with what is known of them."""
        return self._receiver.receive_frames(max_frames)

    def wait(self, rx: bool, tx: bool, timeout: float) -> bool:
        """Wait for frames, or for room."""
        wanted = (lib.LINUX_PORT_RX if rx else 0) | (lib.LINUX_PORT_TX if tx else 0)
        have = lib.linux_port_wait(self._port, wanted | lib.LINUX_PORT_END, int(timeout * 1e9))
        return bool(have & wanted)

    def wake(self) -> None:
        """Let everybody who waits look again, now and from now on: the device is dead."""
        lib.linux_port_end(self._port)

    def mac(self) -> bytes:
        """The address in use."""
        return load_bytes(self.obj.dev_addr, 6)

    def set_mac(self, mac: bytes) -> None:
        """dev_set_mac_address."""
        sockaddr = self.linux.allocate(16)
        try:
            store_bytes(sockaddr, struct.pack("<H6s8x", ARPHRD_ETHER, mac))
            with self.rtnl:
                if not self._ops("ndo_set_mac_address"):
                    raise UsageError(f"{self.driver_name} cannot change its MAC address", where=self.name)
                remedy = "close the uplink first" if self.obj.flags & IFF_UP else ""
                self._require("ndo_set_mac_address", "take that MAC address", sockaddr, remedy=remedy)
                self._notify("NETDEV_CHANGEADDR")
        finally:
            self.linux.free(sockaddr)

    def mtu(self) -> int:
        """net_device.mtu."""
        return int(self.obj.mtu)

    def set_mtu(self, mtu: int) -> None:
        """dev_set_mtu."""
        low, high = self.obj.min_mtu, self.obj.max_mtu
        if not low <= mtu <= (high or mtu):
            raise UsageError(
                f"an MTU of {mtu} is out of range", where=self.name, remedy=f"use {low} to {high}"
            )
        with self.rtnl:
            if self._ops("ndo_change_mtu"):
                self._require("ndo_change_mtu", f"set an MTU of {mtu}", mtu)
            self.obj.mtu = mtu
            self._notify("NETDEV_CHANGEMTU")

    def link_up(self) -> bool:
        """Open, and the carrier on."""
        return self.has_state("__LINK_STATE_START") and not self.has_state("__LINK_STATE_NOCARRIER")

    def speed(self) -> int:
        """Mb/s by ethtool; 0 when unknown or down."""
        try:
            return self.controls.get(LinkSettings).speed
        except (NotSupported, DriverRefused):
            return 0

    def features(self) -> frozenset[Feature]:
        """Those that are on."""
        return frozenset(name for name in FEATURES if self.obj.features & self.feature_mask(name))

    def feature_mask(self, name: Feature) -> int:
        """Its bits of netdev_features_t."""
        return sum(1 << self.linux.types.enumerator(bit) for bit in FEATURES[name])

    def set_feature(self, feature: Feature, on: bool) -> None:
        """netdev_update_features with one feature more or less wanted."""
        mask = self.feature_mask(feature) & self.obj.hw_features
        if not mask:
            raise UsageError(f"{self.driver_name} cannot switch {feature}", where=self.name)
        with self.rtnl:
            wanted = self.obj.wanted_features
            self.obj.wanted_features = wanted | mask if on else wanted & ~mask
            self.update_features()
        if (feature in self.features()) != on:
            raise UsageError(f"{self.driver_name} keeps {feature} as it is", where=self.name)

    def update_features(self) -> None:
        """__netdev_update_features: what is wanted, as far as the driver agrees."""
        obj = self.obj
        features = obj.wanted_features & obj.hw_features | obj.features & ~obj.hw_features
        if self._ops("ndo_fix_features"):
            features = self.linux.call(self._ops("ndo_fix_features"), obj, features, owner=self.owner)
        if features != obj.features:
            if self._ops("ndo_set_features") and self.call("ndo_set_features", features) < 0:
                return
            obj.features = features
            self._notify("NETDEV_FEAT_CHANGE")

    def set_promiscuous(self, on: bool) -> None:
        """IFF_PROMISC."""
        with self.rtnl:
            self.obj.flags = self.obj.flags | IFF_PROMISC if on else self.obj.flags & ~IFF_PROMISC
            self._set_rx_mode()

    def set_multicast(self, groups: Sequence[bytes]) -> None:
        """Replace net_device.mc."""
        for group in groups:
            if len(group) != 6 or not group[0] & 1:
                raise UsageError(f"{group.hex(':')} is not a multicast MAC address")
        with self.rtnl:
            self._replace_groups(groups)
            self._set_rx_mode()

    def _replace_groups(self, groups: Sequence[bytes]) -> None:
        self._drop_groups()
        for group in groups:
            entry = self.linux.new("netdev_hw_addr", self.owner)
            store_bytes(addressof(entry, "addr"), group)
            entry.refcount = 1
            list_add_tail(self.linux, addressof(entry, "list"), addressof(self.obj, "mc.list"))
            self.groups.append(entry)
        self.obj.mc.count = len(groups)

    def set_vlans(self, ids: Sequence[int]) -> None:
        """vlan_vid_add and vlan_vid_del, until the card's filter has just these."""
        if not self.feature_mask("vlan-filter") & self.obj.features or not self._ops("ndo_vlan_rx_add_vid"):
            raise UsageError(f"{self.driver_name} cannot filter VLANs", where=self.name)
        protocol = socket.htons(ETH_P_8021Q)
        with self.rtnl:
            for vid in sorted(self._vlans - set(ids)):
                self._require("ndo_vlan_rx_kill_vid", f"drop VLAN {vid}", protocol, vid)
                self._vlans.discard(vid)
            for vid in sorted(set(ids) - self._vlans):
                self._require("ndo_vlan_rx_add_vid", f"take VLAN {vid}", protocol, vid)
                self._vlans.add(vid)

    def _drop_groups(self) -> None:
        list_init(self.linux, addressof(self.obj, "mc.list"))
        self.obj.mc.count = 0
        while self.groups:
            self.linux.free(self.groups.pop())

    def _set_rx_mode(self) -> None:
        if self.obj.flags & IFF_UP and self._ops("ndo_set_rx_mode"):
            self.linux.call(self._ops("ndo_set_rx_mode"), self.obj, owner=self.owner)

    def stats(self) -> UplinkStats:
        """Counters of the port and of the device (dev_get_stats)."""
        port = ffi.new("struct linux_port_stats *")
        lib.linux_port_stats(self._port, port)
        # First: asking for its own counters makes many a driver refresh the others.
        driver = self.controls.statistics()
        device = self._device_stats()
        return UplinkStats(
            port.tx_frames, port.tx_bytes, port.rx_frames, port.rx_bytes, port.tx_busy, port.rx_dropped,
            port.rx_merged,
            device["tx_errors"], device["rx_errors"], device["multicast"],
            driver,
        )  # fmt: skip

    def _device_stats(self) -> dict[str, int]:
        storage = self.linux.new("rtnl_link_stats64")
        try:
            self.linux.call("dev_get_stats", self.obj, storage, owner=self.owner)
            return {name: getattr(storage, name) for name in ("tx_errors", "rx_errors", "multicast")}
        finally:
            self.linux.free(storage)

    def release(self) -> None:
        """What the vmkernel itself allocated for the device goes back."""
        self._drop_groups()
        if self.counters:
            self.linux.call(self.linux.entry("free_percpu"), self.counters)
            self.counters = 0


class NetDevices:
    """The registered devices by address; ``on_register`` gives each its uplink."""

    def __init__(self, linux: Linux) -> None:
        """None yet."""
        self.registered: dict[int, NetDevice] = {}
        self.memory: dict[int, list[int]] = {}
        self.on_register: Callable[[NetDevice], Uplink] | None = None
        self.on_event: Callable[[int, Obj], int] | None = None
        self._types = linux.types

    def abandon(self, low: int, high: int) -> None:
        """Forget devices whose functions lie in [low, high): their driver is dead. Their uplinks are told."""
        for address, device in list(self.registered.items()):
            if low <= int(device.obj.netdev_ops) < high:
                del self.registered[address]
                if device.uplink:
                    device.uplink.removed()
                device.release()
                device.destroy()

    def notify(self, event: str, obj: Obj) -> int:
        """Tell who listens (netdev_notifier.py) of ``NETDEV_...``; what they say."""
        return self.on_event(self._types.enumerator(event), obj) if self.on_event else 0

    def of(self, obj: Obj) -> NetDevice | None:
        """The device of a net_device, if it is registered."""
        return self.registered.get(int(obj))

    def free_name(self, pattern: str) -> str:
        """The first name that is free: ``pattern``, or, where that has a ``%d``, it with a number."""
        taken = {device.linux_name for device in self.registered.values()}
        if "%d" not in pattern:
            return pattern
        return next(name for n in count() if (name := pattern.replace("%d", str(n))) not in taken)


def _allocate_counters(linux: Linux, dev: Obj, owner: int) -> int:
    """The per-CPU counters that a driver of newer kernels asks for by ``pcpu_stat_type``; where they are, or 0."""
    if "pcpu_stat_type" not in linux.types.struct("net_device").fields or not dev.pcpu_stat_type:
        return 0
    kinds = {linux.types.enumerator(f"NETDEV_PCPU_STAT_{kind}"): kind for kind in COUNTERS}
    member, struct_name = COUNTERS[kinds[dev.pcpu_stat_type]]
    size = linux.types.sizeof(struct_name)
    place = linux.call(linux.entry("__alloc_percpu"), size, 8, owner=owner)
    setattr(dev, member, place)
    return place


@linux_api("register_netdevice", note="Of what Linux adds in software there is GRO, off at first; no GSO.")
def register_netdev(linux: Linux, dev: Obj) -> int:
    """Make a net_device known: it becomes an uplink."""
    devices = linux.state(NetDevices)
    with linux.state(Rtnl):
        store_bytes(addressof(dev, "name"), devices.free_name(dev.name.text()).encode() + b"\0")
        device = NetDevice(linux, dev, lib.vmk_owner())
        device.counters = _allocate_counters(linux, dev, device.owner)
        if dev.netdev_ops.ndo_init and (error := device.call("ndo_init")):
            device.release()
            device.destroy()
            return error
        devices.registered[int(dev)] = device
        device.set_state("__LINK_STATE_PRESENT", True)
        dev.reg_state = linux.types.enumerator("NETREG_REGISTERED")
        dev.wanted_features = dev.features & dev.hw_features
        dev.hw_features |= device.feature_mask("gro")  # NETIF_F_SOFT_FEATURES; off until somebody asks for it
        device.update_features()
        devices.notify("NETDEV_REGISTER", dev)
    if devices.on_register:
        device.uplink = devices.on_register(device)
    return 0


@linux_api()
def devm_register_netdev(linux: Linux, dev: Obj, ndev: Obj) -> int:
    """Make a net_device known until the driver lets go of the hardware."""
    error = register_netdev(linux, ndev)
    if not error:
        # With a key, so that it is not called for a dead driver: NetDevices.abandon sees to that.
        linux.state(Devres).action(dev, lambda: unregister_netdev(linux, ndev), (int(ndev), 1))
    return error


@linux_api()
def dev_alloc_name(linux: Linux, dev: Obj, name: int) -> int:
    """Give a net_device a free name after a pattern like ``eth%d``; the number in it."""
    pattern = linux.string(name)
    chosen = linux.state(NetDevices).free_name(pattern)
    store_bytes(addressof(dev, "name"), chosen.encode() + b"\0")
    before, _, after = pattern.partition("%d")
    return int(chosen.removeprefix(before).removesuffix(after) or 0)


@linux_api("unregister_netdevice_queue")
def unregister_netdev(linux: Linux, dev: Obj) -> None:
    """Close a net_device and take its uplink away."""
    devices = linux.state(NetDevices)
    with linux.state(Rtnl):
        device = devices.registered.pop(int(dev), None)
        if device is None:
            return
        device.close()
        if device.uplink:
            device.uplink.removed()
        devices.notify("NETDEV_UNREGISTER", dev)
        dev.reg_state = linux.types.enumerator("NETREG_UNREGISTERED")
        if dev.netdev_ops.ndo_uninit:
            linux.call(dev.netdev_ops.ndo_uninit, dev)
    device.release()
    device.destroy()


@linux_api()
def dev_addr_mod(linux: Linux, dev: Obj, offset: int, addr: int, len: int) -> None:
    """Write a part of the device's address."""
    store_bytes(dev.dev_addr + offset, load_bytes(addr, len))


def _errno(act: Callable[[], None]) -> int:
    """What a driver gets for an action that this side would see fail with an error."""
    try:
        act()
    except DriverRefused as error:
        return -error.errno
    except UsageError:
        return -errno.EINVAL
    return 0


@linux_api()
def dev_open(linux: Linux, dev: Obj, extack: Obj) -> int:
    """Start a device on behalf of a driver."""
    device = linux.state(NetDevices).of(dev)
    return _errno(device.open) if device else -errno.ENODEV


@linux_api(note="The uplink stays open in the program's eyes; it has no link.")
def dev_close(linux: Linux, dev: Obj) -> None:
    """Stop a device on behalf of its driver."""
    if device := linux.state(NetDevices).of(dev):
        _errno(device.close)


@linux_api()
def dev_set_mtu(linux: Linux, dev: Obj, new_mtu: int) -> int:
    """Change the MTU on behalf of a driver."""
    device = linux.state(NetDevices).of(dev)
    return _errno(lambda: device.set_mtu(new_mtu)) if device else -errno.ENODEV


@linux_api("netdev_change_features")
def netdev_update_features(linux: Linux, dev: Obj) -> None:
    """Ask the driver again which features can be on."""
    if device := linux.state(NetDevices).of(dev):
        device.update_features()
