"""Miscellaneous character devices (Linux drivers/char/misc.c): minor numbers are given out, but no node leads there."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

_DYNAMIC = 255  # MISC_DYNAMIC_MINOR, include/linux/miscdevice.h


@dataclass
class MiscDevices:
    """The names that drivers gave their minor numbers."""

    linux: Linux
    minors: dict[int, str] = field(default_factory=dict)


@linux_api()
def misc_register(linux: Linux, misc: Obj) -> int:
    """Give out a minor number; 0, or -EBUSY when the driver wants one that is taken."""
    minors = linux.state(MiscDevices).minors
    if misc.minor == _DYNAMIC:
        misc.minor = next(number for number in range(256, 1 << 20) if number not in minors)
    elif misc.minor in minors:
        return -errno.EBUSY
    minors[misc.minor] = linux.string(misc.name)
    return 0


@linux_api()
def misc_deregister(linux: Linux, misc: Obj) -> None:
    """Take it back."""
    linux.state(MiscDevices).minors.pop(misc.minor, None)
