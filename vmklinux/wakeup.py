"""Which devices may wake the machine up (Linux drivers/base/power/wakeup.c): capable by hardware, enabled by choice."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


class Wakeups:
    """The wakeup_source of every device for which waking up is enabled; drivers look at the pointer to it."""

    def __init__(self, linux: Linux) -> None:
        """None is enabled."""
        self._linux = linux
        self._sources: dict[int, Obj] = {}

    def enable(self, dev: Obj) -> None:
        """Let the device wake the machine up."""
        if int(dev) not in self._sources:
            source = self._sources[int(dev)] = self._linux.new("wakeup_source")
            source.dev, dev.power.wakeup = dev, source

    def forget(self, dev: int) -> None:
        """The device goes, or may wake nobody any more; its pointer is the caller's to clear."""
        if source := self._sources.pop(dev, None):
            self._linux.free(source)


@linux_api()
def device_set_wakeup_capable(linux: Linux, dev: Obj, capable: bool) -> None:
    """Note whether the device can wake the machine up."""
    dev.power.can_wakeup = capable


@linux_api()
def device_wakeup_enable(linux: Linux, dev: Obj) -> int:
    """Let a capable device wake the machine up; -EINVAL for another."""
    if not dev or not dev.power.can_wakeup:
        return -errno.EINVAL
    linux.state(Wakeups).enable(dev)
    return 0


@linux_api()
def device_wakeup_disable(linux: Linux, dev: Obj) -> int:
    """The device may not wake the machine up."""
    if not dev or not dev.power.can_wakeup:
        return -errno.EINVAL
    dev.power.wakeup = 0
    linux.state(Wakeups).forget(int(dev))
    return 0


@linux_api()
def device_set_wakeup_enable(linux: Linux, dev: Obj, enable: bool) -> int:
    """Choose whether the device may wake the machine up."""
    return device_wakeup_enable(linux, dev) if enable else device_wakeup_disable(linux, dev)


no_op(
    "wakeup.py",
    "The machine does not sleep as a whole, so no event has to keep it awake.",
    "pm_wakeup_dev_event",
)
