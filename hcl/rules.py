"""What an operator says against the list: rules that leave devices out, and modules chosen for devices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hcl.errors import BadRule
from hcl.inventory import Device, PciDevice, Unidentified, UsbDevice

_IDS = re.compile(r"([0-9a-f]{4}|\*):([0-9a-f]{4}|\*)")
_CLASS = re.compile(r"([0-9a-f]{2}){1,3}")
_BUSES = ("pci", "usb", "unidentified")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One rule. ``VENDOR:DEVICE`` (either may be ``*``), ``class=0300`` (or its beginning), ``bus=usb``, or
    ``place=0000:00:1f.*`` (a pattern of the shell's for the address, port or line).
    """

    text: str
    key: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Exclusion:
        """The rule of a text; BadRule."""
        key, equals, value = text.lower().partition("=")
        if not equals:
            key, value = "ids", key
        valid = {
            "ids": bool(_IDS.fullmatch(value)),
            "class": bool(_CLASS.fullmatch(value)),
            "bus": value in _BUSES,
            "place": bool(value),
        }
        if not valid.get(key):
            raise BadRule(
                f"no rule: {text!r}",
                remedy="write VENDOR:DEVICE (hexadecimal, or *), class=0300, bus=usb or place=0000:00:1f.*",
            )
        return cls(text, key, value)

    def matches(self, device: Device) -> bool:
        """Whether the rule leaves the device out."""
        if self.key == "bus":
            return device.kind == self.value
        if self.key == "place":
            return fnmatchcase(device.place.lower(), self.value)
        if isinstance(device, Unidentified):
            return False
        if self.key == "class":
            return any(one.startswith(self.value) for one in _classes(device))
        product = device.device if isinstance(device, PciDevice) else device.product
        return all(
            want in ("*", have)
            for want, have in zip(self.value.split(":"), (device.vendor, product), strict=True)
        )


def _classes(device: PciDevice | UsbDevice) -> list[str]:
    if isinstance(device, PciDevice):
        return [device.pci_class or ""]
    return [device.usb_class or "", *(each.usb_class for each in device.interfaces or ())]


_OVERRIDE = re.compile(
    r"([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]|[0-9a-f]{4}:[0-9a-f]{4})=([a-z0-9_-]+)"
)


def parse_overrides(texts: Iterable[str]) -> dict[str, str]:
    """``DEVICE=MODULE`` of each text, DEVICE being a PCI address or ``vendor:device``; BadRule."""
    overrides = {}
    for text in texts:
        found = _OVERRIDE.fullmatch(text.lower())
        if not found:
            raise BadRule(f"no override: {text!r}", remedy="write 0000:02:00.0=e1000 or 8086:100e=e1000")
        overrides[found[1]] = found[2]
    return overrides


def taint(device: str, module: str) -> str:
    """The sentence that a report has of an override: ``device`` is a PCI address or ``vendor:device``."""
    return f"{device} is given {module} by an operator"
