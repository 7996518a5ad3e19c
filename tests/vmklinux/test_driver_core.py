"""The driver core: buses, devices, drivers, devres. Independent side: the kernel's own types (BTF); the callbacks are
a few bytes of machine code, and what calls them is seen in the counters that they move."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest

from tests.vmklinux.conftest import CODE
from vmkernel_core._core import ffi, lib
from vmkernel_core.memory import load, store_bytes
from vmklinux.dd import Binder, device_name
from vmklinux.device import Devices
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.linux import Linux

CALLBACKS = ("probe", "remove", "release", "match", "action")
#: Where they count their calls, in the page of code.
COUNTS = CODE + 2048


def callback(slot: int, result: int) -> bytes:
    """incl COUNTS + 4 * slot; mov $result, %eax; ret."""
    return (
        b"\xff\x04\x25" + struct.pack("<I", COUNTS + 4 * slot) + b"\xb8" + struct.pack("<i", result) + b"\xc3"
    )


class Machine:
    """A bus whose match accepts everything, a driver for it and a device on it; nothing is registered yet."""

    def __init__(self, linux: Linux) -> None:
        self.linux = linux
        store_bytes(COUNTS, bytes(4 * len(CALLBACKS)))
        self.at = {name: CODE + 32 * slot for slot, name in enumerate(CALLBACKS)}
        for name in CALLBACKS:
            self.returns(name, 1 if name == "match" else 0)
        self.bus, self.driver, self.device = (
            linux.new("bus_type"),
            linux.new("device_driver"),
            linux.new("device"),
        )
        self.text = [linux.new_string(name) for name in ("testbus", "testdriver", "unit%d")]
        self.bus.name, self.bus.match, self.bus.probe = self.text[0], self.at["match"], self.at["probe"]
        self.bus.remove = self.at["remove"]
        self.driver.name, self.driver.bus = self.text[1], self.bus
        self.device.bus, self.device.release = self.bus, self.at["release"]

    def free(self) -> None:
        for struct_ in (self.bus, self.driver, self.device):
            self.linux.free(struct_)
        for text in self.text:
            self.linux.free(text)

    def returns(self, name: str, result: int) -> None:
        store_bytes(self.at[name], callback(CALLBACKS.index(name), result))

    def api(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call_int(self.linux.entry(name), *arguments)

    def calls(self, name: str) -> int:
        return load(COUNTS + 4 * CALLBACKS.index(name), 4)

    def add_device(self) -> None:
        self.api("device_initialize", self.device)
        self.api("dev_set_name", self.device, self.text[2], 7)
        assert self.api("device_add", self.device) == 0


def live_objects() -> int:
    """What kernel code asked for; worlds that begin just then have memory of nobody's."""
    return int(lib.vmk_allocations(0x1000, 0xFFFF_FFFF, ffi.NULL, 0))


@pytest.fixture
def machine(linux: Linux) -> Iterator[Machine]:
    before = live_objects()
    made = Machine(linux)
    assert made.api("bus_register", made.bus) == 0
    yield made
    made.api("bus_unregister", made.bus)
    made.free()
    assert linux.state(Devices).added == []
    assert live_objects() == before


def test_a_driver_gets_the_device_that_is_added_after_it(machine: Machine) -> None:
    assert machine.api("driver_register", machine.driver) == 0
    machine.add_device()
    assert device_name(machine.linux, machine.device) == "unit7"
    assert (machine.device.driver, machine.calls("probe")) == (machine.driver, 1)
    machine.api("device_unregister", machine.device)
    assert (machine.calls("remove"), machine.calls("release")) == (1, 1)
    machine.api("driver_unregister", machine.driver)


def test_a_driver_gets_the_device_that_was_there_before_it_and_lets_go_of_it(machine: Machine) -> None:
    machine.add_device()
    assert not machine.device.driver
    assert machine.api("driver_register", machine.driver) == 0
    assert machine.device.driver == machine.driver
    machine.api("driver_unregister", machine.driver)
    assert (int(machine.device.driver), machine.calls("remove"), machine.calls("release")) == (0, 1, 0)
    machine.api("device_unregister", machine.device)
    assert machine.calls("release") == 1


def test_a_driver_that_refuses_leaves_no_trace(machine: Machine) -> None:
    machine.returns("probe", -errno.ENOMEM)
    assert machine.api("driver_register", machine.driver) == 0
    machine.add_device()
    assert (int(machine.device.driver), machine.calls("probe")) == (0, 1)
    machine.api("driver_unregister", machine.driver)
    machine.api("device_unregister", machine.device)
    assert (machine.calls("remove"), machine.calls("release")) == (0, 1)


def test_a_device_that_waits_for_another_is_probed_again(machine: Machine) -> None:
    machine.returns("probe", -517)  # EPROBE_DEFER
    machine.api("driver_register", machine.driver)
    machine.add_device()
    assert machine.calls("probe") == 1
    machine.returns("probe", 0)
    other = machine.linux.new("device")
    other.bus, other.release = machine.bus, machine.at["release"]
    machine.api("device_initialize", other)
    machine.api("dev_set_name", other, machine.text[2], 8)
    assert machine.api("device_add", other) == 0
    assert machine.device.driver == machine.driver
    for device in (other, machine.device):
        machine.api("device_unregister", device)
    machine.linux.free(other)
    machine.api("driver_unregister", machine.driver)


