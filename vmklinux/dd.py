"""Binding devices to drivers: match, probe, remove (Linux drivers/base/dd.c).

Deviations: probing is never asynchronous, and the device lock is not taken around probe and remove: one baton
runs all kernel code.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op
from vmklinux.bus import Buses
from vmklinux.devres import Devres
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

EPROBE_DEFER = 517  # include/linux/errno.h
#: Errors that mean "not mine" rather than that something went wrong.
_NOT_MINE = (errno.ENODEV, errno.ENXIO)


class Binder:
    """The devices that wait for another device (-EPROBE_DEFER).

    ``on_failed(device, driver's name, error)`` is told when a driver refuses a device that it claims.
    """

    def __init__(self, linux: Linux) -> None:
        """None waits."""
        self.linux = linux
        self.deferred: list[Obj] = []
        self.on_failed: Callable[[Obj, str, int], None] = lambda _device, _driver, _error: None

    def retry(self) -> None:
        """A device was bound: those that waited may have waited for it."""
        waiting, self.deferred = self.deferred, []
        for device in waiting:
            attach(self.linux, device)

    def drop(self, device: Obj) -> None:
        """A device goes: it waits no more."""
        self.deferred = [waiting for waiting in self.deferred if waiting != device]


def _matches(linux: Linux, device: Obj, driver: Obj) -> bool:
    match = device.bus.match
    if not match:
        return True
    answer = linux.call_int(match, device, driver, owner=int(driver) & 0xFFFF_FFFF)
    if answer == -EPROBE_DEFER:
        linux.state(Binder).deferred.append(device)
    return answer > 0


def bind(linux: Linux, device: Obj, driver: Obj) -> int:
    """Let a driver that matches probe a device; 0 or -errno (really_probe)."""
    buses = linux.state(Buses)
    device.driver = driver
    buses.notify(device, "BIND_DRIVER")
    probe = device.bus.probe if device.bus and device.bus.probe else driver.probe
    # What the bus's probe in the image takes on the way is the driver's.
    error = linux.call_int(probe, device, owner=int(driver) & 0xFFFF_FFFF) if probe else 0
    if error:
        _cleanup(linux, device)
        buses.notify(device, "DRIVER_NOT_BOUND")
        if error == -EPROBE_DEFER:
            linux.state(Binder).deferred.append(device)
        elif -error not in _NOT_MINE:
            name = linux.string(driver.name)
            log.warning("probe of %s by %s failed: %s", device_name(linux, device), name, os.strerror(-error))
            linux.state(Binder).on_failed(device, name, error)
        return error
    buses.notify(device, "BOUND_DRIVER")
    linux.state(Binder).retry()
    return 0


def device_name(linux: Linux, device: Obj) -> str:
    """dev_name: the name of a device, "" while it has none."""
    address = device.init_name or device.kobj.name
    return linux.string(address) if address else ""


def attach(linux: Linux, device: Obj) -> bool:
    """Look for a driver of a device that has none; whether it has one then (device_attach)."""
    bus = linux.state(Buses).of(device)
    if device.driver or bus is None:
        return bool(device.driver)
    for driver in list(bus.drivers):
        if _matches(linux, device, driver):
            error = bind(linux, device, driver)
            if not error or error == -EPROBE_DEFER:
                break
    return bool(device.driver)


def attach_all(linux: Linux, driver: Obj) -> None:
    """Let a driver probe every device of its bus that has none and that it matches (driver_attach)."""
    bus = linux.state(Buses).find(driver.bus)
    for device in list(bus.devices) if bus else ():
        if not device.driver and _matches(linux, device, driver):
            bind(linux, device, driver)


def release(linux: Linux, device: Obj) -> None:
    """Let the driver of a device go of it (device_release_driver)."""
    driver = device.driver
    linux.state(Binder).drop(device)
    if not driver:
        return
    buses = linux.state(Buses)
    buses.notify(device, "UNBIND_DRIVER")
    remove = device.bus.remove if device.bus and device.bus.remove else driver.remove
    if remove:
        linux.call(remove, device, owner=int(driver) & 0xFFFF_FFFF)
    _cleanup(linux, device)
    buses.notify(device, "UNBOUND_DRIVER")


def _cleanup(linux: Linux, device: Obj) -> None:
    linux.state(Devres).release_all(device)
    device.driver = 0
    device.driver_data = 0


@linux_api()
def device_attach(linux: Linux, dev: Obj) -> int:
    """Look for a driver; 1 when the device has one then, else 0."""
    return int(attach(linux, dev))


@linux_api()
def driver_attach(linux: Linux, drv: Obj) -> int:
    """Look for devices of a driver."""
    attach_all(linux, drv)
    return 0


@linux_api()
def device_driver_attach(linux: Linux, drv: Obj, dev: Obj) -> int:
    """Bind a device to that very driver, without asking whether it matches."""
    return bind(linux, dev, drv) if not dev.driver else -errno.EBUSY


@linux_api()
def device_bind_driver(linux: Linux, dev: Obj) -> int:
    """Note that the driver in dev->driver has the device: its caller has probed it already."""
    buses = linux.state(Buses)
    buses.notify(dev, "BOUND_DRIVER")
    linux.state(Binder).retry()
    return 0


@linux_api()
def device_release_driver(linux: Linux, dev: Obj) -> None:
    """Unbind a device."""
    release(linux, dev)


@linux_api()
def device_reprobe(linux: Linux, dev: Obj) -> int:
    """Unbind a device and look for a driver anew."""
    release(linux, dev)
    attach(linux, dev)
    return 0


no_op("dd.py", "Probing is never asynchronous: there is nothing to wait for.", "wait_for_device_probe")
