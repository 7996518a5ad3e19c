"""Buses and the lists of their devices and drivers (Linux drivers/base/bus.c).

What Linux keeps in the private part of a bus_type (subsys_private) is kept here, in Python.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op
from vmklinux.btf import BtfError
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.linux import Linux

#: What notifiers of a bus are told (include/linux/device/bus.h): 1, 2 ... in 6.1, an enum from 0 on later.
NOTIFICATIONS = (
    "ADD_DEVICE", "DEL_DEVICE", "REMOVED_DEVICE", "BIND_DRIVER", "BOUND_DRIVER", "UNBIND_DRIVER", "UNBOUND_DRIVER",
    "DRIVER_NOT_BOUND",
)  # fmt: skip


@dataclass
class Bus:
    """A registered bus_type: its devices and its drivers (struct device, struct device_driver) in their order."""

    type: Obj
    devices: list[Obj] = field(default_factory=list)
    drivers: list[Obj] = field(default_factory=list)
    notifiers: list[Obj] = field(default_factory=list)


class Buses:
    """The registered buses, by the address of their bus_type.

    ``on_unknown`` is asked to register a bus that nobody has registered yet: one of a driver built into the image.
    """

    def __init__(self, linux: Linux) -> None:
        """None is registered."""
        self.linux = linux
        self.buses: dict[int, Bus] = {}
        self.on_unknown: Callable[[int], None] = lambda _type: None

    def find(self, bus_type: int | Obj) -> Bus | None:
        """The bus of that type; None when it is not registered."""
        address = int(bus_type)
        if address not in self.buses:
            self.on_unknown(address)
        return self.buses.get(address)

    def of(self, device: Obj) -> Bus | None:
        """The bus that a device is on, if it is registered."""
        return self.find(device.bus) if device.bus else None

    def notify(self, device: Obj, what: str) -> None:
        """Tell the notifiers of the device's bus, for example ``ADD_DEVICE``."""
        bus = self.of(device)
        if bus is None or not bus.notifiers:
            return
        try:
            action = self.linux.types.enumerator(f"BUS_NOTIFY_{what}")
        except BtfError:
            action = NOTIFICATIONS.index(what) + 1
        for notifier in list(bus.notifiers):
            self.linux.call(notifier.notifier_call, notifier, action, device)

    def owned(self, low: int, high: int) -> list[Obj]:
        """The drivers that lie in [low, high)."""
        return [driver for bus in self.buses.values() for driver in bus.drivers if low <= int(driver) < high]

    def abandon(self, low: int, high: int) -> None:
        """Forget the buses, drivers and notifiers that lie in [low, high): their code does not run again."""
        for address in [address for address in self.buses if low <= address < high]:
            del self.buses[address]
        for bus in self.buses.values():
            bus.drivers = [driver for driver in bus.drivers if not low <= int(driver) < high]
            bus.notifiers = [n for n in bus.notifiers if not low <= int(n) < high]


def first_after(items: list[Obj], start: Obj) -> list[Obj]:
    """The items behind ``start``; all of them when it is null."""
    return list(items[items.index(start) + 1 :] if start and start in items else items)


@linux_api()
def bus_register(linux: Linux, bus: Obj) -> int:
    """Make a bus known."""
    buses = linux.state(Buses).buses
    if int(bus) in buses:
        return -errno.EEXIST
    buses[int(bus)] = Bus(bus)
    return 0


@linux_api()
def bus_unregister(linux: Linux, bus: Obj) -> None:
    """Forget a bus."""
    linux.state(Buses).buses.pop(int(bus), None)


@linux_api()
def bus_for_each_dev(linux: Linux, bus: Obj, start: Obj, data: int, fn: int) -> int:
    """Call a function for each device of a bus until it gives something else than 0."""
    found = linux.state(Buses).find(bus)
    if found is None:
        return -errno.EINVAL
    for device in first_after(found.devices, start):
        if error := linux.call_int(fn, device, data):
            return error
    return 0


@linux_api()
def bus_for_each_drv(linux: Linux, bus: Obj, start: Obj, data: int, fn: int) -> int:
    """Call a function for each driver of a bus until it gives something else than 0."""
    found = linux.state(Buses).find(bus)
    if found is None:
        return -errno.EINVAL
    for driver in first_after(found.drivers, start):
        if error := linux.call_int(fn, driver, data):
            return error
    return 0


@linux_api()
def bus_find_device(linux: Linux, bus: Obj, start: Obj, data: int, match: int) -> int:
    """The first device of a bus that a function accepts, with a reference taken; 0 for none."""
    from vmklinux.device import get_device

    found = linux.state(Buses).find(bus)
    for device in first_after(found.devices, start) if found else ():
        if linux.call_int(match, device, data):
            return get_device(linux, device)
    return 0


@linux_api()
def bus_register_notifier(linux: Linux, bus: Obj, nb: Obj) -> int:
    """Have a function told of what happens to the devices of a bus."""
    found = linux.state(Buses).find(bus)
    if found is None:
        return -errno.EINVAL
    found.notifiers.append(nb)
    return 0


@linux_api()
def bus_unregister_notifier(linux: Linux, bus: Obj, nb: Obj) -> int:
    """Have it told no more."""
    found = linux.state(Buses).find(bus)
    if found is None or nb not in found.notifiers:
        return -errno.ENOENT
    found.notifiers.remove(nb)
    return 0


@linux_api()
def bus_rescan_devices(linux: Linux, bus: Obj) -> int:
    """Look for drivers of the devices that have none."""
    from vmklinux.dd import attach

    found = linux.state(Buses).find(bus)
    for device in list(found.devices) if found else ():
        attach(linux, device)
    return 0


no_op(
    "bus.py",
    "No sysfs is mounted: nobody could open the file.",
    "bus_create_file", "bus_remove_file",
)  # fmt: skip
