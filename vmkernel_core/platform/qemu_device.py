"""What kind of device one of QEMU's is, in QEMU's own words: its object, looked at in a machine that does not run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vmkernel_core.errors import DeviceGone, TimedOut
from vmkernel_core.platform.base import PlatformError
from vmkernel_core.platform.qemu_process import QemuProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A board like QemuPlatform's with nothing on it that is not asked for; ``-S``: its processor does not start.
_BOARD: Final = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-S"),
    *("-machine", "q35,accel=tcg,sata=off,smbus=off,usb=off", "-m", "16M"),
    *("-global", "driver=pci-device,property=romfile,value="),
)
#: QEMU's object path of the device that is looked at.
_PATH: Final = "/machine/peripheral/looked-at"


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What QEMU's object tells. ``network``: it takes a network back end (``netdev=``). ``parts``: the types of the
    objects that it is made of; the buses that it provides are among them (``SCSI``, ``IDE``).
    """

    network: bool
    parts: frozenset[str]


def kind_of(device: str, binary: str) -> DeviceKind:
    """Ask QEMU what a device is that ``-device`` takes. QemuMissing, UnknownDevice, QemuFailed (it will not have it)."""
    try:
        process = QemuProcess(binary, [*_BOARD, "-device", f"{device},id={_PATH.rpartition('/')[2]}"], ())
    except OSError as error:
        raise PlatformError(f"cannot start QEMU: {error.strerror}", where=binary) from error
    try:
        properties = list(_properties(process, _PATH))
    except (DeviceGone, TimedOut) as error:
        raise process.failure(f"a look at {device}") from error
    finally:
        process.stop()
    return DeviceKind(
        any(one["name"] == "netdev" for one in properties),
        frozenset(filter(None, map(_child, properties))),
    )


def _properties(process: QemuProcess, path: str) -> Iterator[dict[str, Any]]:
    """The properties of an object and of those that it is made of: virtio's devices lie inside a PCI function."""
    listed: Any = process.execute("qom-list", path=path)
    for one in listed:
        yield one
        if _child(one):
            yield from _properties(process, f"{path}/{one['name']}")


def _child(one: dict[str, Any]) -> str:
    """The type of the object that a property is, ``child<SCSI>``; "" for one of another kind."""
    kind: str = one["type"]
    return kind.removeprefix("child<").removesuffix(">") if kind.startswith("child<") else ""
