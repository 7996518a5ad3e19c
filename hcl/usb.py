"""USB devices: the part of the list that is about them, and the verdict on one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from hcl import names, tables
from hcl.errors import RegistryError
from hcl.inventory import UsbDevice
from hcl.report import DeviceReport, Judgement
from hcl.tables import Problem, refuse
from hcl.verdict import Rung, Status

if TYPE_CHECKING:
    from hcl.judging import KernelModules

_Ids = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}:[0-9a-f]{4}\Z")]
_Class = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2}){1,3}\Z")]
_NOTHING = Judgement(Status.SKIPPED, "there is no driver to look at")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices by their ids, or by an interface's class, and the module that drives them."""

    module: str
    kind: Literal["net", "storage"]
    ids: tuple[_Ids, ...] = ()
    classes: tuple[_Class, ...] = ()


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``usb.toml``: its entries, and what holds for all of them."""

    status: Status
    reason: str
    entry: tuple[Entry, ...]


class _Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left of the file without its entries."""

    status: Status
    reason: str


PATH = Path(__file__).parent / "usb.toml"
"""The table that comes with this package."""


@cache
def table() -> Table:
    """The table that comes with this package. RegistryError when it is damaged."""
    found, _ = read(PATH, refuse)
    assert found is not None
    return found


def read(path: Path, problem: Problem) -> tuple[Table | None, list[tuple[str, Entry]]]:
    """A table from a file, None when it is damaged as a whole; and its entries with their ``file:line``."""
    entries, rest = tables.read(path, "entry", Entry, problem)
    if rest is None:
        return None, entries
    try:
        common = msgspec.convert(rest, _Common)
    except msgspec.ValidationError as error:
        problem(RegistryError(str(error), where=f"{path}:1"))
        return None, entries
    return Table(common.status, common.reason, tuple(entry for _, entry in entries)), entries


def modaliases(device: UsbDevice) -> list[str]:
    """The device's names for modules' claims, one an interface: Linux's usb_uevent (drivers/usb/core/usb.c)."""
    release, whole = device.release or "0000", device.usb_class or "000000"
    return [
        f"usb:v{device.vendor.upper()}p{device.product.upper()}d{release.upper()}"
        f"dc{whole[:2].upper()}dsc{whole[2:4].upper()}dp{whole[4:].upper()}"
        f"ic{each.usb_class[:2].upper()}isc{each.usb_class[2:4].upper()}ip{each.usb_class[4:].upper()}"
        f"in{each.number:02X}"
        for each in device.interfaces or ()
    ]


def report(device: UsbDevice, stands: Table, modules: KernelModules | None) -> DeviceReport:
    """The verdict: by vendor and product, else by an interface's class, else by what a kernel's modules claim."""
    rung, module = _found(device, stands, modules)
    ids = f"{device.vendor}:{device.product}"
    driver = _NOTHING
    if module:
        hardware = Judgement(stands.status, f"{ids} is {module}'s by {_WORDS[rung]}; {stands.reason}.")
        driver = hardware
    elif device.interfaces is None and (device.usb_class or "000000")[:2] in ("00", "ef"):
        hardware = Judgement(
            Status.UNKNOWN,
            f"{ids} is not listed, and its interfaces, which say what it is, were not told; lsusb -v does.",
        )
    else:
        hardware = Judgement(Status.SKIPPED, f"{ids} is neither a network nor a storage device.")
    return DeviceReport(
        bus="usb",
        place=device.place,
        ids=ids,
        device_class=device.usb_class,
        name=names.usb_name(int(device.vendor, 16), int(device.product, 16)) or device.name,
        status=hardware.status,
        reason=hardware.reason,
        rung=rung,
        module=module,
        engine="linux" if module else None,
        hardware=hardware,
        driver=driver,
        firmware=_NOTHING,
    )


_WORDS = {
    Rung.VENDOR_DEVICE: "vendor and product",
    Rung.CLASS: "the class of an interface",
    Rung.COMPATIBLE: "the module's own claim",
}


def _found(device: UsbDevice, stands: Table, modules: KernelModules | None) -> tuple[Rung, str | None]:
    ids = f"{device.vendor}:{device.product}"
    for entry in stands.entry:
        if ids in entry.ids:
            return Rung.VENDOR_DEVICE, entry.module
    interfaces: Sequence[str] = [each.usb_class for each in device.interfaces or ()]
    for entry in stands.entry:
        if any(each.startswith(one) for one in entry.classes for each in interfaces):
            return Rung.CLASS, entry.module
    for name in modaliases(device) if modules else ():
        if found := modules.claimants(name) if modules else ():
            return Rung.COMPATIBLE, found[0]
    return Rung.UNKNOWN, None
