"""Devices of the driver core (Linux drivers/base/core.c): life, references, names, children.

Buses are in bus.py, drivers in driver.py, their meeting in dd.py, classes in class_.py, devres in devres.py.
What Linux keeps in device_private is kept here, in Python.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api, no_op
from vmklinux.bus import Buses
from vmklinux.dd import Binder, attach, device_name, release
from vmklinux.devres import Devres
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_init

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmklinux.linux import Linux, VaList

log = logging.getLogger(__name__)

NUMA_NO_NODE = -1  # include/linux/numa.h


def driver_name(linux: Linux, device: Obj) -> str:
    """The name of the driver bound to a device, "" without one."""
    driver = device.driver
    return linux.string(driver.name) if driver else ""


@linux_api()
def dev_driver_string(linux: Linux, device: Obj) -> int:
    """The driver's name, else the bus's; for messages."""
    if device.driver:
        return int(device.driver.name)
    return int(device.bus.name) if device.bus else linux.state(Strings).empty


class Strings:
    """C strings that live as long as the kernel."""

    def __init__(self, linux: Linux) -> None:
        """Make them."""
        self.empty = linux.new_string("")


class Devices:
    """The devices that device_add made known, in that order.

    ``on_modalias`` is told the modalias of each new device before a driver is looked for: it may load one.
    """

    def __init__(self, linux: Linux) -> None:
        """There is none."""
        self.linux = linux
        self.added: list[Obj] = []
        #: Addresses of names that dev_set_name allocated.
        self.names: set[int] = set()
        #: Devices that were allocated here, and the allocation that each is in.
        self.created: dict[int, int] = {}
        #: class_interface objects: modules that are told of each device of a class.
        self.interfaces: list[Obj] = []
        self.on_modalias: Callable[[Obj, str], None] = lambda _device, _modalias: None

    def interested(self, device: Obj) -> list[Obj]:
        """The class_interfaces of a device's class."""
        kind = getattr(device, "class")
        return [each for each in self.interfaces if kind and getattr(each, "class") == kind]

    def children(self, parent: Obj) -> list[Obj]:
        """The devices that were added below another."""
        return [device for device in self.added if device.parent == parent]

    def owned(self, low: int, high: int) -> list[Obj]:
        """The devices whose end is a function in [low, high): that module has to remove them."""
        return [device for device in self.added if low <= device.release < high]

    def bound(self, low: int, high: int) -> list[Obj]:
        """The devices whose driver lies in [low, high)."""
        return [device for device in self.added if low <= int(device.driver) < high]

    def abandon(self, low: int, high: int) -> None:
        """Forget the devices of a module in [low, high), and that its drivers have any: its code does not run again."""
        self.interfaces = [each for each in self.interfaces if not low <= int(each) < high]
        for device in self.owned(low, high):
            self.forget(device)
        for device in self.bound(low, high):
            self.linux.state(Devres).forget(device)
            device.driver = 0

    def forget(self, device: Obj) -> None:
        """Nobody finds the device any more."""
        self.added.remove(device)
        self.linux.state(Binder).drop(device)
        bus = self.linux.state(Buses).of(device)
        if bus is not None and device in bus.devices:
            bus.devices.remove(device)


def ancestors(device: Obj) -> Iterator[Obj]:
    """A device, its parent, the parent's parent and so on."""
    while device:
        yield device
        device = device.parent


def set_name(linux: Linux, device: Obj, name: str) -> None:
    """Give a device its name, in place of the one it had."""
    names = linux.state(Devices).names
    old = device.kobj.name
    device.kobj.name = linux.new_string(name, lib.vmk_owner())
    names.add(device.kobj.name)
    if old in names:
        names.remove(old)
        linux.free(old)


@linux_api()
def dev_set_name(linux: Linux, dev: Obj, fmt: int, arguments: VaList) -> int:
    """Give a device its name."""
    set_name(linux, dev, linux.format(fmt, arguments))
    return 0


@linux_api()
def device_initialize(linux: Linux, dev: Obj) -> None:
    """Make a struct device usable: one reference, empty lists."""
    dev.kobj.kref.refcount.refs.counter = 1
    dev.kobj.state_initialized = 1
    for path in (
        "kobj.entry", "dma_pools", "devres_head", "links.consumers", "links.suppliers", "links.defer_sync",
        "mutex.wait_list",
    ):  # fmt: skip
        list_init(linux, addressof(dev, path))
    dev.numa_node = NUMA_NO_NODE


@linux_api()
def device_add(linux: Linux, dev: Obj) -> int:
    """Make a device known, and let a driver of its bus probe it."""
    if not dev:  # a transport class without class devices (transport_add_class_device)
        return -errno.EINVAL
    if dev.init_name:
        set_name(linux, dev, linux.string(dev.init_name))
        dev.init_name = 0
    elif not dev.kobj.name and dev.bus and dev.bus.dev_name:
        set_name(linux, dev, f"{linux.string(dev.bus.dev_name)}{dev.id}")
    if not dev.kobj.name:
        return -errno.EINVAL
    buses = linux.state(Buses)
    bus = buses.of(dev)
    if dev.bus and bus is None:
        log.error("device %s: its bus is not registered", device_name(linux, dev))
        return -errno.EINVAL
    get_device(linux, dev)
    get_device(linux, dev.parent)
    dev.kobj.state_in_sysfs = 1
    state = linux.state(Devices)
    state.added.append(dev)
    if bus is not None:
        bus.devices.append(dev)
        buses.notify(dev, "ADD_DEVICE")
        if modalias := _modalias(linux, dev):
            state.on_modalias(dev, modalias)
        attach(linux, dev)
    for interface in state.interested(dev):
        if interface.add_dev:
            linux.call(interface.add_dev, dev, interface)
    return 0


