"""SCSI devices of the emulated mid-layer: what is known of each, and finding them (Linux drivers/scsi/scsi.c).

Hosts are in hosts.py, the scan in scsi_scan.py, commands in scsi_lib.py and scsi_lib.c, error handling in
scsi_error.py, what hangs in the device tree in scsi_sysfs.py.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import load_bytes, store, store_bytes
from vmkernel_core.storage.naming import designators, device_name
from vmklinux.api import linux_api
from vmklinux.device import get_device, put_device
from vmklinux.kobject import Obj, addressof, container_of
from vmklinux.scsi_common import INQUIRY_TIMEOUT, NAMING_PAGES, SUPPORTED_PAGES
from vmklinux.stand_in import StandIns

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.btf import Btf
    from vmklinux.hosts import Host
    from vmklinux.linux import Linux
    from vmklinux.scsi_lib import Queue

#: Kinds of designators in page 0x83 (SPC-4, 7.8.5): a relative target port, a target port group, a SCSI name string.
_PORT, _PORT_GROUP, _NAME_STRING = 4, 5, 8


class Scsi:
    """The mid-layer of one kernel: its types, its hosts by address, and who is told of hosts and devices.

    ``on_host`` and ``on_device`` are told of what appears, ``on_host_gone`` and ``on_device_gone`` of what goes,
    ``on_device_state`` of devices whose state is another one now, ``on_device_changed`` of those to be asked again.
    """

    def __init__(self, linux: Linux) -> None:
        """No host yet."""
        self.linux = linux
        self.hosts: dict[int, Host] = {}
        self.numbers = 0
        #: Commands that drivers had, by their code, when their hardware went: they were ended without them.
        self.lost: dict[int, int] = {}
        #: What was allocated for a scsi_device, until the last reference to it goes.
        self.kept: dict[int, list[int]] = {}
        self.on_host: Callable[[Host], None] = lambda _host: None
        self.on_device: Callable[[Device], None] = lambda _device: None
        self.on_device_gone: Callable[[Device], None] = lambda _device: None
        self.on_device_state: Callable[[Device], None] = lambda _device: None
        self.on_device_changed: Callable[[Device], None] = lambda _device: None
        self.on_host_gone: Callable[[Host], None] = lambda _host: None

    @property
    def types(self) -> Btf:
        """The types of scsi_mod, on top of the kernel's."""
        return self.linux.state(StandIns).types("scsi_mod")

    def obj(self, struct: str, address: int | Obj) -> Obj:
        """A struct of the mid-layer's at an address."""
        return Obj(self.types, struct, address)

    def new(self, struct: str, extra: int, owner: int) -> Obj:
        """A cleared struct with ``extra`` bytes behind it."""
        return self.obj(struct, self.linux.allocate(self.types.sizeof(struct) + extra, owner))

    def host(self, shost: int | Obj) -> Host | None:
        """The host of a Scsi_Host; None once it was released."""
        return self.hosts.get(int(shost))

    def device(self, sdev: int | Obj) -> Device | None:
        """What is known of a scsi_device."""
        for host in self.hosts.values():
            if (found := host.devices.get(int(sdev))) is not None:
                return found
        return None

    def set_device_state(self, sdev: Obj, state: int) -> None:
        """Bring a device into a state of ``enum scsi_device_state``, and tell of it."""
        sdev.sdev_state = state
        if (device := self.device(sdev)) is not None:
            self.on_device_state(device)

    def lost_by(self, low: int, high: int) -> int:
        """How many commands drivers with code in [low, high) had when their hardware went."""
        return sum(count for owner, count in self.lost.items() if low <= owner < high)

    def enum(self, name: str) -> int:
        """The value of an enumerator of the mid-layer's."""
        return self.types.enumerator(name)

    def abandon(self, low: int, high: int) -> None:
        """The drivers in [low, high) are dead: every command of their hosts ends, and nobody calls their code."""
        from vmklinux.scsi_dh import forget

        for host in self.of_driver(low, high):
            host.end()
            host.errors.cut()
            for device in list(host.devices.values()):
                self.on_device_gone(device)
                forget(self.linux, device)
            self.on_host_gone(host)
            host.release()
        self.lost = {owner: count for owner, count in self.lost.items() if not low <= owner < high}

    def of_device(self, dev: Obj) -> list[Host]:
        """The hosts that reach memory by a device: those of an adapter."""
        return [host for host in self.hosts.values() if host.obj.dma_dev == dev]

    def of_driver(self, low: int, high: int) -> list[Host]:
        """The hosts whose driver lies in [low, high)."""
        return [
            host
            for host in self.hosts.values()
            if low <= int(host.obj.hostt) < high or low <= host.owner < high
        ]


