"""Attributes in sysfs (Linux fs/sysfs, drivers/base/core.c): there is no sysfs here, so nobody can open one.

What a driver offers there is asked of it through the calls that Uplink and the console make, never by file name.
"""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "sysfs.py",
    "No sysfs is mounted: nobody could open the file.",
    "sysfs_create_file_ns", "sysfs_create_files", "sysfs_remove_file_ns", "sysfs_remove_files",
    "sysfs_create_group", "sysfs_create_groups", "sysfs_update_group", "sysfs_update_groups", "sysfs_remove_group",
    "sysfs_remove_groups", "sysfs_merge_group", "sysfs_unmerge_group", "sysfs_add_file_to_group",
    "sysfs_remove_file_from_group", "sysfs_create_bin_file", "sysfs_remove_bin_file", "sysfs_create_link",
    "sysfs_create_link_nowarn", "sysfs_remove_link", "sysfs_rename_link_ns", "sysfs_add_link_to_group",
    "sysfs_remove_link_from_group", "sysfs_notify", "sysfs_chmod_file",
    "device_create_file", "device_remove_file", "device_create_bin_file", "device_remove_bin_file",
    "device_add_groups", "device_remove_groups", "devm_device_add_group", "devm_device_add_groups",
    "class_create_file_ns", "class_remove_file_ns", "sysfs_create_dir_ns",
)  # fmt: skip
no_op(
    "sysfs.py",
    "Nobody listens for uevents; what a new device's modalias asks for is done by device_add.",
    "kobject_uevent", "kobject_uevent_env",
)  # fmt: skip
