"""debugfs (Linux fs/debugfs): as in a kernel that was built without it, drivers get -ENODEV and go on."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

NOT_THERE = "Gives -ENODEV, as without CONFIG_DEBUG_FS; drivers have to cope with that."


@linux_api("debugfs_create_file_unsafe", note=NOT_THERE)
def debugfs_create_file(linux: Linux, name: int, mode: int, parent: Obj, data: int, fops: Obj) -> int:
    """Refuse a file."""
    return -errno.ENODEV


@linux_api(note=NOT_THERE)
def debugfs_create_dir(linux: Linux, name: int, parent: Obj) -> int:
    """Refuse a directory."""
    return -errno.ENODEV


@linux_api(note=NOT_THERE)
def debugfs_rename(linux: Linux, old_dir: Obj, old_dentry: Obj, new_dir: Obj, new_name: int) -> int:
    """Refuse another name."""
    return -errno.ENODEV


no_op(
    "debugfs.py",
    "There is no debugfs, so there is nothing to make, to look up or to take away.",
    "debugfs_remove", "debugfs_lookup", "debugfs_lookup_and_remove", "debugfs_create_u8", "debugfs_create_u16",
    "debugfs_create_u32", "debugfs_create_u64", "debugfs_create_x8", "debugfs_create_x16", "debugfs_create_x32",
    "debugfs_create_x64", "debugfs_create_ulong", "debugfs_create_bool", "debugfs_create_atomic_t",
    "debugfs_create_size_t", "debugfs_create_str", "debugfs_create_regset32", "debugfs_create_u32_array",
    "debugfs_create_blob", "debugfs_create_devm_seqfile", "debugfs_initialized", "debugfs_create_file_size",
)  # fmt: skip
no_op(
    "debugfs.py",
    "Reached only through an open file of debugfs: there are none.",
    "debugfs_attr_read",
    "debugfs_attr_write",
)
