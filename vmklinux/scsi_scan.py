"""Finding the devices of a SCSI host (Linux drivers/scsi/scsi_scan.c). A scan is never asynchronous."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, TimedOut
from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.api import linux_api
from vmklinux.btf import NoSuchField
from vmklinux.device import device_del, device_initialize, get_device, put_device, set_name
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_init
from vmklinux.scsi import (
    Device,
    Scsi,
    attach_vpd,
    find_device,
    host_above,
    scsi_change_queue_depth,
    vpd_page,
)
from vmklinux.scsi_common import (
    IDENTIFICATION,
    INQUIRY_TIMEOUT,
    NOBODY,
    REPORT_MOST,
    SCSI_2,
    SCSI_3,
    SEQUENTIAL_MOST,
    TYPE_RBC,
    TYPE_ROM,
    is_absent,
    report_luns_cdb,
    reported_luns,
    sanitized,
    sanitized_inquiry,
    scsi_level,
)
from vmklinux.scsi_lib import Queue
from vmklinux.scsi_policy import EH_TIMEOUT, SCAN_LIMIT
from vmklinux.scsi_sysfs import Kinds, add_device, initialize_device, remove_device, transport

if TYPE_CHECKING:
    from vmklinux.hosts import Host
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

SCAN_WILD_CARD = (1 << 32) - 1  # include/scsi/scsi_device.h; ~0 for each part of an address
LUN_WILD_CARD = (1 << 64) - 1
SCSI_DEFAULT_DEVICE_BLOCKED = 3
_NO_DEVICE = -1


# ---- targets ----


def find_target(host: Host, channel: int, number: int) -> Obj | None:
    """The target with that address, None when the host has none."""
    return next((t for t in host.targets if t.channel == channel and t.id == number), None)


def alloc_target(linux: Linux, host: Host, parent: Obj, channel: int, number: int) -> Obj | None:
    """scsi_alloc_target: the target with that address, made if need be; with a reference (reap_ref) for the caller.

    None when the driver says that there is none.
    """
    scsi, shost = host.scsi, host.obj
    if (found := find_target(host, channel, number)) is not None:
        found.reap_ref.refcount.refs.counter += 1
        return found
    target = scsi.new("scsi_target", shost.transportt.target_size, host.owner)
    device = target.dev
    device_initialize(linux, device)
    target.reap_ref.refcount.refs.counter = 1
    get_device(linux, parent)
    device.parent = parent
    set_name(linux, device, f"target{shost.host_no}:{channel}:{number}")
    device.bus, device.type = linux.state(Kinds).bus, linux.state(Kinds).target
    target.id, target.channel, target.can_queue = number, channel, 0
    for path in ("siblings", "devices"):
        list_init(linux, addressof(target, path))
    target.state = scsi.enum("STARGET_CREATED")
    target.scsi_level, target.max_target_blocked = SCSI_2, SCSI_DEFAULT_DEVICE_BLOCKED
    host.targets.append(target)
    transport(linux, "setup", device)
    if shost.hostt.target_alloc and (
        error := linux.call_int(shost.hostt.target_alloc, target, owner=host.owner)
    ):
        if error != -errno.ENXIO:
            log.error(
                "target%d:%d:%d: the driver's target_alloc failed: %d", shost.host_no, channel, number, error
            )
        _destroy_target(linux, host, target)
        return None
    return target


def _destroy_target(linux: Linux, host: Host, target: Obj) -> None:
    target.state = host.scsi.enum("STARGET_DEL")
    transport(linux, "destroy", target.dev)
    if host.obj.hostt.target_destroy:
        linux.call(host.obj.hostt.target_destroy, target, owner=host.owner)
    host.targets.remove(target)
    put_device(linux, target.dev)


def reap_target(linux: Linux, target: Obj) -> None:
    """scsi_target_reap: one user less; the last one takes the target away."""
    scsi = linux.state(Scsi)
    users = target.reap_ref.refcount.refs
    users.counter -= 1
    if users.counter:
        return
    shost = host_above(scsi, target.dev)
    host = scsi.host(shost) if shost else None
    if target.state != scsi.enum("STARGET_CREATED"):
        transport(linux, "remove", target.dev)
        device_del(linux, target.dev)
    if host is not None:
        _destroy_target(linux, host, target)


# ---- devices ----


def _alloc_device(linux: Linux, host: Host, target: Obj, lun: int, hostdata: int) -> Device | None:
    """scsi_alloc_sdev: a scsi_device that has a queue, and that the driver accepted; None when it did not.

    Also None when the driver was stopped meanwhile: its host has gone, while the scan still looks on.
    """
    scsi, shost = host.scsi, host.obj
    if host.handle == ffi.NULL:
        return None
    sdev = scsi.new("scsi_device", shost.transportt.device_size, host.owner)
    kept = scsi.kept[int(sdev)] = [linux.new_string("", 0)]
    sdev.vendor = sdev.model = sdev.rev = kept[0]
    sdev.host, sdev.sdev_target, sdev.hostdata = shost, target, hostdata
    sdev.id, sdev.channel, sdev.lun = target.id, target.channel, lun
    sdev.sdev_state = scsi.enum("SDEV_CREATED")
    sdev.queue_ramp_up_period = 120 * linux.hz
    for path in (
        "siblings", "same_target_siblings", "starved_entry", "event_list", "state_mutex.wait_list",
        "inquiry_mutex.wait_list",
    ):  # fmt: skip
        list_init(linux, addressof(sdev, path))
    sdev.max_device_blocked, sdev.type, sdev.borken, sdev.sg_reserved_size = (
        SCSI_DEFAULT_DEVICE_BLOCKED,
        0xFF,
        1,
        -1,
    )
    sdev.sector_size = 512
    request_queue = linux.new("request_queue")
    kept.append(int(request_queue))
    request_queue.queuedata, request_queue.tag_set = sdev, shost.tag_set
    _set_limits(host, request_queue.limits)
    sdev.request_queue = request_queue
    scsi_change_queue_depth(linux, sdev, shost.cmd_per_lun or 1)
    initialize_device(linux, sdev)
    device = Device(host, sdev, Queue(host, sdev))
    host.devices[int(sdev)] = device
    if shost.hostt.slave_alloc and (error := linux.call_int(shost.hostt.slave_alloc, sdev, owner=host.owner)):
        if error != -errno.ENXIO:
            log.error(
                "%s: the driver's slave_alloc failed: %d", linux.string(sdev.sdev_gendev.kobj.name), error
            )
        remove_device(linux, device)
        return None
    return device


def _set_limits(host: Host, limits: Obj) -> None:
    """scsi_init_limits: what the host allows."""
    shost = host.obj
    limits.max_segments = max(shost.sg_tablesize, 1)
    limits.max_hw_sectors = limits.max_sectors = shost.max_sectors
    limits.seg_boundary_mask, limits.virt_boundary_mask = shost.dma_boundary, shost.virt_boundary_mask
    limits.max_segment_size, limits.dma_alignment = shost.max_segment_size, 3
    limits.logical_block_size = limits.physical_block_size = limits.io_min = 512


@linux_api("__scsi_init_queue", named=False)
def _init_queue(linux: Linux, shost: Obj, q: Obj) -> None:
    """Give a queue the limits of a host."""
    if host := linux.state(Scsi).host(shost):
        _set_limits(host, q.limits)


@linux_api()
def scsi_init_limits(linux: Linux, shost: Obj, lim: Obj) -> None:
    """Fill in the limits of a host."""
    if host := linux.state(Scsi).host(shost):
        _set_limits(host, lim)


@linux_api()
def scsi_sanitize_inquiry_string(linux: Linux, s: int, len: int) -> None:
    """Replace what is no text in a field of INQUIRY data by blanks."""
    store_bytes(s, sanitized(load_bytes(s, len)))


def _probe(device: Device) -> bytes | None:
    """scsi_probe_lun: INQUIRY, first 36 bytes, then as much as there is; None when nobody answers."""
    sdev = device.obj
    length, data = sdev.inquiry_len or 36, b""
    while True:
        cdb = bytes([0x12, 0, 0, 0, length, 0])
        try:
            answer, got = device.queue.read(cdb, length, INQUIRY_TIMEOUT)
        except DeviceGone:
            return None
        if answer.result:
            if not data:
                return None
            break
        data = got.ljust(36, b"\0")
        told = data[4] + 5
        if told <= length or told > 255:
            break
        length = told
    data = sanitized_inquiry(data)
    sdev.inquiry_len = max(min(len(data), data[4] + 5), 36)
    sdev.scsi_level = scsi_level(data)
    sdev.sdev_target.scsi_level = sdev.scsi_level
    sdev.lun_in_cdb = int(0 < sdev.scsi_level <= SCSI_2 and not sdev.host.no_scsi2_lun_in_cdb)
    return data


def _configure(linux: Linux, device: Device, data: bytes) -> bool:
    """scsi_add_lun: fill in what INQUIRY told, let the driver configure the device, and show it."""
    scsi, sdev = device.host.scsi, device.obj
    sdev.inquiry = linux.allocate(len(data))
    scsi.kept[int(sdev)].append(sdev.inquiry)
    store_bytes(sdev.inquiry, data)
    sdev.vendor, sdev.model, sdev.rev = sdev.inquiry + 8, sdev.inquiry + 16, sdev.inquiry + 32
    sdev.allow_restart = int(data[8:16] == b"ATA     ")
    sdev.type, sdev.removable = data[0] & 0x1F, data[1] >> 7
    sdev.inq_periph_qual, sdev.lockable = data[0] >> 5, data[1] >> 7
    sdev.soft_reset = int(data[7] & 1 and data[3] & 7 == 2)
    sdev.ppr = int(sdev.scsi_level >= SCSI_3 or (len(data) > 56 and bool(data[56] & 4)))
    sdev.wdtr, sdev.sdtr = int(bool(data[7] & 0x60)), int(bool(data[7] & 0x10))
    sdev.tagged_supported = sdev.simple_tags = int(sdev.scsi_level >= SCSI_2 and bool(data[7] & 2))
    sdev.borken = 0
    sdev.use_10_for_rw = 1
    sdev.eh_timeout = int(EH_TIMEOUT) * linux.hz
    sdev.sdev_state = scsi.enum("SDEV_RUNNING")
    transport(linux, "configure", sdev.sdev_gendev)
    if error := _call_configure(linux, device):
        if error != -errno.ENXIO:
            log.error(
                "%s: the driver did not configure it: %d", linux.string(sdev.sdev_gendev.kobj.name), error
            )
        return False
    sdev.max_queue_depth = sdev.queue_depth
    if sdev.scsi_level >= SCSI_3:
        attach_vpd(device)
    if add_device(linux, device):
        return False
    log.info(
        "%s: %s %s %s",
        linux.string(sdev.sdev_gendev.kobj.name),
        device.text(8, 8),
        device.text(16, 16),
        device.text(32, 4),
    )
    scsi.on_device(device)
    return True


def _call_configure(linux: Linux, device: Device) -> int:
    """device_configure with the queue's limits, where the kernel and the driver have it, else slave_configure."""
    template, sdev = device.obj.host.hostt, device.obj
    try:
        with_limits = template.device_configure
    except NoSuchField:
        with_limits = 0
    if with_limits:
        return linux.call_int(with_limits, sdev, sdev.request_queue.limits, owner=device.host.owner)
    return (
        linux.call_int(template.slave_configure, sdev, owner=device.host.owner)
        if template.slave_configure
        else 0
    )


