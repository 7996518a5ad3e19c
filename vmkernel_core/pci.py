"""The PCI bus scan: which functions answer, behind bridges too, which bus numbers and addresses they get."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmkernel_core.pci_function import (
    BRIDGE_HEADER,
    CAPABILITY_PCI_EXPRESS,
    COMMAND,
    EXPRESS_FLAGS,
    HEADER_TYPE,
    MULTI_FUNCTION,
    NO_VENDOR,
    PRIMARY_BUS,
    SLOT_CAPABILITIES,
    SLOT_HOT_PLUG,
    SLOT_IMPLEMENTED,
    VENDOR_ID,
    Bar,
    BarKind,
    Bridge,
    Capability,
    PciError,
    PciFunction,
    Space,
)
from vmkernel_core.pci_identify import identify, warn
from vmkernel_core.pci_place import place, place_behind, windows_of
from vmkernel_core.platform.base import PciAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vmkernel_core.platform.base import Platform

__all__ = [
    "COMMAND", "VENDOR_ID", "Bar", "BarKind", "Bridge", "Capability", "PciError", "PciFunction", "Space", "scan",
    "scan_behind",
]  # fmt: skip

#: The last bus number that there is.
LAST_BUS = 0xFF
#: Bus numbers that a hot-plug slot keeps free, for a card with a bridge on it.
RESERVED_BUSES = 1


def scan(platform: Platform) -> list[PciFunction]:
    """Find the platform's functions, number the buses behind bridges, give all an address, and switch nothing on.

    A bridge comes before what is behind it. Decoding stays off for a function with BARs, bus mastering is left
    alone; a bridge passes nothing on but configuration accesses until its command register is set. Configuration
    space that makes no sense costs a warning that names the function, and the piece concerned; PciError: no room.
    """
    walk = _Walk(platform, 0, LAST_BUS)
    found = place(platform, walk.bus(platform.functions()))
    return [replace(function, line=_line(platform, function, found)) for function in found]


def scan_behind(platform: Platform, port: PciFunction, known: Sequence[PciFunction]) -> list[PciFunction]:
    """Find what was plugged in behind a port whose bus was empty, and place it in the port's windows.

    ``known`` are the functions of the machine, the port and the bridges above it among them. PciError: no room.
    """
    if port.bridge is None:
        raise PciError("nothing can be behind it: it is no bridge", where=str(port))
    walk = _Walk(platform, port.bridge.secondary, port.bridge.subordinate)
    found = walk.bus(_places(platform, port, port.bridge.secondary))
    found = place_behind(platform, port, found)
    return [replace(function, line=_line(platform, function, [*known, *found])) for function in found]


class _Walk:
    """A walk down the buses: ``last`` is the last bus number given, ``limit`` the last that may be."""

    def __init__(self, platform: Platform, last: int, limit: int) -> None:
        self.platform = platform
        self.last = last
        self.limit = limit

    def bus(self, places: Iterable[PciAddress]) -> list[PciFunction]:
        """The functions at these places, each bridge followed by what is behind it."""
        here = [identify(self.platform, address) for address in _answering(self.platform, places)]
        for function in here:  # no bridge may answer for buses that it had once
            if function.header_type == BRIDGE_HEADER:
                self._number(function.address, 0, 0, 0)
        found = []
        for function in here:
            found += self._bridge(function) if function.header_type == BRIDGE_HEADER else [function]
        return found

    def _bridge(self, function: PciFunction) -> list[PciFunction]:
        platform, address = self.platform, function.address
        if self.last >= self.limit:
            warn(address, "no bus number is left for what is behind this bridge")
            return [function]
        self.last += 1
        secondary = self.last
        if not self._number(address, address.bus, secondary, self.limit):
            warn(address, "this bridge takes no bus numbers, what is behind it is not reached")
            self.last -= 1
            return [function]
        windows, hotplug = windows_of(platform, address), _hotplug(platform, function)
        behind = self.bus(_places(platform, function, secondary))
        if hotplug:
            self.last = min(self.last + RESERVED_BUSES, self.limit)
        self._number(address, address.bus, secondary, self.last)
        return [replace(function, bridge=Bridge(secondary, self.last, windows, hotplug)), *behind]

    def _number(self, address: PciAddress, primary: int, secondary: int, subordinate: int) -> bool:
        """Write a bridge's three bus numbers; whether it keeps them."""
        value = primary | secondary << 8 | subordinate << 16
        self.platform.config_write(address, PRIMARY_BUS, 4, value)
        return self.platform.config_read(address, PRIMARY_BUS, 4) & 0xFF_FFFF == value


def _answering(platform: Platform, places: Iterable[PciAddress]) -> Iterator[PciAddress]:
    """The places where a function is. Functions 1…7 exist only beside a function 0 that says so."""
    single: set[tuple[int, int, int]] = set()
    for address in sorted(places):
        slot = (address.domain, address.bus, address.device)
        if address.function and slot in single:
            continue
        here = platform.config_read(address, VENDOR_ID, 2) not in NO_VENDOR
        if here:
            yield address
        if address.function == 0 and not (
            here and platform.config_read(address, HEADER_TYPE, 1) & MULTI_FUNCTION
        ):
            single.add(slot)


def _places(platform: Platform, bridge: PciFunction, bus: int) -> list[PciAddress]:
    """Where a function may be behind a bridge: behind a PCI Express port that leads down, in slot 0 only."""
    kind = None
    if express := bridge.capability(CAPABILITY_PCI_EXPRESS):
        kind = platform.config_read(bridge.address, express.offset + EXPRESS_FLAGS, 2) >> 4 & 0xF
    slots = 1 if kind in _LEADS_DOWN else 32
    domain = bridge.address.domain
    return [PciAddress(domain, bus, slot, number) for slot in range(slots) for number in range(8)]


#: PCI Express Base 3.0, 7.8.2, Device/Port Type: root port, downstream port of a switch.
_LEADS_DOWN = (4, 6)


def _hotplug(platform: Platform, function: PciFunction) -> bool:
    """Whether the port has a slot that devices may be plugged into and taken out of."""
    express = function.capability(CAPABILITY_PCI_EXPRESS)
    if express is None:
        return False
    flags = platform.config_read(function.address, express.offset + EXPRESS_FLAGS, 2)
    slot = platform.config_read(function.address, express.offset + SLOT_CAPABILITIES, 4)
    return bool(flags & SLOT_IMPLEMENTED and slot & SLOT_HOT_PLUG)


def _line(platform: Platform, function: PciFunction, known: Sequence[PciFunction]) -> int:
    """The line that a function's pin ends at: each bridge hands pins on, rotated by the slot that they come from
    (PCI-to-PCI Bridge Architecture 1.2, 9.1)."""
    if not function.interrupt_pin:
        return 0
    address, pin = function.address, function.interrupt_pin
    above = {(f.address.domain, f.bridge.secondary): f.address for f in known if f.bridge}
    while bridge := above.get((address.domain, address.bus)):
        pin = (pin - 1 + address.device) % 4 + 1
        address = bridge
    return platform.interrupt_line(address, pin)
