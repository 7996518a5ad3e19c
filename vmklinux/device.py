"""The device model, as far as drivers look at it (Linux drivers/base)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def list_init(linux: Linux, address: int) -> None:
    """INIT_LIST_HEAD: an empty list refers to itself."""
    head = Obj(linux.types, "list_head", address)
    head.next = head.prev = address


def list_add_tail(linux: Linux, entry: int, head: int) -> None:
    """Put an entry at the end of a list."""
    new, first = Obj(linux.types, "list_head", entry), Obj(linux.types, "list_head", head)
    new.prev, new.next = first.prev, head
    Obj(linux.types, "list_head", first.prev).next = entry
    first.prev = entry


def list_del(linux: Linux, address: int) -> None:
    """list_del_init: the entry leaves its list and becomes an empty one."""
    entry = Obj(linux.types, "list_head", address)
    entry.prev.next, entry.next.prev = entry.next, entry.prev
    list_init(linux, address)


def driver_name(linux: Linux, device: Obj) -> str:
    """The name of the driver bound to a device, "" without one."""
    driver = device.driver
    return linux.string(driver.name) if driver else ""


@linux_api()
def dev_driver_string(linux: Linux, device: Obj) -> int:
    """The driver's name, else the bus's; for messages."""
    if device.driver:
        return int(device.driver.name)
    return int(device.bus.name) if device.bus else linux.state(Strings).empty


class Strings:
    """C strings that live as long as the kernel."""

    def __init__(self, linux: Linux) -> None:
        """Make them."""
        self.empty = linux.new_string("")


no_op(
    "device.py",
    "No power management core runs: a device is awake while its driver is bound.",
    "pm_runtime_enable", "__pm_runtime_disable", "__pm_runtime_resume", "__pm_runtime_suspend", "__pm_runtime_idle",
    "pm_runtime_allow", "pm_runtime_forbid", "__pm_runtime_set_status",
)  # fmt: skip
