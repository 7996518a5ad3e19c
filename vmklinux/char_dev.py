"""Character devices (Linux fs/char_dev.c, fs/fcntl.c): numbers are given out, but no node leads to their files."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: Where Linux looks for a free major number, downwards (CHRDEV_MAJOR_DYN_END and what is above it).
_DYNAMIC = range(254, 233, -1)


@dataclass
class CharDevices:
    """The names that drivers gave their major numbers."""

    linux: Linux
    majors: dict[int, str] = field(default_factory=dict)


@linux_api()
def __register_chrdev(linux: Linux, major: int, baseminor: int, count: int, name: int, fops: Obj) -> int:
    """Give out a major number; 0 when the driver brought its own, else the number, or an errno."""
    majors = linux.state(CharDevices).majors
    number = major or next((n for n in _DYNAMIC if n not in majors), 0)
    if not number or number in majors:
        return -errno.EBUSY
    majors[number] = linux.string(name)
    return 0 if major else number


@linux_api()
def __unregister_chrdev(linux: Linux, major: int, baseminor: int, count: int, name: int) -> None:
    """Take it back."""
    linux.state(CharDevices).majors.pop(major, None)


no_op("char_dev.py", "No node leads to a driver's file: nobody opened one to be told of.", "fasync_helper")
