"""Lists of devices that need to be treated in their own way (Linux drivers/scsi/scsi_devinfo.c).

Deviation: the mid-layer's own list, of devices of the 1990s, is empty; transports bring theirs.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core.memory import load_bytes
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

_VENDOR, _MODEL = 8, 16  # bytes of INQUIRY data


@dataclass
class DeviceLists:
    """For each list (its key) its entries: beginnings of vendor and model, and flags."""

    linux: Linux
    lists: dict[int, list[tuple[bytes, bytes, int]]] = field(default_factory=dict)


@linux_api()
def scsi_dev_info_add_list(linux: Linux, key: int, name: int) -> int:
    """Make a list; -EEXIST when there is one with that key."""
    lists = linux.state(DeviceLists).lists
    if key in lists:
        return -errno.EEXIST
    lists[key] = []
    return 0


@linux_api()
def scsi_dev_info_remove_list(linux: Linux, key: int) -> int:
    """Forget a list; -EINVAL when there is none with that key."""
    return 0 if linux.state(DeviceLists).lists.pop(key, None) is not None else -errno.EINVAL


@linux_api()
def scsi_dev_info_list_add_keyed(
    linux: Linux, compatible: int, vendor: int, model: int, strflags: int, flags: int, key: int
) -> int:
    """Put a device on a list: the beginnings of its vendor and model names, and its flags."""
    lists = linux.state(DeviceLists).lists
    if key not in lists:
        return -errno.EINVAL
    number = int(linux.string(strflags), 0) if strflags else flags
    names = [linux.string(text).encode()[:most] for text, most in ((vendor, _VENDOR), (model, _MODEL))]
    lists[key].append((names[0].rstrip(), names[1].rstrip(), number))
    return 0


@linux_api()
def scsi_get_device_flags_keyed(linux: Linux, sdev: Obj, vendor: int, model: int, key: int) -> int:
    """The flags of a device on a list; those that it has anyhow when it is not there."""
    its_vendor, its_model = load_bytes(vendor, _VENDOR).lstrip(), load_bytes(model, _MODEL).lstrip()
    if not key and sdev.sdev_bflags:
        return int(sdev.sdev_bflags)
    for listed_vendor, listed_model, flags in linux.state(DeviceLists).lists.get(key, ()):
        if its_vendor.startswith(listed_vendor) and its_model.startswith(listed_model):
            return flags
    return 0
