"""Classes of devices (Linux drivers/base/class.c), and devices that exist for a class alone."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.bus import first_after
from vmklinux.device import (
    Devices,
    device_initialize,
    device_register,
    device_unregister,
    get_device,
    set_name,
)
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux, VaList


@dataclass
class Classes:
    """The registered classes, and those of them that class_create allocated."""

    linux: Linux
    known: set[int] = field(default_factory=set)
    created: set[int] = field(default_factory=set)

    def abandon(self, low: int, high: int) -> None:
        """Forget the classes that lie in [low, high)."""
        self.known = {address for address in self.known if not low <= address < high}


def _members(linux: Linux, kind: Obj) -> list[Obj]:
    return [device for device in linux.state(Devices).added if getattr(device, "class") == kind]


@linux_api()
def class_register(linux: Linux, cls: Obj) -> int:
    """Make a class known."""
    known = linux.state(Classes).known
    if int(cls) in known:
        return -errno.EEXIST
    known.add(int(cls))
    return 0


@linux_api()
def __class_register(linux: Linux, cls: Obj, key: Obj) -> int:
    """Make a class known."""
    return class_register(linux, cls)


@linux_api()
def class_unregister(linux: Linux, cls: Obj) -> None:
    """Forget a class, and tell its owner that nobody uses it any more."""
    linux.state(Classes).known.discard(int(cls))
    if cls.class_release:
        linux.call(cls.class_release, cls)


def _create(linux: Linux, name: int) -> int:
    kind = linux.new("class", lib.vmk_owner())
    kind.name = name
    state = linux.state(Classes)
    state.known.add(int(kind))
    state.created.add(int(kind))
    return int(kind)


@linux_api()
def class_create(linux: Linux, name: int) -> int:
    """Make a class."""
    return _create(linux, name)


@linux_api()
def __class_create(linux: Linux, owner: Obj, name: int, key: Obj) -> int:
    """Make a class."""
    return _create(linux, name)


@linux_api()
def class_destroy(linux: Linux, cls: Obj) -> None:
    """Forget a class that class_create made."""
    state = linux.state(Classes)
    state.known.discard(int(cls))
    if int(cls) in state.created:
        state.created.remove(int(cls))
        linux.free(cls)


@linux_api()
def class_interface_register(linux: Linux, class_intf: Obj) -> int:
    """Tell a module of each device of a class, those that are there and those that come."""
    linux.state(Devices).interfaces.append(class_intf)
    for device in _members(linux, getattr(class_intf, "class")):
        if class_intf.add_dev:
            linux.call(class_intf.add_dev, device, class_intf)
    return 0


@linux_api()
def class_interface_unregister(linux: Linux, class_intf: Obj) -> None:
    """Tell it no more; for the module, the devices that are there go now."""
    interfaces = linux.state(Devices).interfaces
    if class_intf not in interfaces:
        return
    interfaces.remove(class_intf)
    for device in _members(linux, getattr(class_intf, "class")):
        if class_intf.remove_dev:
            linux.call(class_intf.remove_dev, device, class_intf)


@linux_api()
def class_for_each_device(linux: Linux, cls: Obj, start: Obj, data: int, fn: int) -> int:
    """Call a function for each device of a class until it gives something else than 0."""
    for device in first_after(_members(linux, cls), start):
        if error := linux.call_int(fn, device, data):
            return error
    return 0


@linux_api()
def class_find_device(linux: Linux, cls: Obj, start: Obj, data: int, match: int) -> int:
    """The first device of a class that a function accepts, with a reference taken; 0 for none."""
    for device in first_after(_members(linux, cls), start):
        if linux.call_int(match, device, data):
            return get_device(linux, device)
    return 0


def _create_device(linux: Linux, kind: Obj, parent: Obj, devt: int, drvdata: int, name: str) -> int:
    device = linux.new("device", lib.vmk_owner())
    linux.state(Devices).created[int(device)] = int(device)
    device_initialize(linux, device)
    device.devt, device.parent, device.driver_data = devt, parent, drvdata
    setattr(device, "class", kind)
    set_name(linux, device, name)
    error = device_register(linux, device)
    return error or int(device)


@linux_api()
def device_create(
    linux: Linux, class_: Obj, parent: Obj, devt: int, drvdata: int, fmt: int, arguments: VaList
) -> int:
    """Make a device of a class, and add it."""
    return _create_device(linux, class_, parent, devt, drvdata, linux.format(fmt, arguments))


@linux_api(note="No sysfs is mounted, so the groups are not looked at.")
def device_create_with_groups(
    linux: Linux, class_: Obj, parent: Obj, devt: int, drvdata: int, groups: int, fmt: int, arguments: VaList
) -> int:
    """Make a device of a class, and add it."""
    return _create_device(linux, class_, parent, devt, drvdata, linux.format(fmt, arguments))


@linux_api()
def device_destroy(linux: Linux, class_: Obj, devt: int) -> None:
    """Remove the device with that number from a class."""
    for device in _members(linux, class_):
        if device.devt == devt:
            device_unregister(linux, device)
            return
