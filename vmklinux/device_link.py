"""Links between devices: one needs another (Linux drivers/base/core.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


class DeviceLinks:
    """The links that are noted: consumer and supplier, by the link's address."""

    def __init__(self, linux: Linux) -> None:
        """There is none."""
        self.ends: dict[int, tuple[int, int]] = {}


@linux_api(partial="The link is only noted: it orders neither suspend nor the removal of the supplier.")
def device_link_add(linux: Linux, consumer: Obj, supplier: Obj, flags: int) -> int:
    """Note that a device needs another."""
    link = linux.new("device_link", lib.vmk_owner())
    link.consumer, link.supplier, link.flags = consumer, supplier, flags
    linux.state(DeviceLinks).ends[int(link)] = (int(consumer), int(supplier))
    return int(link)


@linux_api()
def device_link_del(linux: Linux, link: Obj) -> None:
    """Forget that a device needs another."""
    linux.state(DeviceLinks).ends.pop(int(link), None)
    linux.free(link)


@linux_api()
def device_link_remove(linux: Linux, consumer: int, supplier: Obj) -> None:
    """The same, by the two devices: the link that was made last goes."""
    ends = linux.state(DeviceLinks).ends
    for link in reversed(ends):
        if ends[link] == (consumer, int(supplier)):
            del ends[link]
            linux.free(link)
            return
