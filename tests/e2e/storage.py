"""Storage controllers of QEMU's with a disk each, for the end-to-end tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.device import StorageDevice

#: Seconds until what was to come has failed to come; mptsas shows its disk some time after its probe.
LIMIT = 30.0
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

    def platform(self, drive: str, *arguments: str) -> QemuPlatform:
        """QEMU with the controller and a disk on ``drive``, a ``-drive`` or ``-blockdev`` of the arguments."""
        disk = f"scsi-hd,id=disk,drive={drive},bus=hba.0,wwn={WWN:#x},serial=0815"
        return QemuPlatform([f"{self.device},id=hba", disk], arguments=list(arguments))


CONTROLLERS = {
    "megasas": Controller("megasas", "megaraid_sas", "vmhba0:C2:T0:L0", wwn=False),
    "megasas-gen2": Controller("megasas-gen2", "megaraid_sas", "vmhba0:C2:T0:L0", wwn=False),
    "mptsas1068": Controller("mptsas1068", "mptsas", "vmhba0:C0:T0:L0"),
    "lsi53c895a": Controller("lsi53c895a", "sym53c8xx", "vmhba0:C0:T0:L0"),
    "pvscsi": Controller("pvscsi", "vmw_pvscsi", "vmhba0:C0:T0:L0"),
}


def blank(path: Path, size: int = SIZE) -> Path:
    """A disk image of that size with noise in it, the same each time."""
    path.write_bytes(Random(815).randbytes(size))  # a pattern, no secret
    return path


def raw_drive(image: Path, options: str = "") -> tuple[str, ...]:
    """QEMU's arguments for a raw image as the drive ``hd``."""
    return ("-drive", f"if=none,id=hd,file={image},format=raw,discard=unmap{options}")


def only_disk(host: VMkernel) -> StorageDevice:
    """The one disk of a host, which has to appear."""
    host.wait_storage(timeout=LIMIT)
    [device] = host.storage.values()
    return device
