"""What lsusb prints (lsusb(8) of usbutils): a line a device, and with ``-v`` its descriptors below."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hcl.errors import BadInventory
from hcl.inventory import Device, Inventory, UsbDevice, UsbInterface

_LINE = re.compile(
    r"Bus (?P<bus>\d{3}) Device (?P<number>\d{3}): ID (?P<vendor>[0-9a-f]{4}):(?P<product>[0-9a-f]{4})(?: (?P<name>.*))?"
)
# "  bDeviceClass            9 Hub": depth, field, value.
_FIELD = re.compile(r"( +)(\w+) +(0x[0-9a-f]+|\d+(?:\.\d{2})?)\b.*")
_DESCRIPTOR = re.compile(r" *(Device|Interface) Descriptor:")
_OTHER_DESCRIPTOR = re.compile(r" *[\w ]+ Descriptor:")
_SAID_BY_LSUSB = ("Couldn't open device", "can't get ", "cannot read ", "Warning:")


def recognise(head: str) -> bool:
    """Whether a device's line comes before anything else."""
    for line in head.splitlines():
        if line.strip() and not line.startswith(_SAID_BY_LSUSB):
            return bool(_LINE.fullmatch(line.rstrip()))
    return False


def read(text: str, place: str) -> Inventory:
    """The inventory. BadInventory with the line that lsusb does not print."""
    return Inventory(host=Path(place).stem, source=f"lsusb: {place}", devices=tuple(_devices(text, place)))


def _devices(text: str, place: str) -> Iterator[Device]:
    block: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if _LINE.fullmatch(line.rstrip()):
            if block:
                yield _device(block)
            block = [line.rstrip()]
        elif (
            line.startswith(("Bus ", "Device "))
            and line.strip() not in _HEADS
            and not line.startswith("Device Status")
        ):
            raise _bad(line, place, number)
        elif block:
            block.append(line.rstrip())
        elif line.strip() and not line.startswith(_SAID_BY_LSUSB):
            raise _bad(line, place, number)
    if block:
        yield _device(block)


_HEADS = ("Device Descriptor:", "Device Qualifier (for other device speed):")


def _bad(line: str, place: str, number: int) -> BadInventory:
    return BadInventory(
        f"not what lsusb prints: {line.strip()[:60]!r}",
        where=f"{place}:{number}",
        remedy="make the file again with `lsusb -v`",
    )


def _device(block: list[str]) -> Device:
    found = _LINE.fullmatch(block[0])
    assert found is not None
    device, interfaces = _descriptors(block[1:])
    classes: dict[int, UsbInterface] = {}
    for one in interfaces:
        number = int(one.get("bInterfaceNumber", "0"))
        # Alternate settings of an interface come after its first.
        classes.setdefault(number, UsbInterface(number=number, usb_class=_class(one, "bInterface")))
    release = device.get("bcdDevice")
    return UsbDevice(
        port=f"{found['bus']}/{found['number']}",
        vendor=found["vendor"],
        product=found["product"],
        release=release.replace(".", "").rjust(4, "0") if release else None,
        usb_class=_class(device, "bDevice") if device else None,
        interfaces=tuple(classes.values()) if device else None,
        name=(found["name"] or "").strip() or None,
    )


def _descriptors(lines: list[str]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The fields of the device's descriptor and of each interface's; those of others are passed over."""
    device: dict[str, str] = {}
    interfaces: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    depth = 0
    for line in lines:
        if head := _DESCRIPTOR.fullmatch(line):
            fields = device if head[1] == "Device" else {}
            if head[1] == "Interface":
                interfaces.append(fields)
            depth = 0
        elif _OTHER_DESCRIPTOR.fullmatch(line):
            fields, depth = {}, 0
        elif found := _FIELD.fullmatch(line):
            depth = depth or len(found[1])
            if len(found[1]) == depth:
                fields[found[2]] = found[3]
    return device, interfaces


def _class(fields: dict[str, str], prefix: str) -> str:
    return "".join(
        f"{int(fields.get(f'{prefix}{part}', '0')):02x}" for part in ("Class", "SubClass", "Protocol")
    )