def probe_and_add(
    linux: Linux, host: Host, target: Obj, lun: int, hostdata: int = 0
) -> tuple[Device | None, int]:
    """scsi_probe_and_add_lun: the device, if there is one; and what its first byte of INQUIRY was (-1: no answer)."""
    device = find_device(host.scsi, host.obj, target.channel, target.id, lun)
    if device is not None and device.visible:
        return device, device.inquiry[0]
    device = device or _alloc_device(linux, host, target, lun, hostdata)
    if device is None:
        return None, _NO_DEVICE
    data = _probe(device)
    if data is None or is_absent(data) or not _configure(linux, device, data):
        remove_device(linux, device)
        return None, data[0] if data else _NO_DEVICE
    return device, data[0]


# ---- scans ----


def _report_luns(linux: Linux, host: Host, target: Obj) -> list[int] | None:
    """REPORT LUNS to LUN 0; None when the target does not know it."""
    if target.no_report_luns or target.scsi_level < SCSI_3:
        return None
    device = find_device(host.scsi, host.obj, target.channel, target.id, 0)
    made = device is None
    device = device or _alloc_device(linux, host, target, 0, 0)
    if device is None:
        return None
    try:
        answer, data = device.queue.read(report_luns_cdb(), (REPORT_MOST + 1) * 8, INQUIRY_TIMEOUT)
    except DeviceGone:
        return []
    finally:
        if made:
            remove_device(linux, device)
    if answer.result or len(data) < 8:
        return None
    return reported_luns(data)


