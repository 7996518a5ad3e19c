"""Finding the devices of a SCSI host in Python (Linux drivers/scsi/scsi_scan.c). A scan is never asynchronous."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmkernel_core.errors import DeviceGone
from vmklinux.native.scsi import scsi_hosts
from vmklinux.native.scsi_device import ScsiDevice
from vmklinux.scsi_common import (
    IDENTIFICATION,
    INQUIRY,
    INQUIRY_TIMEOUT,
    NAMING_PAGES,
    NOBODY,
    REPORT_MOST,
    SCSI_2,
    SCSI_3,
    SEQUENTIAL_MOST,
    SUPPORTED_PAGES,
    TYPE_RBC,
    TYPE_ROM,
    is_absent,
    report_luns_cdb,
    reported_luns,
    sanitized_inquiry,
    scsi_level,
)

if TYPE_CHECKING:
    from vmklinux.native.scsi_host import ScsiHost

log = logging.getLogger(__name__)

#: Bytes of INQUIRY data that every device has (SPC-4, 6.6.2).
_STANDARD = 36


def scsi_scan_host(host: ScsiHost) -> None:
    """Ask each address of a host for its devices. In a world that may sleep; TimedOut."""
    with host.scanning():
        host.template.scan_start()
        _scan_targets(host)


def scsi_scan_target(host: ScsiHost, channel: int, id: int) -> None:
    """Ask one target for its devices. In a world that may sleep; TimedOut."""
    with host.scanning():
        _scan_target(host, channel, id)


def scsi_add_device(host: ScsiHost, channel: int, id: int, lun: int) -> ScsiDevice | None:
    """Ask for the device at one address; None when there is none. In a world that may sleep; TimedOut."""
    with host.scanning():
        return _probe_and_add(host, channel, id, lun)[0]


def scsi_remove_device(device: ScsiDevice) -> None:
    """Take a device away: what the driver has is waited for, what waits ends. In a world that may sleep; TimedOut."""
    host = device.host
    with host.scanning():
        if device.sdev_state in ("CANCEL", "DEL"):
            return
        device.sdev_state = "CANCEL"
        device.queue.end()
        device.sdev_state = "DEL"
        host.devices = [other for other in host.devices if other is not device]
        if host.parent.stopped is None:
            host.template.slave_destroy(device)
        if device.visible:
            scsi_hosts.on_device_gone(device)


def scsi_rescan_device(device: ScsiDevice) -> None:
    """Something about a device has changed: it is asked again. In a world that may sleep."""
    _attach_vpd(device)
    scsi_hosts.on_device_changed(device)


def rescan_host(host: ScsiHost) -> None:
    """Take away the devices that went, then look for those that came."""
    with host.scanning():
        host.template.scan_start()
        for device in host.devices:
            if device.sdev_state == "RUNNING" and not _is_there(device):
                log.warning("%s: it has gone", device.name)
                scsi_remove_device(device)
        _scan_targets(host)


def _is_there(device: ScsiDevice) -> bool:
    """Whether the device answers, and is the one that it was. One that answers anything else may be busy."""
    if not device.host.template.slave_alloc(device):
        return False
    try:
        completion, data = device.read(bytes([INQUIRY, 0, 0, 0, _STANDARD, 0]), _STANDARD, INQUIRY_TIMEOUT)
        good = not (completion.host or completion.status)
        if completion.host in NOBODY or (good and is_absent(data)):
            return False
        name = device.vpd_pages.get(IDENTIFICATION)
        return not name or device.read_vpd(IDENTIFICATION) in (name, b"")
    except DeviceGone:
        return False


def _scan_targets(host: ScsiHost) -> None:
    for channel in range(host.max_channel + 1):
        for number in range(host.max_id):
            if number != host.this_id and host.state() != "dead":
                _scan_target(host, channel, number)


def _scan_target(host: ScsiHost, channel: int, number: int) -> None:
    known = _find(host, channel, number, 0)
    if known is not None and known.state() == "blocked":
        return  # what it is asked would wait until its transport has it again
    first, found = _probe_and_add(host, channel, number, 0)
    if not found:
        return
    level = scsi_level(found)
    luns = _report_luns(host, channel, number) if level >= SCSI_3 and (
        first is None or first.type not in (TYPE_ROM, TYPE_RBC)
    ) else None  # fmt: skip
    if luns is not None:
        for lun in luns:
            if 0 < lun < host.max_lun:
                _probe_and_add(host, channel, number, lun)
        return
    for lun in range(1, min(host.max_lun, SEQUENTIAL_MOST if level >= SCSI_3 else 8)):
        if _probe_and_add(host, channel, number, lun)[0] is None:
            return


def _find(host: ScsiHost, channel: int, number: int, lun: int) -> ScsiDevice | None:
    return next((device for device in host.devices if device.address() == (channel, number, lun)), None)


def _probe_and_add(host: ScsiHost, channel: int, number: int, lun: int) -> tuple[ScsiDevice | None, bytes]:
    """scsi_probe_and_add_lun: the device, if there is one, and what it answered to INQUIRY (b"": nothing)."""
    device = _find(host, channel, number, lun)
    if device is not None:
        return device, device.inquiry()
    device = ScsiDevice(host, channel, number, lun)
    if not host.template.slave_alloc(device):
        return None, b""
    host.devices = [*host.devices, device]
    device.sdev_state = "RUNNING"
    data = _probe(device)
    if not data or is_absent(data):
        scsi_remove_device(device)
        return None, data
    _configure(device, data)
    return device, data


def _probe(device: ScsiDevice) -> bytes:
    """scsi_probe_lun: INQUIRY, first the bytes that all have, then as much as there is; b"" when nobody answers."""
    length, data = _STANDARD, b""
    while True:
        try:
            completion, got = device.read(bytes([INQUIRY, 0, 0, 0, length, 0]), length, INQUIRY_TIMEOUT)
        except DeviceGone:
            return b""
        if completion.host or completion.status:
            break
        data = got.ljust(_STANDARD, b"\0")
        told = data[4] + 5
        if told <= length or told > 255:
            break
        length = told
    return sanitized_inquiry(data) if data else b""


def _configure(device: ScsiDevice, data: bytes) -> None:
    """scsi_add_lun: keep what INQUIRY told, let the driver configure the device, and show it."""
    device.set_inquiry(data)
    device.scsi_level = scsi_level(data)
    device.lun_in_cdb = 0 < device.scsi_level <= SCSI_2 and device.lun > 0
    device.allow_restart = data[8:16] == b"ATA     "
    device.host.template.slave_configure(device)
    if device.scsi_level >= SCSI_3:
        _attach_vpd(device)
    device.visible = True
    log.info("%s: %s %s %s", device.name, device.vendor, device.model, device.revision)
    scsi_hosts.on_device(device)


def _attach_vpd(device: ScsiDevice) -> None:
    """scsi_attach_vpd: keep the pages that name the device and its limits."""
    if device.skip_vpd_pages:
        return
    pages = {SUPPORTED_PAGES: device.read_vpd(SUPPORTED_PAGES)}
    for page in NAMING_PAGES:
        if page in pages[SUPPORTED_PAGES][4:] and (data := device.read_vpd(page)):
            pages[page] = data
    device.vpd_pages = pages


def _report_luns(host: ScsiHost, channel: int, number: int) -> list[int] | None:
    """REPORT LUNS to LUN 0; None when the target does not know it."""
    known = _find(host, channel, number, 0)
    device = known or ScsiDevice(host, channel, number, 0)
    if known is None:
        if not host.template.slave_alloc(device):
            return []
        host.devices = [*host.devices, device]
        device.sdev_state = "RUNNING"
    try:
        completion, data = device.read(report_luns_cdb(), (REPORT_MOST + 1) * 8, INQUIRY_TIMEOUT)
    except DeviceGone:
        return []
    finally:
        if known is None:
            scsi_remove_device(device)
    return None if completion.host or completion.status or len(data) < 8 else reported_luns(data)