def test_a_device_whose_module_dies_waits_no_more(machine: Machine) -> None:
    machine.returns("probe", -517)
    assert machine.api("driver_register", machine.driver) == 0
    machine.add_device()
    assert machine.linux.state(Binder).deferred == [machine.device]
    machine.linux.state(Devices).abandon(CODE, CODE + 4096)
    assert machine.linux.state(Binder).deferred == []
    for _ in range(2):  # device_initialize's reference and device_add's
        machine.api("put_device", machine.device)
    machine.api("driver_unregister", machine.driver)


def test_what_cannot_be_is_refused_with_linuxs_errors(machine: Machine) -> None:
    assert machine.api("bus_register", machine.bus) == -errno.EEXIST
    machine.api("driver_register", machine.driver)
    assert machine.api("driver_register", machine.driver) == -errno.EBUSY
    machine.api("driver_unregister", machine.driver)
    machine.api("device_initialize", machine.device)
    assert machine.api("device_add", machine.device) == -errno.EINVAL  # it has no name
    machine.api("put_device", machine.device)
    assert machine.calls("release") == 1


def test_a_reference_keeps_a_device_that_was_removed(machine: Machine) -> None:
    machine.add_device()
    machine.api("get_device", machine.device)
    machine.api("device_unregister", machine.device)
    assert machine.calls("release") == 0
    machine.api("put_device", machine.device)
    assert machine.calls("release") == 1


def test_devres_ends_when_the_driver_lets_go(machine: Machine) -> None:
    machine.api("driver_register", machine.driver)
    machine.add_device()
    before = live_objects()
    linux, device = machine.linux, machine.device
    memory = linux.call(linux.entry("devm_kmalloc"), device, 100, 0)
    text = linux.call(linux.entry("devm_kasprintf"), device, 0, machine.text[2], 42)
    assert linux.string(text) == "unit42"
    linux.call(linux.entry("devm_kfree"), device, memory)
    assert live_objects() == before + 1
    add, remove = (
        next(linux.entry(name) for name in names if name in linux.symbols)
        for names in (
            ("devm_add_action", "__devm_add_action"),
            ("devm_remove_action_nowarn", "devm_remove_action"),
        )
    )
    for argument in (1, 2):
        assert linux.call_int(add, device, machine.at["action"], argument) == 0
    assert linux.call_int(remove, device, machine.at["action"], 1) == 0
    machine.api("device_release_driver", device)
    assert (live_objects(), machine.calls("action")) == (before, 1)
    machine.api("device_unregister", device)
    machine.api("driver_unregister", machine.driver)


def test_a_resource_of_a_drivers_own_is_found_and_released(machine: Machine) -> None:
    linux, device, release = machine.linux, machine.device, machine.at["action"]
    machine.add_device()
    data = linux.call(linux.entry("__devres_alloc_node"), release, 24, 0, 0, 0)
    machine.api("devres_add", device, data)
    assert linux.call(linux.entry("devres_find"), device, release, 0, 0) == data
    assert machine.api("devres_destroy", device, release, 0, 0) == 0
    assert machine.api("devres_destroy", device, release, 0, 0) == -errno.ENOENT
    assert machine.calls("action") == 0
    group = linux.call(linux.entry("devres_open_group"), device, 0, 0)
    machine.api("devres_add", device, linux.call(linux.entry("__devres_alloc_node"), release, 8, 0, 0, 0))
    machine.api("devres_close_group", device, group)
    assert (machine.api("devres_release_group", device, group), machine.calls("action")) == (1, 1)
    machine.api("device_unregister", device)


def test_a_device_of_a_class_comes_and_goes(machine: Machine) -> None:
    linux = machine.linux
    kind = linux.new("class")
    kind.name = machine.text[0]
    register = "class_register" if "class_register" in linux.symbols else "__class_register"
    assert machine.api(register, kind, 0) == 0
    made = linux.call(linux.entry("device_create"), kind, 0, 0x1234, 0, machine.text[2], 9)
    device = Obj(linux.types, "device", made)
    assert device_name(linux, device) == "unit9"
    match = linux.symbols["device_match_name"]
    name = linux.new_string("unit9")
    assert linux.call(linux.entry("class_find_device"), kind, 0, name, match) == made
    machine.api("put_device", device)
    machine.api("device_destroy", kind, 0x1234)
    assert linux.call(linux.entry("class_find_device"), kind, 0, name, match) == 0
    machine.api("class_unregister", kind)
    linux.free(name)
    linux.free(kind)


def test_who_is_interested_in_a_class_hears_of_its_devices(machine: Machine) -> None:
    linux = machine.linux
    kind, interface = linux.new("class"), linux.new("class_interface")
    kind.name = machine.text[0]
    setattr(interface, "class", kind)
    interface.add_dev, interface.remove_dev = machine.at["probe"], machine.at["remove"]
    machine.api("class_register" if "class_register" in linux.symbols else "__class_register", kind, 0)
    linux.call(linux.entry("device_create"), kind, 0, 1, 0, machine.text[2], 1)
    assert machine.api("class_interface_register", interface) == 0
    assert machine.calls("probe") == 1, "it is told of the device that was there"
    linux.call(linux.entry("device_create"), kind, 0, 2, 0, machine.text[2], 2)
    assert machine.calls("probe") == 2
    machine.api("device_destroy", kind, 1)
    assert machine.calls("remove") == 1
    machine.api("class_interface_unregister", interface)
    assert machine.calls("remove") == 2, "and of the end of the one that is left"
    machine.api("device_destroy", kind, 2)
    assert (machine.calls("probe"), machine.calls("remove")) == (2, 2)
    kind.class_release = machine.at["release"]
    before = machine.calls("release")
    machine.api("class_unregister", kind)
    assert machine.calls("release") == before + 1, "its owner may go now"
    linux.free(interface)
    linux.free(kind)