def scan_target(linux: Linux, host: Host, parent: Obj, channel: int, number: int, lun: int) -> None:
    """__scsi_scan_target: look at one LUN of a target, or at all of them."""
    if host.obj.this_id == number:
        return
    with host.scanning():
        target = alloc_target(linux, host, parent, channel, number)
        if target is not None:
            _scan_luns(linux, host, target, lun)


def _scan_luns(linux: Linux, host: Host, target: Obj, lun: int) -> None:
    try:
        if lun != LUN_WILD_CARD:
            probe_and_add(linux, host, target, lun)
            return
        device, first = probe_and_add(linux, host, target, 0)
        if first == _NO_DEVICE:
            return
        kind = device.obj.type if device else 0x1F
        found = None if kind in (TYPE_ROM, TYPE_RBC) else _report_luns(linux, host, target)
        if found is not None:
            for other in found:
                if other and other <= host.obj.max_lun:
                    probe_and_add(linux, host, target, other)
            return
        most = min(host.obj.max_lun, SEQUENTIAL_MOST if target.scsi_level >= SCSI_3 else 8)
        for other in range(1, most):
            if probe_and_add(linux, host, target, other)[0] is None:
                return
    finally:
        reap_target(linux, target)


def _scan_selected(linux: Linux, host: Host, channel: int, number: int, lun: int) -> None:
    """scsi_scan_host_selected: each part of the address may be a wild card."""
    shost = host.obj
    channels = range(shost.max_channel + 1) if channel == SCAN_WILD_CARD else (channel,)
    for each in channels:
        targets = range(shost.max_id) if number == SCAN_WILD_CARD else (number,)
        for target in targets:
            if shost.shost_state == host.scsi.enum("SHOST_RUNNING"):
                scan_target(linux, host, shost.shost_gendev, each, target, lun)


