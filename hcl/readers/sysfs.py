"""A ``/sys`` tree, this machine's or a copy of another's (Documentation/ABI/testing/sysfs-bus-pci and sysfs-bus-usb)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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
    return Inventory(
        host=root.resolve().name or "localhost", source=f"sysfs: {root}", model=model_of(top), devices=devices
    )


def model_of(top: Path) -> str | None:
    """Manufacturer and product, as the machine's firmware tells them (DMI)."""
    told = (_text(top / _DMI / name) for name in ("sys_vendor", "product_name"))
    return " ".join(filter(None, told)) or None


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
    slots = slots_of(top)
    for device in _children(top / _PCI):
        yield pci_device(device, slots)


def slots_of(top: Path) -> dict[str | None, str]:
    """The names of the slots of a tree, by ``domain:bus:device``."""
    return {_text(slot / "address"): slot.name for slot in _children(top / _SLOTS)}


def pci_device(device: Path, slots: Mapping[str | None, str]) -> Device:
    """The PCI device of a directory of the tree. BadInventory names an attribute that is malformed."""
    number = {
        field: (_text(device / file) or "").removeprefix("0x") or None for field, file in _NUMBERS.items()
    }
    return _made(
        PciDevice,
        device,
        {
            "address": device.name,
            **number,
            "driver": _driver(device),
            "driver_version": _text(device / "driver" / "module" / "version"),
            "firmware": _firmware(device),
            "slot": slots.get(device.name.rpartition(".")[0]) or _text(device / "label"),
        },
    )


def _firmware(device: Path) -> str | None:
    """What a storage driver tells of its adapter's firmware."""
    for host in _children(device):
        for name in _FIRMWARE if host.name.startswith("host") else ():
            if told := _text(host / "scsi_host" / host.name / name):
                return told
    return None


#: The attribute of scsi_host that has it, which each driver names its own way: mpt3sas and mptsas; qla2xxx and qla4xxx;
#: lpfc; aacraid and its like.
_FIRMWARE = ("version_fw", "fw_version", "fwrev", "hba_kernel_version", "firmware_version")

_NUMBERS = {
    "vendor": "vendor",
    "device": "device",
    "subvendor": "subsystem_vendor",
    "subdevice": "subsystem_device",
    "pci_class": "class",
    "revision": "revision",
}


def _usb(top: Path) -> Iterator[Device]:
    for device in _children(top / _USB):
        if (device / "idVendor").exists():  # else an interface
            yield usb_device(device)


def usb_device(device: Path) -> Device:
    """The USB device of a directory of the tree. BadInventory names an attribute that is malformed."""
    # In bus/usb/devices its interfaces lie beside it, below /sys/devices inside it.
    beside = (*_children(device.parent), *_children(device))
    found = {one.name: one for one in beside if one.name.startswith(f"{_stem(device.name)}:")}
    interfaces = [
        UsbInterface(
            number=int(_text(one / "bInterfaceNumber") or "0", 16),
            usb_class=_class(one, "bInterface"),
            driver=_driver(one),
        )
        for one in found.values()
    ]
    name = " ".join(filter(None, (_text(device / "manufacturer"), _text(device / "product"))))
    return _made(
        UsbDevice,
        device,
        {
            "port": device.name,
            "vendor": _text(device / "idVendor"),
            "product": _text(device / "idProduct"),
            "release": _text(device / "bcdDevice"),
            "usb_class": _class(device, "bDevice"),
            # One that is not configured has none, and that says nothing of what it would have.
            "interfaces": msgspec.to_builtins(interfaces) if interfaces else None,
            "name": name or None,
        },
    )


def _stem(port: str) -> str:
    """What the names of a device's interfaces begin with: those of the root hub ``usb1`` are ``1-0:1.0`` and so on."""
    return f"{port.removeprefix('usb')}-0" if port.startswith("usb") else port


def _class(directory: Path, prefix: str) -> str:
    return "".join(_text(directory / f"{prefix}{part}") or "00" for part in ("Class", "SubClass", "Protocol"))
