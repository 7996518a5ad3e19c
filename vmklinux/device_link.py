"""Links between devices: one needs another (Linux drivers/base/core.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api(partial="The link is only noted: it orders neither suspend nor the removal of the supplier.")
def device_link_add(linux: Linux, consumer: Obj, supplier: Obj, flags: int) -> int:
    """Note that a device needs another."""
    link = linux.new("device_link", lib.vmk_owner())
    link.consumer, link.supplier, link.flags = consumer, supplier, flags
    return int(link)


@linux_api()
def device_link_del(linux: Linux, link: Obj) -> None:
    """Forget that a device needs another."""
    linux.free(link)
