"""The firmware loader (Linux drivers/base/firmware_loader): files from the directories a host's own firmware lies in."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import store, store_bytes
from vmklinux.api import linux_api
from vmklinux.device import get_device, put_device
from vmklinux.kmod import module_put, try_module_get
from vmklinux.kobject import Obj
from vmklinux.workqueue import Workqueues

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
    firmware = _load(linux, linux.string(name), device, lib.vmk_owner())
    if not firmware:
        return -errno.ENOENT
    store(firmware_p, 8, firmware)
    return 0


def _load(linux: Linux, wanted: str, device: Obj, owner: int) -> int:
    """A struct firmware in memory of the owner's, null when there is no such file."""
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
        return 0
    firmware = linux.new("firmware", owner)
    data = linux.allocate(len(content), owner)
    store_bytes(data, content)
    firmware.size = len(content)
    firmware.data = data
    return int(firmware)


@dataclass(frozen=True)
class _Wanted:
    """What request_firmware_nowait is to load, and whom it is to tell."""

    module: Obj
    name: str
    device: Obj
    context: int
    cont: int


class Awaited:
    """Firmware files that will be loaded, by the address of the work item that does it."""

    def __init__(self, linux: Linux) -> None:
        """None yet."""
        self.by_work: dict[int, _Wanted] = {}


@linux_api()
def request_firmware_nowait(
    linux: Linux, module: Obj, uevent: bool, name: int, device: Obj, gfp: int, context: int, cont: int
) -> int:
    """Load a firmware file later, in a world that may sleep, and call back; the module stays until then."""
    if not try_module_get(linux, module):
        return -errno.EFAULT
    get_device(linux, device)
    work = linux.new("work_struct")
    work.func = linux.entry("request_firmware_work_func")
    linux.state(Awaited).by_work[int(work)] = _Wanted(module, linux.string(name), device, context, cont)
    linux.state(Workqueues).queue(0, work)
    return 0


@linux_api()
def request_firmware_work_func(linux: Linux, work: Obj) -> None:
    """Do what request_firmware_nowait put off."""
    wanted = linux.state(Awaited).by_work.pop(int(work))
    linux.free(work)
    try:
        linux.call(wanted.cont, _load(linux, wanted.name, wanted.device, wanted.cont), wanted.context)
    finally:
        put_device(linux, wanted.device)
        module_put(linux, wanted.module)


@linux_api()
def release_firmware(linux: Linux, fw: Obj) -> None:
    """Free a firmware file's memory."""
    if fw:
        linux.free(fw.data)
        linux.free(fw)