@dataclass(eq=False)
class Device:
    """A logical unit: its scsi_device and the queue of its commands; ``visible`` once the scan has added it."""

    host: Host
    obj: Obj
    queue: Queue
    visible: bool = False
    vpd: dict[int, bytes] = field(default_factory=dict)

    @property
    def inquiry(self) -> bytes:
        """Its standard INQUIRY data."""
        return load_bytes(self.obj.inquiry, max(self.obj.inquiry_len, 36))

    @property
    def address(self) -> tuple[int, int, int]:
        """Channel, target and LUN."""
        return int(self.obj.channel), int(self.obj.id), int(self.obj.lun)

    def text(self, start: int, length: int) -> str:
        """A text field of the INQUIRY data."""
        return self.inquiry[start : start + length].decode("ascii", "replace").strip(" \0")


def find_device(scsi: Scsi, shost: Obj, channel: int, target: int, lun: int) -> Device | None:
    """The device at an address of a host; None where there is none, or one that goes."""
    host = scsi.host(shost)
    gone = scsi.enum("SDEV_DEL")
    for device in host.devices.values() if host else ():
        if device.address == (channel, target, lun) and device.obj.sdev_state != gone:
            return device
    return None


@linux_api()
def scsi_device_get(linux: Linux, sdev: Obj) -> int:
    """Take a reference to a device that is there; -ENXIO for one that goes."""
    scsi = linux.state(Scsi)
    if sdev.sdev_state in (scsi.enum("SDEV_DEL"), scsi.enum("SDEV_CANCEL")):
        return -errno.ENXIO
    get_device(linux, sdev.sdev_gendev)
    return 0


@linux_api()
def scsi_device_put(linux: Linux, sdev: Obj) -> None:
    """Drop it."""
    put_device(linux, sdev.sdev_gendev)


def _with_reference(linux: Linux, device: Device | None) -> int:
    return int(device.obj) if device and not scsi_device_get(linux, device.obj) else 0


@linux_api()
def __scsi_device_lookup(linux: Linux, shost: Obj, channel: int, id: int, lun: int) -> int:
    """The device at an address of a host, without a reference; 0 for none."""
    device = find_device(linux.state(Scsi), shost, channel, id, lun)
    return int(device.obj) if device else 0


@linux_api()
def scsi_device_lookup(linux: Linux, shost: Obj, channel: int, id: int, lun: int) -> int:
    """The device at an address of a host, with a reference; 0 for none."""
    return _with_reference(linux, find_device(linux.state(Scsi), shost, channel, id, lun))


def _of_target(scsi: Scsi, starget: Obj, lun: int) -> Device | None:
    shost = host_above(scsi, starget.dev)
    return find_device(scsi, shost, starget.channel, starget.id, lun) if shost else None


@linux_api()
def __scsi_device_lookup_by_target(linux: Linux, starget: Obj, lun: int) -> int:
    """The device with that LUN of a target, without a reference; 0 for none."""
    device = _of_target(linux.state(Scsi), starget, lun)
    return int(device.obj) if device else 0


@linux_api()
def scsi_device_lookup_by_target(linux: Linux, starget: Obj, lun: int) -> int:
    """The device with that LUN of a target, with a reference; 0 for none."""
    return _with_reference(linux, _of_target(linux.state(Scsi), starget, lun))


def host_above(scsi: Scsi, dev: Obj) -> Obj | None:
    """The Scsi_Host that a device hangs below (dev_to_shost)."""
    from vmklinux.scsi_sysfs import Kinds

    kind = scsi.linux.state(Kinds).host
    while dev:
        if dev.type == kind:
            return container_of(dev, scsi.types, "Scsi_Host", "shost_gendev")
        dev = dev.parent
    return None


@linux_api()
def __scsi_iterate_devices(linux: Linux, shost: Obj, prev: Obj) -> int:
    """The device of a host after another one, whose reference it takes over; 0 at the end."""
    scsi = linux.state(Scsi)
    host = scsi.host(shost)
    devices = list(host.devices.values()) if host else []
    after = next(
        (n + 1 for n, device in enumerate(devices) if device.obj == prev), 0 if not prev else len(devices)
    )
    found = next((d for d in devices[after:] if not scsi_device_get(linux, d.obj)), None)
    if prev:
        scsi_device_put(linux, prev)
    return int(found.obj) if found else 0


