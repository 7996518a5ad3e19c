"""Character devices (Linux fs/char_dev.c, fs/fcntl.c): numbers are given out, but no node leads to their files.

A driver's management node is one. There is no user space that could open it; what it offers is reached by calling the
driver (vmkernel_core's own interfaces), never by file name.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import store
from vmklinux.api import linux_api, no_op
from vmklinux.kobject import addressof, zero
from vmklinux.list import list_init

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: Where Linux looks for a free major number, downwards (CHRDEV_MAJOR_DYN_END and what is above it).
_DYNAMIC = range(254, 233, -1)
_MINOR_BITS = 20  # MINORBITS, include/linux/kdev_t.h


@dataclass(frozen=True)
class Region:
    """Device numbers that a driver has: ``count`` of them from ``first`` on (dev_t: major, then 20 bits of minor).

    ``owner`` is a code address of the module that it is in.
    """

    first: int
    count: int
    name: str
    owner: int = field(default_factory=lib.vmk_owner, compare=False)

    def overlaps(self, other: Region) -> bool:
        """Whether any number is in both."""
        return self.first < other.first + other.count and other.first < self.first + self.count


@dataclass
class CharDevices:
    """The regions that were given out, and the struct cdev that cdev_alloc made."""

    linux: Linux
    regions: list[Region] = field(default_factory=list)
    allocated: set[int] = field(default_factory=set)

    def take(self, region: Region) -> int:
        """Give out numbers; 0 or -EBUSY."""
        if any(region.overlaps(other) for other in self.regions):
            return -errno.EBUSY
        self.regions.append(region)
        return 0

    def give_back(self, first: int, count: int) -> None:
        """Take numbers back."""
        self.regions = [r for r in self.regions if (r.first, r.count) != (first, count)]

    def abandon(self, low: int, high: int) -> None:
        """Take back the numbers of a module in [low, high), which does not run again."""
        self.regions = [region for region in self.regions if not low <= region.owner < high]

    def free_major(self) -> int:
        """A major number of which nobody has a part; 0 when there is none."""
        taken = {region.first >> _MINOR_BITS for region in self.regions}
        return next((number for number in _DYNAMIC if number not in taken), 0)


@linux_api()
def alloc_chrdev_region(linux: Linux, dev: int, baseminor: int, count: int, name: int) -> int:
    """Give out device numbers of a major number that is free; 0 or -EBUSY."""
    devices = linux.state(CharDevices)
    major = devices.free_major()
    if not major:
        return -errno.EBUSY
    first = major << _MINOR_BITS | baseminor
    store(dev, 4, first)
    return devices.take(Region(first, count, linux.string(name)))


@linux_api()
def register_chrdev_region(linux: Linux, from_: int, count: int, name: int) -> int:
    """Give out the device numbers that a driver wants; 0 or -EBUSY."""
    return linux.state(CharDevices).take(Region(from_, count, linux.string(name)))


@linux_api()
def unregister_chrdev_region(linux: Linux, from_: int, count: int) -> None:
    """Take them back."""
    linux.state(CharDevices).give_back(from_, count)


@linux_api()
def __register_chrdev(linux: Linux, major: int, baseminor: int, count: int, name: int, fops: Obj) -> int:
    """Give out a major number; 0 when the driver brought its own, else the number, or an errno."""
    devices = linux.state(CharDevices)
    number = major or devices.free_major()
    if not number:
        return -errno.EBUSY
    error = devices.take(Region(number << _MINOR_BITS | baseminor, count, linux.string(name)))
    return error or (0 if major else number)


@linux_api()
def __unregister_chrdev(linux: Linux, major: int, baseminor: int, count: int, name: int) -> None:
    """Take it back."""
    linux.state(CharDevices).give_back(major << _MINOR_BITS | baseminor, count)


@linux_api()
def cdev_init(linux: Linux, cdev: Obj, fops: Obj) -> None:
    """Make a driver's struct cdev usable."""
    zero(cdev)
    list_init(linux, addressof(cdev, "list"))
    cdev.kobj.kref.refcount.refs.counter = 1
    cdev.ops = fops


@linux_api()
def cdev_alloc(linux: Linux) -> int:
    """Allocate a struct cdev; cdev_del frees it."""
    cdev = linux.new("cdev", lib.vmk_owner())
    cdev_init(linux, cdev, cdev)
    cdev.ops = 0
    linux.state(CharDevices).allocated.add(int(cdev))
    return int(cdev)


@linux_api()
def cdev_add(linux: Linux, p: Obj, dev: int, count: int) -> int:
    """Tie files to device numbers, which no node has."""
    p.dev, p.count = dev, count
    return 0


@linux_api()
def cdev_del(linux: Linux, p: Obj) -> None:
    """End that; a name that kobject_set_name gave it goes too."""
    if lib.vmk_alloc_size(p.kobj.name):
        linux.free(p.kobj.name)
        p.kobj.name = 0
    allocated = linux.state(CharDevices).allocated
    if int(p) in allocated:
        allocated.remove(int(p))
        linux.free(p)


no_op("char_dev.py", "No node leads to a driver's file: nobody opened one to be told of.", "fasync_helper")
