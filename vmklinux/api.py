"""How a function of the emulated Linux API is declared: once, at its implementation, with what deviates from Linux.

A function written in Python stands in the file named after its subsystem and carries ``@linux_api``; its
parameters after the first follow the kernel's own prototype (BTF): a pointer to a struct arrives as a typed
``Obj``, everything else as int. Those in C stand in tables of ``struct linux_api`` (linux.h).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from vmkernel_core._core import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

Status: TypeAlias = Literal["done", "partial", "no-op"]
Handler = TypeVar("Handler", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Emulated:
    """One function of Linux's that is served here.

    ``note`` says what is missing (partial), why it may do nothing (no-op), or what else deviates from Linux.
    ``handler`` is None for one in C, whose address is ``c_function``. A ``variable`` is a pointer that modules read;
    its handler tells what it holds.
    """

    name: str
    status: Status
    summary: str
    note: str
    where: str
    handler: Callable[..., Any] | None = None
    c_function: Any = None
    variable: bool = False


#: The files that declare functions of the emulated API, by their names below vmklinux.
SUBSYSTEMS = (
    "acpi",
    "async_",
    "blk_mq",
    "bsg",
    "bus",
    "char_dev",
    "class_",
    "clk",
    "cpu",
    "dd",
    "debugfs",
    "device",
    "device_link",
    "devlink",
    "devres",
    "dma",
    "dmi",
    "driver",
    "ethtool_netlink",
    "firmware",
    "freezer",
    "genetlink",
    "gpiolib",
    "hosts",
    "hrtimer",
    "hwmon",
    "i2c",
    "ioremap",
    "irq",
    "kallsyms",
    "kmod",
    "kthread",
    "leds",
    "link_watch",
    "memory",
    "misc",
    "msi",
    "mtrr",
    "netdev_alloc",
    "netdev_notifier",
    "netdev_state",
    "netdev_upper",
    "netdevice",
    "netlink",
    "nvme_fc",
    "nvmet_fc",
    "pci",
    "pci_access",
    "pci_hotplug",
    "pci_managed",
    "pci_regions",
    "pci_reset",
    "pci_rom",
    "pci_search",
    "pci_state",
    "pcie_aspm",
    "platform",
    "printk",
    "proc_fs",
    "ptp",
    "qos",
    "random",
    "rcu",
    "reboot",
    "resource",
    "route",
    "rtnl",
    "scsi",
    "scsi_devinfo",
    "scsi_eh",
    "scsi_dh",
    "scsi_error",
    "scsi_ioctl",
    "scsi_lib",
    "scsi_logging",
    "scsi_netlink",
    "scsi_scan",
    "scsi_sysfs",
    "security",
    "seq_file",
    "show_mem",
    "signal",
    "smp",
    "sysfs",
    "timer",
    "trace",
    "uaccess",
    "vmap",
    "wakeup",
    "watchdog",
    "workqueue",
    "xdp",
    "xfrm",
)

_declared: dict[str, Emulated] = {}


def _declare(entry: Emulated) -> None:
    if entry.name in _declared:
        raise ValueError(f"{entry.name} is declared twice: {_declared[entry.name].where} and {entry.where}")
    _declared[entry.name] = entry


def linux_api(
    *aliases: str, partial: str = "", note: str = "", named: bool = True
) -> Callable[[Handler], Handler]:
    """Declare the decorated function as Linux's of the same name, and of each alias (with the same prototype).

    ``partial`` says what is missing, ``note`` what else deviates. ``named=False``: only the aliases.
    """

    def declare(handler: Handler) -> Handler:
        summary = (inspect.getdoc(handler) or "").partition("\n")[0]
        where = handler.__module__.rpartition(".")[2] + ".py"
        for name in (handler.__name__, *aliases) if named else aliases:
            status: Status = "partial" if partial else "done"
            _declare(Emulated(name, status, summary, partial or note, where, handler))
        return handler

    return declare


def linux_variable() -> Callable[[Handler], Handler]:
    """Declare a pointer of Linux's that modules import, of the name of the decorated function.

    That function takes the kernel alone and gives the pointer's value; it is asked once, when a module first imports it.
    """

    def declare(handler: Handler) -> Handler:
        summary = (inspect.getdoc(handler) or "").partition("\n")[0]
        where = handler.__module__.rpartition(".")[2] + ".py"
        _declare(Emulated(handler.__name__, "done", summary, "", where, handler, variable=True))
        return handler

    return declare


def no_op(where: str, reason: str, *names: str) -> None:
    """Declare functions that may do nothing and return 0 here, for the reason given."""
    for name in names:
        _declare(Emulated(name, "no-op", "Does nothing and returns 0.", reason, where, c_function=ffi.NULL))


def emulated() -> dict[str, Emulated]:
    """Every function that vmklinux serves, by name: all subsystem files are imported for that."""
    for subsystem in SUBSYSTEMS:
        import_module(f"vmklinux.{subsystem}")
    if "kfree" not in _declared:
        index = 0
        while (entry := lib.linux_api_c(index)) != ffi.NULL:
            note = ffi.string(entry.note).decode() if entry.note != ffi.NULL else ""
            name, status, summary, where = (
                ffi.string(text).decode() for text in (entry.name, entry.status, entry.summary, entry.where)
            )
            _declare(
                Emulated(name, status, summary, note, where.rpartition("/")[2], c_function=entry.function)
            )
            index += 1
    return _declared