def _modalias(linux: Linux, device: Obj) -> str:
    """What the bus of a device says of it for finding a module; "" when it says nothing."""
    if not device.bus.uevent:
        return ""
    environment = linux.new("kobj_uevent_env")
    try:
        linux.call_int(device.bus.uevent, device, environment)
        variables = environment.buf.raw()[: environment.buflen].decode("utf-8", "replace").split("\0")
    finally:
        linux.free(environment)
    return next((v.removeprefix("MODALIAS=") for v in variables if v.startswith("MODALIAS=")), "")


@linux_api()
def device_register(linux: Linux, dev: Obj) -> int:
    """Initialize a device and add it."""
    device_initialize(linux, dev)
    return device_add(linux, dev)


@linux_api()
def device_del(linux: Linux, dev: Obj) -> None:
    """Take a device away from its driver, its bus and its parent."""
    state, buses = linux.state(Devices), linux.state(Buses)
    if dev not in state.added:
        return
    buses.notify(dev, "DEL_DEVICE")
    for interface in state.interested(dev):
        if interface.remove_dev:
            linux.call(interface.remove_dev, dev, interface)
    dev.kobj.state_in_sysfs = 0
    release(linux, dev)
    buses.notify(dev, "REMOVED_DEVICE")
    state.forget(dev)
    put_device(linux, dev.parent)
    put_device(linux, dev)


@linux_api()
def device_unregister(linux: Linux, dev: Obj) -> None:
    """Remove a device, and drop the reference that device_register's caller had."""
    device_del(linux, dev)
    put_device(linux, dev)


@linux_api()
def get_device(linux: Linux, dev: Obj) -> int:
    """Take a reference; the device, or 0 when there is none."""
    if dev:
        dev.kobj.kref.refcount.refs.counter += 1
    return int(dev)


@linux_api()
def put_device(linux: Linux, dev: Obj) -> None:
    """Drop a reference; the last one ends the device through its release function."""
    if not dev:
        return
    references = dev.kobj.kref.refcount.refs
    if references.counter < 1:
        log.warning("a reference to device %s was dropped that nobody had", device_name(linux, dev))
        return
    references.counter -= 1
    if not references.counter:
        _end(linux, dev)


def _end(linux: Linux, device: Obj) -> None:
    """device_release: devres, then the release function of the device, its type or its class; then its name."""
    state, name = linux.state(Devices), device.kobj.name
    linux.state(Devres).release_all(device)
    kind, group = device.type, getattr(device, "class")
    if int(device) in state.created:
        linux.free(state.created.pop(int(device)))
    elif function := device.release or (kind and kind.release) or (group and group.dev_release):
        linux.call(function, device)
    else:
        log.warning("device %s has no release function", device_name(linux, device))
    if name in state.names:
        state.names.remove(name)
        linux.free(name)


@linux_api()
def __root_device_register(linux: Linux, name: int, owner: Obj) -> int:
    """Make a device that has no parent and no bus, below which a driver hangs its own."""
    device = linux.new("device", lib.vmk_owner())
    linux.state(Devices).created[int(device)] = int(device)
    device_initialize(linux, device)
    set_name(linux, device, linux.string(name))
    return device_add(linux, device) or int(device)


@linux_api()
def root_device_unregister(linux: Linux, dev: Obj) -> None:
    """Remove it."""
    device_unregister(linux, dev)


@linux_api()
def device_for_each_child(linux: Linux, parent: Obj, data: int, fn: int) -> int:
    """Call a function for each child until it gives something else than 0."""
    return _each(linux, linux.state(Devices).children(parent), fn, data)


@linux_api()
def device_for_each_child_reverse(linux: Linux, parent: Obj, data: int, fn: int) -> int:
    """Call a function for each child, the last one first, until it gives something else than 0."""
    return _each(linux, linux.state(Devices).children(parent)[::-1], fn, data)


def _each(linux: Linux, devices: list[Obj], function: int, data: int) -> int:
    for device in devices:
        if error := linux.call_int(function, device, data):
            return error
    return 0


@linux_api()
def device_find_child(linux: Linux, parent: Obj, data: int, match: int) -> int:
    """The first child that a function accepts, with a reference taken; 0 for none."""
    for device in linux.state(Devices).children(parent):
        if linux.call_int(match, device, data):
            return get_device(linux, device)
    return 0


@linux_api()
def device_rename(linux: Linux, dev: Obj, new_name: int) -> int:
    """Give a device another name."""
    set_name(linux, dev, linux.string(new_name))
    return 0


no_op(
    "device.py",
    "No power management core runs: a device is awake while its driver is bound.",
    "pm_runtime_enable", "__pm_runtime_disable", "__pm_runtime_resume", "__pm_runtime_suspend", "__pm_runtime_idle",
    "pm_runtime_allow", "pm_runtime_forbid", "__pm_runtime_set_status", "pm_system_wakeup", "pm_schedule_suspend",
)  # fmt: skip