def rescan_host(host: Host) -> None:
    """Take away the devices that went, then look for those that came: as the transport does it, else everywhere."""
    with host.scanning():
        for device in list(host.devices.values()):
            running = device.visible and device.obj.sdev_state == host.scsi.enum("SDEV_RUNNING")
            if running and not _is_there(device):
                log.warning("%s: it has gone", host.linux.string(device.obj.sdev_gendev.kobj.name))
                remove_device(host.linux, device)
    user_scan = host.obj.transportt.user_scan
    if user_scan:
        host.linux.call(user_scan, host.obj, SCAN_WILD_CARD, SCAN_WILD_CARD, LUN_WILD_CARD, owner=host.owner)
    else:
        _scan_selected(host.linux, host, SCAN_WILD_CARD, SCAN_WILD_CARD, LUN_WILD_CARD)


def _is_there(device: Device) -> bool:
    """Whether the device answers, and is the one that it was. One that answers anything else may be busy."""
    try:
        answer, data = device.queue.read(bytes([0x12, 0, 0, 0, 36, 0]), 36, INQUIRY_TIMEOUT)
        if answer.result >> 16 & 0xFF in NOBODY or (not answer.result and is_absent(data)):
            return False
        name = device.vpd.get(IDENTIFICATION)
        return not name or vpd_page(device, IDENTIFICATION) in (name, b"")
    except DeviceGone:
        return False


