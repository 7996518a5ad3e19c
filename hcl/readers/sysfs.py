"""A ``/sys`` tree, this machine's or a copy of another's (Documentation/ABI/testing/sysfs-bus-pci and sysfs-bus-usb)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hcl.errors import BadInventory
from hcl.inventory import Device, Inventory, PciDevice, UsbDevice, UsbInterface

_PCI, _USB, _SLOTS, _DMI = "bus/pci/devices", "bus/usb/devices", "bus/pci/slots", "class/dmi/id"


def read_tree(root: Path) -> Inventory:
    """The inventory of a tree: ``/sys``, or a directory with a ``sys`` in it. BadInventory."""
    top = root / "sys" if (root / "sys" / "bus").is_dir() else root
    if not (top / "bus").is_dir():
        raise BadInventory(
            "no tree of /sys", where=str(root), remedy="name a directory that has bus/pci/devices in it"
        )
    try:
        devices = (*_pci(top), *_usb(top))
    except OSError as error:
        raise BadInventory(f"cannot read the tree: {error.strerror}", where=str(error.filename)) from error
    model = " ".join(filter(None, (_text(top / _DMI / name) for name in ("sys_vendor", "product_name"))))
    return Inventory(
        host=root.resolve().name or "localhost", source=f"sysfs: {root}", model=model or None, devices=devices
    )


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:  # a machine without that bus
        return []


def _text(path: Path) -> str | None:
    """An attribute; None where the device has no such one, or where it is closed to us."""
    try:
        return path.read_text(errors="replace").strip()
    except (FileNotFoundError, PermissionError):
        return None


def _driver(device: Path) -> str:
    """The driver in use, by its link; a copy may have lost the links, not the text of uevent."""
    try:
        return os.path.basename(os.readlink(device / "driver"))
    except OSError:
        lines = (_text(device / "uevent") or "").splitlines()
        return next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), "")


def _made(kind: type[Device], place: Path, values: dict[str, object]) -> Device:
    """The device of these values, checked. BadInventory names the attribute that is malformed."""
    try:
        made: Device = msgspec.convert({"bus": kind.kind, **values}, kind)
    except msgspec.ValidationError as error:
        raise BadInventory(f"an attribute is malformed: {error}", where=str(place)) from error
    return made


def _pci(top: Path) -> Iterator[Device]:
    slots = {_text(slot / "address"): slot.name for slot in _children(top / _SLOTS)}
    for device in _children(top / _PCI):
        number = {
            field: (_text(device / file) or "").removeprefix("0x") or None for field, file in _NUMBERS.items()
        }
        yield _made(
            PciDevice,
            device,
            {
                "address": device.name,
                **number,
                "driver": _driver(device),
                "driver_version": _text(device / "driver" / "module" / "version"),
                "slot": slots.get(device.name.rpartition(".")[0]) or _text(device / "label"),
            },
        )


_NUMBERS = {
    "vendor": "vendor",
    "device": "device",
    "subvendor": "subsystem_vendor",
    "subdevice": "subsystem_device",
    "pci_class": "class",
    "revision": "revision",
}


def _usb(top: Path) -> Iterator[Device]:
    found = _children(top / _USB)
    for device in found:
        vendor = _text(device / "idVendor")
        if vendor is None:  # an interface
            continue
        interfaces = [
            UsbInterface(
                number=int(_text(one / "bInterfaceNumber") or "0", 16),
                usb_class=_class(one, "bInterface"),
                driver=_driver(one),
            )
            for one in found
            if one.name.startswith(f"{_stem(device.name)}:")
        ]
        name = " ".join(filter(None, (_text(device / "manufacturer"), _text(device / "product"))))
        yield _made(
            UsbDevice,
            device,
            {
                "port": device.name,
                "vendor": vendor,
                "product": _text(device / "idProduct"),
                "release": _text(device / "bcdDevice"),
                "usb_class": _class(device, "bDevice"),
                "interfaces": msgspec.to_builtins(interfaces),
                "name": name or None,
            },
        )


def _stem(port: str) -> str:
    """What the names of a device's interfaces begin with: those of the root hub ``usb1`` are ``1-0:1.0`` and so on."""
    return f"{port.removeprefix('usb')}-0" if port.startswith("usb") else port


def _class(directory: Path, prefix: str) -> str:
    return "".join(_text(directory / f"{prefix}{part}") or "00" for part in ("Class", "SubClass", "Protocol"))
