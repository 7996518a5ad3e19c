"""Numbers of generic netlink families, on both kernels: what is given out is checked against what is out already."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core.memory import store_bytes
from vmklinux.kobject import Obj, addressof

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def family(linux: Linux, name: bytes, groups: int) -> Obj:
    made = linux.new("genl_family")
    store_bytes(addressof(made, "name"), name)
    made.n_mcgrps = groups
    return made


def test_families_get_numbers_of_their_own(linux: Linux) -> None:
    one, two, again = (family(linux, name, 3) for name in (b"one", b"two", b"one"))
    register, unregister = linux.entry("genl_register_family"), linux.entry("genl_unregister_family")
    assert linux.call_int(register, one) == linux.call_int(register, two) == 0
    assert one.id != two.id
    assert two.mcgrp_offset >= one.mcgrp_offset + 3
    assert linux.call_int(register, again) == -errno.EEXIST
    assert linux.call_int(unregister, one) == 0
    assert linux.call_int(unregister, one) == -errno.ENOENT
    assert linux.call_int(register, again) == 0
    for each in (two, again):
        assert linux.call_int(unregister, each) == 0
    for each in (one, two, again):
        linux.free(each)
