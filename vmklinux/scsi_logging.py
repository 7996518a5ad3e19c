"""Messages about SCSI devices and commands (Linux drivers/scsi/scsi_logging.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.memory import load_bytes
from vmklinux.api import linux_api
from vmklinux.kobject import addressof
from vmklinux.printk import log, split_level

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux, VaList


def _log(linux: Linux, sdev: Obj, level: int, name: str, message: str) -> None:
    number, _ = split_level(linux.string(level))
    where = linux.string(sdev.sdev_gendev.kobj.name) if sdev else "(no device)"
    log.getChild("scsi").log(number, "%s: %s%s", where, f"[{name}] " if name else "", message.rstrip())


@linux_api()
def sdev_prefix_printk(linux: Linux, level: int, sdev: Obj, name: int, fmt: int, arguments: VaList) -> None:
    """Log a message about a device."""
    _log(linux, sdev, level, linux.string(name), linux.format(fmt, arguments))


@linux_api()
def scmd_printk(linux: Linux, level: int, scmd: Obj, fmt: int, arguments: VaList) -> None:
    """Log a message about a command."""
    _log(linux, scmd.device, level, "", linux.format(fmt, arguments))


@linux_api()
def scsi_print_command(linux: Linux, cmd: Obj) -> None:
    """Log a command's CDB."""
    cdb = load_bytes(addressof(cmd, "cmnd"), cmd.cmd_len)
    name = linux.string(cmd.device.sdev_gendev.kobj.name)
    log.getChild("scsi").info("%s: CDB %s", name, cdb.hex(" "))
