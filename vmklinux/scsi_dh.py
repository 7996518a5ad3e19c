"""Device handlers: modules that know how the paths to certain arrays are switched (Linux drivers/scsi/scsi_dh.c)."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from vmklinux.api import linux_api
from vmklinux.kmod import module_put, try_module_get
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi

if TYPE_CHECKING:
    from vmklinux.linux import Linux
    from vmklinux.scsi import Device

log = logging.getLogger(__name__)

#: Which handler knows an array that does not tell of asymmetric access (TPGS): vendor, and how its models begin.
ARRAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "emc": {"DGC": ("RAID", "DISK", "VRAID")},
    "hp_sw": {"COMPAQ": ("MSA1000 VOLUME", "HSV110"), "HP": ("HSV100",), "DEC": ("HSG80",)},
    "rdac": {
        "IBM": (
            "1722", "1724", "1726", "1742", "1745", "1746", "1813", "1814", "1815", "1818", "3526", "3542", "3552",
        ),
        "SGI": ("TP9300", "TP9400", "TP9500", "TP9700", "IS"),
        "STK": ("OPENstorage", "FLEXLINE 380", "BladeCtlr"),
        "SUN": ("CSM", "LCSM100", "STK6580_6780", "SUN_6180", "ArrayStorage"),
        "DELL": ("MD3",),
        "NETAPP": ("INF-01-00",),
        "LSI": ("INF-01-00",),
        "ENGENIO": ("INF-01-00",),
        "LENOVO": ("DE_Series",),
        "FUJITSU": ("ETERNUS_AHB",),
    },
}  # fmt: skip
_TPGS = 0x30  # byte 5 of INQUIRY data (SPC-4, 6.4.2)
#: What a handler's attach returned, as an errno: the device is not one of its own; no memory; try again.
_REFUSALS = {
    "DEV_UNSUPP": errno.ENODEV,
    "NOSYS": errno.ENODEV,
    "NOMEM": errno.ENOMEM,
    "RES_TEMP_UNAVAIL": errno.EAGAIN,
}


class Handlers:
    """The registered handlers (struct scsi_device_handler), by name."""

    def __init__(self, linux: Linux) -> None:
        """There is none."""
        self.linux = linux
        self.known: dict[str, Obj] = {}

    def abandon(self, low: int, high: int) -> None:
        """Forget those that lie in [low, high), and that devices have them: their code does not run again."""
        self.known = {name: each for name, each in self.known.items() if not low <= int(each) < high}
        for host in self.linux.state(Scsi).hosts.values():
            for device in host.devices.values():
                if low <= int(device.obj.handler) < high:
                    forget(self.linux, device)


def _wanted(device: Device) -> str:
    """scsi_dh_find_driver: the name of the handler for a device, "" for none."""
    if device.inquiry[5] & _TPGS:
        return "alua"
    vendor, model = device.text(8, 8), device.text(16, 16)
    return next(
        (name for name, arrays in ARRAYS.items() if model.startswith(arrays.get(vendor, ("\0",)))), ""
    )


def attach(linux: Linux, device: Device) -> None:
    """scsi_dh_add_device: the handler that is registered for a new device takes it, if it will."""
    handler = linux.state(Handlers).known.get(_wanted(device))
    if handler is None:
        return
    if not try_module_get(linux, handler.module):
        return
    error = linux.call_int(handler.attach, device.obj)
    if not error:
        device.obj.handler = handler
        return
    module_put(linux, handler.module)
    refusals = {device.host.scsi.enum(f"SCSI_DH_{name}"): code for name, code in _REFUSALS.items()}
    if refusals.get(error) != errno.ENODEV:
        log.error("%s: %s does not attach: %d", device.address, linux.string(handler.name), error)


def release(linux: Linux, device: Device) -> None:
    """scsi_dh_release_device: a device goes, and its handler lets go of it."""
    if handler := device.obj.handler:
        linux.call(handler.detach, device.obj)
        module_put(linux, handler.module)
        device.obj.handler = 0


def forget(linux: Linux, device: Device) -> None:
    """The device or its handler is dead: they part, and the handler is not told."""
    if handler := device.obj.handler:
        module_put(linux, handler.module)
        device.obj.handler = 0


@linux_api(
    partial="A path is never activated: nothing above chooses between paths yet. prep_fn, which would keep blocks "
    "away from a passive path, is not asked; check_sense is (scsi_error.c)."
)
def scsi_register_device_handler(linux: Linux, scsi_dh: Obj) -> int:
    """Make a handler known: devices that appear from now on, and that are of its kind, are attached to it."""
    known, name = linux.state(Handlers).known, linux.string(scsi_dh.name)
    if name in known:
        return -errno.EBUSY
    if not scsi_dh.attach or not scsi_dh.detach:
        return -errno.EINVAL
    known[name] = scsi_dh
    return 0


@linux_api()
def scsi_unregister_device_handler(linux: Linux, scsi_dh: Obj) -> int:
    """Forget a handler; its devices were let go of before, as they hold its module."""
    name = linux.string(scsi_dh.name)
    if linux.state(Handlers).known.pop(name, None) is None:
        return -errno.ENODEV
    return 0
