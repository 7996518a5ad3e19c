"""Device numbers of character devices, on both kernels: what is given out is checked against what is out already."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import load
from vmklinux.char_dev import CharDevices
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def call(linux: Linux, function: str, *arguments: int | Obj) -> int:
    return linux.call_int(linux.entry(function), *arguments)


def test_regions_do_not_overlap(linux: Linux, scratch: int) -> None:
    name = linux.new_string("manage")
    assert call(linux, "alloc_chrdev_region", scratch, 3, 4, name) == 0
    first = load(scratch, 4)
    assert first & 0xFFFFF == 3
    assert first >> 20
    assert call(linux, "register_chrdev_region", first + 3, 2, name) == -errno.EBUSY
    assert call(linux, "register_chrdev_region", first + 4, 2, name) == 0
    major = call(linux, "__register_chrdev", 0, 0, 256, name, 0)
    assert major != first >> 20
    assert major > 0
    assert call(linux, "__register_chrdev", major, 0, 256, name, 0) == -errno.EBUSY
    call(linux, "unregister_chrdev_region", first, 4)
    assert call(linux, "register_chrdev_region", first, 4, name) == 0
    call(linux, "unregister_chrdev_region", first, 4)
    call(linux, "unregister_chrdev_region", first + 4, 2)
    call(linux, "__unregister_chrdev", major, 0, 256, name)
    assert linux.state(CharDevices).regions == []
    linux.free(name)


def test_a_module_that_is_stopped_keeps_no_numbers(linux: Linux, scratch: int) -> None:
    name = linux.new_string("manage")
    module = 0x5900_0000
    linux.call(linux.entry("alloc_chrdev_region"), scratch, 0, 1, name, owner=module)
    devices = linux.state(CharDevices)
    devices.abandon(module + 4096, module + 8192)
    assert len(devices.regions) == 1
    devices.abandon(module, module + 4096)
    assert devices.regions == []
    linux.free(name)


def test_a_cdev_is_freed_by_whom_it_was_made(linux: Linux, scratch: int) -> None:
    made = Obj(linux.types, "cdev", linux.call(linux.entry("cdev_alloc")))
    made.ops, made.kobj.name = scratch, linux.new_string("manage")
    name = made.kobj.name
    assert call(linux, "cdev_add", made, 240 << 20, 2) == 0
    assert (made.dev, made.count) == (240 << 20, 2)
    call(linux, "cdev_del", made)
    assert lib.vmk_alloc_size(name) == 0
    own = linux.new("cdev")
    call(linux, "cdev_init", own, scratch)
    assert int(own.ops) == scratch
    call(linux, "cdev_del", own)
    linux.free(own)
