"""udev's database as ``udevadm info --export-db`` prints it, and ``umockdev-record``'s recordings, which extend it.

Records with empty lines between them; each line a letter, a colon and text: ``P:`` the device's path, ``E:`` a property;
recordings have ``A:`` attributes and ``L:`` links of ``/sys`` too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from hcl.errors import BadInventory
from hcl.inventory import Device, Inventory, PciDevice, UsbDevice, UsbInterface

_LINE = re.compile(r"([A-Z]): ?(.*)")
_T = TypeVar("_T")


@dataclass
class _Record:
    """One device of the database."""

    path: str
    line: int
    properties: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def driver(self) -> str:
        link = self.links.get("driver", "").rpartition("/")[2]
        return self.properties.get("DRIVER", link)


def recognise(head: str) -> bool:
    """Whether it begins with a device's path, comments aside."""
    for line in head.splitlines():
        if line.strip() and not line.startswith("#"):
            return line.startswith("P: /devices/")
    return False


def read(text: str, place: str) -> Inventory:
    """The inventory of the PCI and USB devices. BadInventory with the line of what is malformed."""
    records = list(_records(text, place))
    dmi = next((each.attributes for each in records if each.path.endswith("/dmi/id")), {})
    model = " ".join(filter(None, (dmi.get("sys_vendor"), dmi.get("product_name"))))
    interfaces: dict[str, list[_Record]] = {}
    for each in records:
        if _kind(each) == "usb_interface":
            interfaces.setdefault(each.path.rpartition("/")[0], []).append(each)
    devices: list[Device] = []
    for each in records:
        if _kind(each) == "pci":
            devices.append(_checked(_pci, each, place))
        elif _kind(each) == "usb_device":
            found = [_checked(_interface, one, place) for one in interfaces.get(each.path, ())]
            devices.append(_checked(partial(_usb, interfaces=found), each, place))
    return Inventory(
        host=Path(place).stem, source=f"udev: {place}", model=model or None, devices=tuple(devices)
    )


def _records(text: str, place: str) -> Iterator[_Record]:
    record: _Record | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if record:
                yield record
            record = None
            continue
        found = _LINE.fullmatch(line.rstrip("\r"))
        if not found or (record is None) != (found[1] == "P"):
            raise BadInventory(
                f"not a line of udev's database: {line[:60]!r}",
                where=f"{place}:{number}",
                remedy="make the file again with `udevadm info --export-db`",
            )
        letter, value = found.groups()
        if record is None:
            record = _Record(value, number)
        elif letter in _TABLES:
            name, _, content = value.partition("=")
            # A recording writes the newline at an attribute's end as \n.
            _TABLES[letter](record)[name] = content.removesuffix("\\n")
    if record:
        yield record


_TABLES: dict[str, Callable[[_Record], dict[str, str]]] = {
    "E": lambda record: record.properties,
    "A": lambda record: record.attributes,
    "L": lambda record: record.links,
}


def _kind(record: _Record) -> str:
    subsystem = record.properties.get("SUBSYSTEM", "")
    return record.properties.get("DEVTYPE", "") if subsystem == "usb" else subsystem


def _checked(make: Callable[[_Record], _T], record: _Record, place: str) -> _T:
    try:
        return make(record)
    except (KeyError, ValueError) as error:
        what = f"has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise BadInventory(
            f"a device's record is malformed: {what}",
            where=f"{place}:{record.line}",
            remedy="record it again",
        ) from error


def _ids(text: str, digits: int) -> list[str]:
    """Numbers in hexadecimal with ``:`` or ``/`` between them, each brought to so many digits."""
    return [part.lower().rjust(digits, "0") for part in re.split("[:/]", text)]


def _pci(record: _Record) -> PciDevice:
    properties, attributes = record.properties, record.attributes
    vendor, device = _ids(properties["PCI_ID"], 4)
    subvendor, subdevice = (
        _ids(properties["PCI_SUBSYS_ID"], 4) if "PCI_SUBSYS_ID" in properties else (None, None)
    )
    names = (properties.get(f"ID_{what}_FROM_DATABASE") for what in ("VENDOR", "MODEL"))
    revision = attributes.get("revision", "").removeprefix("0x")
    values = {
        "bus": "pci",
        "address": properties.get("PCI_SLOT_NAME", record.name),
        "vendor": vendor,
        "device": device,
        "subvendor": subvendor,
        "subdevice": subdevice,
        "pci_class": _ids(properties["PCI_CLASS"], 6)[0],
        "revision": revision or None,
        "driver": record.driver,
        "slot": properties.get("ID_NET_LABEL_ONBOARD"),
        "name": " ".join(filter(None, names)) or None,
    }
    return msgspec.convert(values, PciDevice)


def _usb(record: _Record, interfaces: list[UsbInterface]) -> UsbDevice:
    vendor, product, release = _ids(record.properties["PRODUCT"], 4)
    names = (record.properties.get(f"ID_{what}_FROM_DATABASE") for what in ("VENDOR", "MODEL"))
    values = {
        "bus": "usb",
        "port": record.name,
        "vendor": vendor,
        "product": product,
        "release": release,
        "usb_class": _decimal(record.properties.get("TYPE", "0/0/0")),
        "interfaces": msgspec.to_builtins(interfaces) if interfaces else None,
        "name": " ".join(filter(None, names)) or None,
    }
    return msgspec.convert(values, UsbDevice)


def _interface(record: _Record) -> UsbInterface:
    number = record.attributes.get("bInterfaceNumber", record.name.rpartition(".")[2])
    return msgspec.convert(
        {
            "number": int(number, 16),
            "usb_class": _decimal(record.properties["INTERFACE"]),
            "driver": record.driver,
        },
        UsbInterface,
    )


def _decimal(text: str) -> str:
    """``8/6/80``, as the kernel's uevent has class, subclass and protocol."""
    return "".join(f"{int(part):02x}" for part in text.split("/"))
