"""Messages about SCSI devices and commands (Linux drivers/scsi/scsi_logging.c)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmkernel_core.memory import load_bytes, store_bytes
from vmkernel_core.storage.errors import Sense
from vmklinux.api import linux_api
from vmklinux.kobject import addressof
from vmklinux.printk import log, split_level

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux, VaList


def _log(linux: Linux, sdev: Obj, number: int, name: str, message: str) -> None:
    where = linux.string(sdev.sdev_gendev.kobj.name) if sdev else "(no device)"
    log.getChild("scsi").log(number, "%s: %s%s", where, f"[{name}] " if name else "", message.rstrip())


@linux_api()
def sdev_prefix_printk(linux: Linux, level: int, sdev: Obj, name: int, fmt: int, arguments: VaList) -> None:
    """Log a message about a device."""
    _log(linux, sdev, split_level(linux.string(level))[0], linux.string(name), linux.format(fmt, arguments))


@linux_api()
def scmd_printk(linux: Linux, level: int, scmd: Obj, fmt: int, arguments: VaList) -> None:
    """Log a message about a command."""
    _log(linux, scmd.device, split_level(linux.string(level))[0], "", linux.format(fmt, arguments))


@linux_api()
def scsi_print_sense_hdr(linux: Linux, sdev: Obj, name: int, sshdr: Obj) -> None:
    """Log what sense data say, of which the caller has the header."""
    told = Sense(sshdr.sense_key & 0xF, sshdr.asc, sshdr.ascq) if sshdr.response_code & 0x70 == 0x70 else None
    _log(linux, sdev, logging.INFO, linux.string(name) if name else "", str(told or "no sense data"))


@linux_api()
def scsi_print_command(linux: Linux, cmd: Obj) -> None:
    """Log a command's CDB."""
    cdb = load_bytes(addressof(cmd, "cmnd"), cmd.cmd_len)
    name = linux.string(cmd.device.sdev_gendev.kobj.name)
    log.getChild("scsi").info("%s: CDB %s", name, cdb.hex(" "))


@linux_api(note="Operation codes have no names here.")
def __scsi_format_command(linux: Linux, logbuf: int, logbuf_len: int, cdb: int, cdb_len: int) -> int:
    """Write a CDB as text into the caller's buffer; how long it is."""
    code = load_bytes(cdb, 1)[0]
    size = min((6, 10, 10, 12, 16, 12, 10, 10)[code >> 5], cdb_len)  # COMMAND_SIZE, by the group code
    text = f"opcode={code:#x} {load_bytes(cdb, size).hex(' ')}".encode()[: max(logbuf_len - 1, 0)]
    if logbuf_len:
        store_bytes(logbuf, text + b"\0")
    return len(text)
