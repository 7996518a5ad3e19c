"""Kernel objects without sysfs: names, references, ksets. Independent side: Debian's image, whose kobject.c runs here;
the release function is a few bytes of machine code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vmklinux.conftest import CODE, code
from tests.vmklinux.scsi_target import types_of
from vmkernel_core.memory import load, store_bytes
from vmklinux.kobject import Obj
from vmklinux.linux import Linux
from vmklinux.loader import Loader, allocations


@pytest.fixture
def released(linux: Linux) -> Iterator[int]:
    """Where the release function counts; the image keeps nothing for it."""
    image = (linux.image.base, linux.image.base + linux.image.size)
    before = allocations(linux, *image)
    counter = linux.allocate(8)
    code(b"\x48\xb8", counter.to_bytes(8, "little"), b"\x48\xff\x00")  # movabs $counter,%rax; incq (%rax)
    yield counter
    linux.free(counter)
    assert allocations(linux, *image) == before


def test_an_object_lives_as_long_as_its_references(linux: Linux, scratch: int, released: int) -> None:
    firmware = Obj(linux.types, "kobject", load(linux.symbols["firmware_kobj"], 8))
    assert linux.string(firmware.name) == "firmware"
    store_bytes(scratch, b"boot\0target%d\0")
    kset = Obj(linux.types, "kset", linux.call("kset_create_and_add", scratch, 0, firmware))
    assert linux.string(kset.kobj.name) == "boot"
    assert kset.kobj.parent == firmware
    kind, kobj = linux.new("kobj_type"), linux.new("kobject")
    kind.release, kobj.kset = CODE, kset
    assert linux.call_int("kobject_init_and_add", kobj, kind, 0, scratch + 5, 7) == 0
    assert linux.string(kobj.name) == "target7"
    assert kobj.parent == kset.kobj, "without a parent it hangs below its kset"
    assert kset.list.next == kobj.entry
    store_bytes(scratch + 64, b"target7\0")
    assert linux.call("kset_find_obj", kset, scratch + 64) == int(kobj)
    linux.call("kobject_put", kobj)
    assert load(released, 8) == 0
    linux.call("kobject_put", kobj)
    assert load(released, 8) == 1
    assert kset.list.next == kset.list
    assert linux.call("kset_find_obj", kset, scratch + 64) == 0
    linux.call("kset_unregister", kset)
    for ours in (kind, kobj):
        linux.free(ours)


def test_an_object_needs_a_name(linux: Linux, scratch: int, released: int) -> None:
    kind, kobj = linux.new("kobj_type"), linux.new("kobject")
    kind.release = CODE
    store_bytes(scratch, b"\0")
    assert linux.call_int("kobject_init_and_add", kobj, kind, 0, scratch) < 0
    linux.call("kobject_put", kobj)
    assert load(released, 8) == 1
    for ours in (kind, kobj):
        linux.free(ours)


def test_boot_targets_of_an_iscsi_host(linux: Linux) -> None:
    """Debian's own iscsi_boot_sysfs.ko frees what it was given for a target when the last reference goes."""
    loader = Loader(linux)
    module = loader.load("iscsi_boot_sysfs")
    exports, types = module.linked.exports, types_of(linux, module)
    data = linux.allocate(8)
    release = code(b"\x48\xff\x07")  # incq (%rdi)
    boot = Obj(types, "iscsi_boot_kset", linux.call(exports["iscsi_boot_create_host_kset"], 3))
    assert linux.string(boot.kset.kobj.name) == "iscsi_boot3"
    create = exports["iscsi_boot_create_target"]
    targets = [
        Obj(types, "iscsi_boot_kobj", linux.call(create, boot, number, data, 0, 0, release))
        for number in (0, 5)
    ]
    assert [linux.string(target.kobj.name) for target in targets] == ["target0", "target5"]
    assert all(target.kobj.parent == boot.kset.kobj for target in targets)
    assert load(data, 8) == 0
    linux.call(exports["iscsi_boot_destroy_kset"], boot)
    assert load(data, 8) == 2
    assert loader.unload("iscsi_boot_sysfs") == []
    linux.free(data)
