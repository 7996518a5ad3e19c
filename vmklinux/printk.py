"""Messages of the kernel and of drivers, handed to Python's logging (Linux kernel/printk, drivers/base/core.c).

The logger is ``linux.`` and the name of the device's driver, or ``linux`` for what belongs to none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import VmkError
from vmklinux.api import linux_api, no_op
from vmklinux.dd import EPROBE_DEFER
from vmklinux.device import driver_name

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux, VaList

log = logging.getLogger("linux")

#: KERN_EMERG ... KERN_DEBUG (include/linux/kern_levels.h) in logging's terms.
LEVELS = (logging.CRITICAL, logging.CRITICAL, logging.CRITICAL, logging.ERROR, logging.WARNING,
          logging.INFO, logging.INFO, logging.DEBUG)  # fmt: skip
_SOH = "\x01"


def split_level(text: str, default: int = logging.INFO) -> tuple[int, str]:
    """Level and message of a text that may begin with KERN_SOH and a level."""
    if text.startswith(_SOH) and len(text) > 1:
        digit = text[1]
        return (LEVELS[int(digit)] if digit.isdigit() and int(digit) < 8 else default), text[2:].rstrip()
    return default, text.rstrip()


def _device_log(linux: Linux, device: Obj, name: str, level: int, message: str) -> None:
    driver = driver_name(linux, device) if device else ""
    where = linux.string(device.kobj.name) if device else "(no device)"
    prefix = f"{where} {name}: " if name else f"{where}: "
    (log.getChild(driver) if driver else log).log(level, "%s%s", prefix, message)


@linux_api()
def _printk(linux: Linux, fmt: int, arguments: VaList) -> int:
    """Log a message at the level that it begins with."""
    level, message = split_level(linux.format(fmt, arguments))
    log.log(level, "%s", message)
    return len(message)


@linux_api()
def vprintk(linux: Linux, fmt: int, args: int) -> int:
    """Log a message whose arguments come as a va_list."""
    level, message = split_level(linux.vformat(fmt, args))
    log.log(level, "%s", message)
    return len(message)


@linux_api(partial="The stack is not unwound: the module that asked is named.")
def dump_stack(linux: Linux) -> None:
    """Log where the kernel is."""
    log.warning("a stack trace was asked for by %s", linux.symbolize(lib.vmk_owner()))


@linux_api()
def panic(linux: Linux, fmt: int, arguments: VaList) -> None:
    """Stop the driver that cannot go on."""
    raise VmkError(f"kernel panic: {linux.format(fmt, arguments).rstrip()}", remedy="load the module again")


@linux_api()
def __warn_printk(linux: Linux, fmt: int, arguments: VaList) -> None:
    """Log the message of a WARN; the WARN itself is reported by its trap."""
    log.warning("%s", split_level(linux.format(fmt, arguments))[1])


@linux_api()
def _dev_printk(linux: Linux, level: int, dev: Obj, fmt: int, arguments: VaList) -> None:
    """Log a device's message at the level that ``level``, a string, begins with."""
    _device_log(linux, dev, "", split_level(linux.string(level))[0], linux.format(fmt, arguments).rstrip())


@linux_api()
def netdev_printk(linux: Linux, level: int, dev: Obj, fmt: int, arguments: VaList) -> None:
    """Log a net device's message at the level that ``level``, a string, begins with."""
    message = linux.format(fmt, arguments).rstrip()
    _device_log(linux, dev.dev.parent, dev.name.text(), split_level(linux.string(level))[0], message)


def _log_probe(linux: Linux, dev: Obj, err: int, level: int, message: str) -> int:
    later = err == -EPROBE_DEFER
    text = f"error {-err}: {split_level(message)[1]}"
    _device_log(linux, dev, "", logging.DEBUG if later else level, text)
    return err


@linux_api()
def dev_err_probe(linux: Linux, dev: Obj, err: int, fmt: int, arguments: VaList) -> int:
    """Log why a probe failed, and return the error."""
    return _log_probe(linux, dev, err, logging.ERROR, linux.format(fmt, arguments))


@linux_api()
def dev_warn_probe(linux: Linux, dev: Obj, err: int, fmt: int, arguments: VaList) -> int:
    """Log what a probe has to do without, and return the error."""
    return _log_probe(linux, dev, err, logging.WARNING, linux.format(fmt, arguments))


def _device_printer(name: str, level: int) -> None:
    def printer(linux: Linux, device: Obj, fmt: int, arguments: VaList) -> None:
        _device_log(linux, device, "", level, split_level(linux.format(fmt, arguments))[1])

    printer.__doc__ = f"Log a device's message as {logging.getLevelName(level)}."
    printer.__name__ = name
    linux_api()(printer)


def _netdev_printer(name: str, level: int) -> None:
    def printer(linux: Linux, netdev: Obj, fmt: int, arguments: VaList) -> None:
        message = split_level(linux.format(fmt, arguments))[1]
        _device_log(linux, netdev.dev.parent, netdev.name.text(), level, message)

    printer.__doc__ = f"Log a net device's message as {logging.getLevelName(level)}."
    printer.__name__ = name
    linux_api()(printer)


for _suffix, _level in (
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("warn", 4),
    ("notice", 5),
    ("info", 6),
):
    _device_printer(f"_dev_{_suffix}", LEVELS[_level])
    _netdev_printer(f"netdev_{_suffix}", LEVELS[_level])

no_op(
    "printk.py",
    "Dynamic debug messages are off until somebody turns them on, as in Linux.",
    "__dynamic_netdev_dbg", "__dynamic_dev_dbg", "__dynamic_pr_debug", "__dynamic_ibdev_dbg",
)  # fmt: skip
