"""Drivers of the driver core (Linux drivers/base/driver.c)."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op
from vmklinux.bus import Buses, first_after
from vmklinux.dd import attach_all, release
from vmklinux.device import get_device
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)


def _devices(linux: Linux, driver: Obj) -> list[Obj]:
    bus = linux.state(Buses).find(driver.bus)
    return [device for device in bus.devices if device.driver == driver] if bus else []


def _named(linux: Linux, bus: Obj, name: str) -> Obj | None:
    found = linux.state(Buses).find(bus)
    return next((d for d in found.drivers if linux.string(d.name) == name), None) if found else None


@linux_api()
def driver_register(linux: Linux, drv: Obj) -> int:
    """Make a driver known to its bus, and let it probe the devices there that it matches."""
    bus = linux.state(Buses).find(drv.bus)
    name = linux.string(drv.name)
    if bus is None:
        log.error("driver %s: its bus is not registered", name)
        return -errno.EINVAL
    if _named(linux, drv.bus, name) is not None:
        log.error("driver %s is registered already", name)
        return -errno.EBUSY
    bus.drivers.append(drv)
    attach_all(linux, drv)
    return 0


@linux_api()
def driver_unregister(linux: Linux, drv: Obj) -> None:
    """Unbind a driver from its devices and forget it."""
    bus = linux.state(Buses).find(drv.bus)
    if bus is None or drv not in bus.drivers:
        return
    bus.drivers.remove(drv)
    for device in reversed(_devices(linux, drv)):
        release(linux, device)


@linux_api()
def driver_for_each_device(linux: Linux, drv: Obj, start: Obj, data: int, fn: int) -> int:
    """Call a function for each device of a driver until it gives something else than 0."""
    for device in first_after(_devices(linux, drv), start):
        if error := linux.call_int(fn, device, data):
            return error
    return 0


@linux_api()
def driver_find_device(linux: Linux, drv: Obj, start: Obj, data: int, match: int) -> int:
    """The first device of a driver that a function accepts, with a reference taken; 0 for none."""
    for device in first_after(_devices(linux, drv), start):
        if linux.call_int(match, device, data):
            return get_device(linux, device)
    return 0


@linux_api()
def driver_find(linux: Linux, name: int, bus: Obj) -> int:
    """The driver of that name on a bus; 0 for none."""
    return int(_named(linux, bus, linux.string(name)) or 0)


no_op(
    "driver.py",
    "No sysfs is mounted: nobody could open the file.",
    "driver_create_file", "driver_remove_file",
)  # fmt: skip
