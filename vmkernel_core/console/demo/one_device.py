"""What kind of device the demo is to drive, and a machine that has that one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmkernel_core.errors import UsageError
from vmkernel_core.platform.base import PciAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.platform.model import ModelPlatform
    from vmkernel_core.platform.qemu import QemuPlatform

#: QEMU's program.
QEMU: Final = "qemu-system-x86_64"
#: The kind of a device that moves frames; that of a storage controller is QEMU's device for a disk behind it.
NETWORK: Final = "network"

#: QEMU's disk for each type of bus that a storage controller may provide.
_DISKS: Final = {"SCSI": "scsi-hd", "IDE": "ide-hd"}
#: The disk's properties. Its world wide name is one that is assigned locally (NAA 3). What fails in the file is told to
#: the driver; without this QEMU would stop where the file's own disk is full.
_DISK_PROPERTIES: Final = "wwn=0x300000000000de30,serial=DEMO,rerror=report,werror=report"
#: QEMU's properties for a device named without any. Its e1000 negotiates for 0.5 s; the driver, which looked just
#: before, looks again after 2 s. `--device e1000,autonegotiation=on` is the card as it comes.
_PROPERTIES: Final = {
    name: ("autonegotiation=off",) for name in ("e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em")
}
#: Where QEMU's board has the device.
_SLOT: Final = 5


@dataclass(frozen=True, slots=True)
class OneDevice:
    """A platform with one device to be driven, and where that sits."""

    platform: QemuPlatform | ModelPlatform
    address: PciAddress


def kind_of(platform: str, device: str) -> str:
    """NETWORK, or QEMU's disk for the controller. UsageError for another kind of device, and what asking QEMU raises."""
    return _KINDS[platform](device)


def with_wire(platform: str, device: str) -> OneDevice:
    """A machine with a network device, and a wire in it."""
    return _WITH_WIRE[platform](device)


def with_disk(device: str, disk: str, file: str) -> OneDevice:
    """QEMU with a storage controller and a disk of that kind, made of a file as QEMU's ``-drive`` takes it."""
    from vmkernel_core.platform.qemu import QemuPlatform

    platform = QemuPlatform([_placed(device)], disks=[f"{file},type={disk},{_DISK_PROPERTIES}"], binary=QEMU)
    return OneDevice(platform, PciAddress(0, 0, _SLOT, 0))


def _placed(device: str) -> str:
    return f"{device},addr={_SLOT:#x}"


def _kind_in_qemu(device: str) -> str:
    if shutil.which(QEMU) is None:
        return NETWORK  # starting the host tells this, and all else that is missing
    from vmkernel_core.platform.qemu_device import kind_of

    kind = kind_of(device, QEMU)
    if kind.network:
        return NETWORK
    for bus, disk in _DISKS.items():
        if bus in kind.parts:
            return disk
    raise UsageError(
        f"{device} is neither a network device nor a storage controller",
        where="QEMU has no cable and no disk for it",
        remedy=f"`{QEMU} -device help` lists what there is",
    )


def _kind_of_model(device: str) -> str:
    if device != "e1000":
        raise UsageError(
            f"the model platform has no device {device}",
            remedy="use e1000, or --platform qemu for any of QEMU's",
        )
    return NETWORK


def _in_qemu(device: str) -> OneDevice:
    from vmkernel_core.platform.qemu import QemuPlatform

    properties = ",".join([_placed(device), *_PROPERTIES.get(device, ()), "netdev=wire0"])
    return OneDevice(QemuPlatform([properties], binary=QEMU), PciAddress(0, 0, _SLOT, 0))


def _model(device: str) -> OneDevice:  # noqa: ARG001 - there is only one, as _kind_of_model has said
    from vmkernel_core.platform.e1000_model import E1000Model
    from vmkernel_core.platform.model import ModelPlatform

    return OneDevice(ModelPlatform([E1000Model()]), PciAddress(0, 0, 1, 0))


_KINDS: dict[str, Callable[[str], str]] = {"qemu": _kind_in_qemu, "model": _kind_of_model}
_WITH_WIRE: dict[str, Callable[[str], OneDevice]] = {"qemu": _in_qemu, "model": _model}
#: The platforms that the demo can use.
PLATFORMS: Final = tuple(_KINDS)
