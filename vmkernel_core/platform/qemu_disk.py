"""Disks of a QEMU machine: from ``FILE[,option=value…]`` to what QEMU's ``-drive`` and ``-device`` take."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Options that say how QEMU serves the file (``-drive``), and beginnings of such; others are the disk's own properties.
DRIVE_OPTIONS: Final = frozenset(
    {"aio", "cache", "detect-zeroes", "discard", "format", "readonly", "rerror", "snapshot", "werror"}
)
DRIVE_GROUPS: Final = ("cache.", "file.", "throttling.")
#: Disks that have a world wide name, and that of the first one that is given none: a locally assigned one (NAA 3,
#: SPC-4, 7.8.6.5). QEMU's SAS controllers do not show a disk without.
NAMED: Final = frozenset({"ide-cd", "ide-hd", "scsi-cd", "scsi-hd"})
FIRST_NAME: Final = 0x3000_0000_0000_0001
#: The disk that is made of a file unless its option ``type`` names another of QEMU's devices.
DISK: Final = "scsi-hd"


def disk_arguments(disks: Sequence[str]) -> Iterator[str]:
    """QEMU's arguments for disks, each ``FILE[,option=value…]`` (a comma in a value is doubled); UsageError.

    They go behind the controllers': without an option ``bus`` a disk hangs at the last that has room. Disk N has the
    id ``diskN`` and a world wide name of its own, unless options say others. The format is raw unless one says
    otherwise: QEMU does not guess.
    """
    for number, disk in enumerate(disks):
        file, *options = re.split(r"(?<!,),(?!,)", disk)
        settings = dict(_setting(option, disk) for option in options)
        _exists(file.replace(",,", ","), disk)
        drive = {"id": f"disk{number}", "format": "raw", "file": file} | {
            key: settings.pop(key) for key in list(settings) if _is_drives(key)
        }
        kind = settings.pop("type", DISK)
        yield from ("-drive", f"if=none,{_joined(drive)}")
        device = {"id": drive["id"], "drive": drive["id"]}
        if kind in NAMED:
            device["wwn"] = f"{FIRST_NAME + number:#x}"
        yield from ("-device", f"{kind},{_joined(device | settings)}")


def _is_drives(key: str) -> bool:
    return key in DRIVE_OPTIONS or key.startswith(DRIVE_GROUPS)


def _joined(settings: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in settings.items())


def _setting(option: str, disk: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not (key and equals) or key == "drive":
        raise UsageError(
            f"{option!r} is no option of a disk",
            where=disk,
            remedy="give FILE,option=value, such as disk.raw,format=raw,serial=0815",
        )
    return key, value


def _exists(file: str, disk: str) -> None:
    # With "NAME:" it is one of QEMU's protocols: null-co://, nbd:…
    if not re.match(r"[a-z0-9+-]+:", file) and not os.path.exists(file):
        raise UsageError(
            f"there is no file {file!r}",
            where=f"disk {disk}" if disk != file else "",
            remedy=f"make one: qemu-img create -f raw {file} 64M",
        )
