"""The firmware loader (Linux drivers/base/firmware_loader): files from the directories a host's own firmware lies in."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import store, store_bytes
from vmklinux.api import linux_api
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

#: Where firmware files are looked for, in this order (Linux's own order, without the kernel's release).
DIRECTORIES = (Path("/lib/firmware/updates"), Path("/lib/firmware"))


def find_firmware(name: str) -> bytes | None:
    """The content of a firmware file, or None; VMK_FIRMWARE names a directory that is looked in first.

    A name that leads out of its directory is refused.
    """
    own = os.environ.get("VMK_FIRMWARE")
    for directory in ((Path(own),) if own else ()) + DIRECTORIES:
        path = directory / name
        if path.is_file() and directory.resolve() in path.resolve().parents:
            return path.read_bytes()
    return None


class MissingFirmware:
    """Firmware files that drivers asked for in vain, by the address of the device."""

    def __init__(self, linux: Linux) -> None:
        """None yet."""
        self.names: dict[int, str] = {}

    def remedy(self, device: Obj) -> str:
        """What would help a driver that fails for want of firmware; "" when nothing was missing."""
        name = self.names.get(int(device))
        return (
            f"it asked for firmware {name}: put that below a directory that VMK_FIRMWARE names"
            if name
            else ""
        )


@linux_api("firmware_request_nowarn", "request_firmware_direct")
def request_firmware(linux: Linux, firmware_p: int, name: int, device: Obj) -> int:
    """Load a firmware file into memory of the driver's."""
    wanted = linux.string(name)
    content = find_firmware(wanted)
    missing = linux.state(MissingFirmware).names
    missing.pop(int(device), None)
    if content is None:
        missing[int(device)] = wanted
        log.warning(
            "firmware %s is not in %s, nor where VMK_FIRMWARE says",
            wanted,
            " or ".join(map(str, DIRECTORIES)),
        )
        return -errno.ENOENT
    firmware = linux.new("firmware", lib.vmk_owner())
    data = linux.allocate(len(content), lib.vmk_owner())
    store_bytes(data, content)
    firmware.size = len(content)
    firmware.data = data
    store(firmware_p, 8, int(firmware))
    return 0


@linux_api()
def release_firmware(linux: Linux, fw: Obj) -> None:
    """Free a firmware file's memory."""
    if fw:
        linux.free(fw.data)
        linux.free(fw)