@linux_api()
def scsi_scan_host(linux: Linux, shost: Obj) -> None:
    """Find the devices of a host: the driver does it (scan_finished), or each address is asked."""
    host = linux.state(Scsi).host(shost)
    if host is None:
        return
    template = shost.hostt
    if not template.scan_finished:
        _scan_selected(linux, host, SCAN_WILD_CARD, SCAN_WILD_CARD, LUN_WILD_CARD)
        return
    if template.scan_start:
        linux.call(template.scan_start, shost, owner=host.owner)
    begin = lib.linux_jiffies()
    while not linux.call_int(template.scan_finished, shost, lib.linux_jiffies() - begin, owner=host.owner):
        if lib.linux_jiffies() - begin > SCAN_LIMIT * linux.hz:
            raise TimedOut(f"the scan of host{shost.host_no} did not end within {SCAN_LIMIT:.0f} s")
        linux.call(linux.entry("msleep"), 10)


@linux_api()
def scsi_scan_target(linux: Linux, parent: Obj, channel: int, id: int, lun: int, rescan: int) -> None:
    """Find the devices of one target, which hangs below ``parent``."""
    scsi = linux.state(Scsi)
    shost = host_above(scsi, parent)
    host = scsi.host(shost) if shost else None
    if host is not None and shost and shost.shost_state == scsi.enum("SHOST_RUNNING"):
        scan_target(linux, host, parent, channel, id, lun)


_ERR_PTR = 1 << 64


@linux_api()
def __scsi_add_device(linux: Linux, shost: Obj, channel: int, id: int, lun: int, hostdata: int) -> int:
    """Add the device at an address; it with a reference, or an error pointer."""
    host = linux.state(Scsi).host(shost)
    if host is None:
        return _ERR_PTR - errno.ENODEV
    with host.scanning():
        target = alloc_target(linux, host, shost.shost_gendev, channel, id)
        if target is None:
            return _ERR_PTR - errno.ENOMEM
        try:
            device, _ = probe_and_add(linux, host, target, lun, hostdata)
        finally:
            reap_target(linux, target)
        if device is None:
            return _ERR_PTR - errno.ENODEV
        get_device(linux, device.obj.sdev_gendev)
        return int(device.obj)


@linux_api()
def scsi_add_device(linux: Linux, host: Obj, channel: int, target: int, lun: int) -> int:
    """Add the device at an address; 0 or an errno."""
    found = __scsi_add_device(linux, host, channel, target, lun, 0)
    if found >= _ERR_PTR - 4096:
        return found - _ERR_PTR
    put_device(linux, Obj(linux.state(Scsi).types, "scsi_device", found).sdev_gendev)
    return 0


@linux_api("scsi_rescan_device", named=False, note="The device's own driver is the vmkernel.")
def _rescan_device(linux: Linux, dev: Obj) -> int:
    """Read a device's vital product data again, and have its driver ask it for the rest."""
    scsi = linux.state(Scsi)
    for host in scsi.hosts.values():
        for device in list(host.devices.values()):
            if dev in (device.obj, device.obj.sdev_gendev):
                attach_vpd(device)
                scsi.on_device_changed(device)
    return 0


@linux_api(note="No upper-level driver has anything to wake.")
def scsi_resume_device(linux: Linux, sdev: Obj) -> int:
    """Wake a device's driver after the machine slept; -EWOULDBLOCK for a device that takes no commands yet."""
    return 0 if sdev.sdev_state == linux.state(Scsi).enum("SDEV_RUNNING") else -errno.EWOULDBLOCK
