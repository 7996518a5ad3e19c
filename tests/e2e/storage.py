"""Storage controllers of QEMU's with a disk each, for the end-to-end tests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from vmkernel_core import memory
from vmkernel_core.boot import VMkernel
from vmkernel_core.engine import Leak
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import HostStatus
from vmkernel_core.storage.device import Request, StorageDevice
from vmklinux.kobject import Obj
from vmklinux.linux import Linux

#: Seconds until what was to come has failed to come; mptsas shows its disk some time after its probe.
LIMIT = 30.0
#: A block in the middle of the disk, and Linux's error numbers as QEMU's disks tell them: 61 is an unrecovered read
#: error, 5 an I/O error of the host's, 28 that no space is left.
BAD, ENODATA, EIO, ENOSPC = 1000, 61, 5, 28
#: Bytes of a disk.
SIZE = 8 << 20
#: The disk's world wide name, and the name that it gets by it.
WWN = 0x5000C50015EA71AC
NAA = "naa.5000c50015ea71ac"


@dataclass(frozen=True)
class Controller:
    """A controller as QEMU's ``-device`` takes it, Debian's module for it, and where its disk appears."""

    device: str
    driver: str
    path: str
    wwn: bool = True  # whether the disk's identification reaches this side
    disk: str = "scsi-hd"  # QEMU's disk for it
    vendor: str = "QEMU"  # what the disk says
    reset: Literal["reset", "rescan", ""] = (
        "reset"  # what of the adapter's has the driver reset it; "": nothing
    )
    kept: str = ""  # the function that takes memory which the driver never gives back, in Linux either
    native: str = ""  # the driver in Python that serves it, too

    def platform(self, drive: str, *arguments: str) -> QemuPlatform:
        """QEMU with the controller and a disk on ``drive``, a ``-drive`` or ``-blockdev`` of the arguments."""
        disk = f"{self.disk},id=disk,drive={drive},bus=hba.0,wwn={WWN:#x},serial=0815"
        return QemuPlatform([f"{self.device},id=hba", disk], arguments=list(arguments))


CONTROLLERS = {
    "megasas": Controller("megasas", "megaraid_sas", "vmhba0:C2:T0:L0", wwn=False, native="megaraid_sas"),
    "megasas-gen2": Controller(
        "megasas-gen2", "megaraid_sas", "vmhba0:C2:T0:L0", wwn=False, native="megaraid_sas"
    ),
    "mptsas1068": Controller("mptsas1068", "mptsas", "vmhba0:C0:T0:L0", native="mptscsi_2xx"),
    "lsi53c895a": Controller("lsi53c895a", "sym53c8xx", "vmhba0:C0:T0:L0"),
    "lsi53c810": Controller("lsi53c810", "sym53c8xx", "vmhba0:C0:T0:L0"),
    # esp_scsi keeps a pool of struct esp_cmd_entry, and frees no entry of it when its host goes.
    "am53c974": Controller("am53c974", "am53c974", "vmhba0:C0:T0:L0", kept="esp_queuecommand"),
    "dc390": Controller("dc390", "am53c974", "vmhba0:C0:T0:L0", kept="esp_queuecommand"),
    "virtio-scsi": Controller("virtio-scsi-pci", "virtio_scsi", "vmhba0:C0:T0:L0", reset=""),
    "pvscsi": Controller("pvscsi", "vmw_pvscsi", "vmhba0:C0:T0:L0"),
    # Each port is an adapter. libata translates SCSI into ATA; for a rescan it resets the link of a port.
    "ahci": Controller("ich9-ahci", "ahci", "vmhba0:C0:T0:L0", disk="ide-hd", vendor="ATA", reset="rescan"),
    "piix3-ide": Controller(
        "piix3-ide", "ata_piix", "vmhba0:C0:T0:L0", disk="ide-hd", vendor="ATA", reset="rescan"
    ),
    "piix4-ide": Controller(
        "piix4-ide", "ata_piix", "vmhba0:C0:T0:L0", disk="ide-hd", vendor="ATA", reset="rescan"
    ),
}


def blank(path: Path, size: int = SIZE) -> Path:
    """A disk image of that size with noise in it, the same each time."""
    path.write_bytes(Random(815).randbytes(size))  # a pattern, no secret
    return path


def raw_drive(image: Path, options: str = "") -> tuple[str, ...]:
    """QEMU's arguments for a raw image as the drive ``hd``."""
    return ("-drive", f"if=none,id=hd,file={image},format=raw,discard=unmap{options}")


def failing(image: Path, event: str, error: int, *, once: bool = False) -> tuple[str, ...]:
    """QEMU's arguments for an image as the drive ``hd`` that fails at the block BAD."""
    rule = {"event": event, "errno": error, "sector": BAD, "once": once}
    debug = {
        "driver": "blkdebug",
        "inject-error": [rule],
        "image": {"driver": "file", "filename": str(image)},
    }
    options = {"driver": "raw", "node-name": "hd", "file": debug}
    return ("-blockdev", json.dumps(options))


def leaks(host: VMkernel, controller: Controller) -> list[Leak]:
    """What the drivers left, but for what the controller's never gives back."""
    return [leak for leak in host.leaks if not (controller.kept and leak.where.startswith(controller.kept))]


def only_disk(host: VMkernel) -> StorageDevice:
    """The one disk of a host, which has to appear."""
    host.wait_storage(timeout=LIMIT)
    [device] = host.storage.values()
    return device


def load(disk: StorageDevice, count: int = 300) -> list[Request]:
    """Begin to write so many blocks at once, each by a command of its own, with its number in every byte."""
    size = disk.block_size
    buffer = disk.buffer(count * size)
    buffer.view[:] = b"".join(bytes([n % 251]) * size for n in range(count))
    return disk.start([c for n in range(count) for c in disk.write_commands(n, 1, buffer, n * size)])


def ends(requests: Iterable[Request]) -> Counter[HostStatus]:
    """Wait for the end of each command; how often each host status came."""
    return Counter(HostStatus(request.wait(LIMIT).host) for request in requests)


def request_of_tag(linux: Linux, tags: int, tag: int) -> int:
    """The request in flight with a tag, else 0, as drivers find it (include/linux/blk-mq.h: blk_mq_tag_to_rq)."""
    request = memory.load(Obj(linux.types, "blk_mq_tags", tags).rqs + 8 * tag, 8)
    in_flight = linux.types.enumerator("MQ_RQ_IN_FLIGHT")
    return request if request and Obj(linux.types, "request", request).state == in_flight else 0