@linux_api("__starget_for_each_device")
def starget_for_each_device(linux: Linux, starget: Obj, data: int, fn: int) -> None:
    """Call a function for each device of a target."""
    scsi = linux.state(Scsi)
    for device in [d for host in list(scsi.hosts.values()) for d in list(host.devices.values())]:
        if device.obj.sdev_target == starget and not scsi_device_get(linux, device.obj):
            linux.call(fn, device.obj, data)
            scsi_device_put(linux, device.obj)


@linux_api()
def scsi_change_queue_depth(linux: Linux, sdev: Obj, depth: int) -> int:
    """Set how many commands a device takes at once; the depth that it has then."""
    if depth > 0:
        sdev.queue_depth = min(depth, sdev.host.can_queue)
    if sdev.request_queue:
        sdev.request_queue.queue_depth = depth
    return int(sdev.queue_depth)


@linux_api()
def scsi_track_queue_full(linux: Linux, sdev: Obj, depth: int) -> int:
    """Note that a device said that it is full; the new depth after it said so often at the same one, else 0 or -1."""
    now = lib.linux_jiffies() >> 4
    if sdev.last_queue_full_time >> 4 == now:
        return 0
    sdev.last_queue_full_time = lib.linux_jiffies()
    if sdev.last_queue_full_depth != depth:
        sdev.last_queue_full_count, sdev.last_queue_full_depth = 1, depth
    else:
        sdev.last_queue_full_count += 1
    return scsi_change_queue_depth(linux, sdev, depth) if sdev.last_queue_full_count > 10 else 0


def vpd_page(device: Device, page: int, length: int = 255) -> bytes:
    """A page of vital product data (SPC-4, 7.8), with its header; b"" when the device has none."""
    answer, data = device.queue.read(
        bytes([0x12, 1, page, length >> 8, length & 0xFF, 0]), length, INQUIRY_TIMEOUT, retries=3
    )
    if answer.result or len(data) < 4 or data[1] != page:
        return b""
    return data[: 4 + int.from_bytes(data[2:4], "big")]


@linux_api()
def scsi_get_vpd_page(linux: Linux, sdev: Obj, page: int, buf: int, buf_len: int) -> int:
    """Read a page of vital product data into the caller's buffer; -EINVAL when the device has none."""
    device = linux.state(Scsi).device(sdev)
    if device is None or sdev.skip_vpd_pages:
        return -errno.EINVAL
    data = vpd_page(device, page, min(buf_len, 255))
    if not data:
        return -errno.EINVAL
    store_bytes(buf, data[:buf_len])
    return 0


@linux_api()
def scsi_vpd_lun_id(linux: Linux, sdev: Obj, id: int, id_len: int) -> int:
    """Write the name that a device gives itself (page 0x83) into the caller's buffer; its length, or an errno."""
    device = linux.state(Scsi).device(sdev)
    if device is None or 0x83 not in device.vpd:
        return -errno.ENXIO
    page = device.vpd[0x83]
    strings = [d.value for d in designators(page) if d.kind == _NAME_STRING and d.association == 0]
    name = strings[0].rstrip(b"\0") if strings else device_name(page, b"", device.inquiry).encode()
    if not name or id_len < 21:
        return -errno.EINVAL
    store_bytes(id, name[: id_len - 1].ljust(id_len, b"\0"))
    return len(name)


@linux_api()
def scsi_vpd_tpg_id(linux: Linux, sdev: Obj, rel_id: int) -> int:
    """The target port group of the port that leads to a device, and the port's number in rel_id; or an errno."""
    device = linux.state(Scsi).device(sdev)
    if device is None or 0x83 not in device.vpd:
        return -errno.ENXIO
    told = {each.kind: int.from_bytes(each.value[2:4], "big") for each in designators(device.vpd[0x83])}
    if rel_id and _PORT in told and _PORT_GROUP in told:
        store(rel_id, 4, told[_PORT])
    return told.get(_PORT_GROUP, -errno.EAGAIN)


def attach_vpd(device: Device) -> None:
    """scsi_attach_vpd: keep the pages that name the device and its limits, where drivers look for them."""
    if device.obj.skip_vpd_pages:
        return
    device.vpd[SUPPORTED_PAGES] = vpd_page(device, SUPPORTED_PAGES)
    supported = device.vpd[SUPPORTED_PAGES][4:]
    for page in NAMING_PAGES:
        if page in supported and (data := vpd_page(device, page)):
            device.vpd[page] = data
            kept = device.host.scsi.new("scsi_vpd", len(data), 0)
            kept.len = len(data)
            store_bytes(addressof(kept, "data"), data)
            device.host.scsi.kept[int(device.obj)].append(int(kept))
            setattr(device.obj, f"vpd_pg{page:x}", kept)
