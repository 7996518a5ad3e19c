"""How an operator names devices and modules: the keys of VMkernel's ``modules``, ``engines`` and ``settings``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmkernel_core.engine import ENGINES, module_name

if TYPE_CHECKING:
    from vmkernel_core.pci import PciFunction

_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])")
_IDS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_MODULE = re.compile(r"(?:(.*):)?([A-Za-z0-9_-]+)")

#: What a device is called, for remedies.
DEVICE_FORMS = "a PCI address (0000:00:05.0) or vendor:device (8086:100e)"


def address_key(text: str) -> str | None:
    """A PCI address, as a PciFunction's is written: lspci leaves the domain 0000 out. None for what is none."""
    found = _ADDRESS.fullmatch(text.lower())
    return f"{found[1] or '0000'}:{found[2]}" if found else None


def device_key(text: str) -> str | None:
    """A PCI address, or ``vendor:device`` in lower case; None for what is neither."""
    ids = text.lower()
    return ids if _IDS.fullmatch(ids) else address_key(text)


def device_keys(function: PciFunction) -> tuple[str, str]:
    """Those of a device, the nearest first."""
    return str(function.address), f"{function.vendor:04x}:{function.device:04x}"


def module_key(text: str) -> str | None:
    """A module's name, ``e1000``, or that of one engine's, ``native:e1000``; None for what is neither."""
    found = _MODULE.fullmatch(text)
    if not found or (found[1] is not None and found[1] not in ENGINES):
        return None
    return f"{found[1]}:{module_name(found[2])}" if found[1] else module_name(found[2])
