"""IDE controllers in compatibility mode: they decode the PC's old ports, which no BAR names (PCI IDE Controller
Specification 1.0, 2.1 and 2.2), and use its lines 14 and 15."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmkernel_core.pci_function import PciFunction
    from vmkernel_core.platform.base import Platform

#: The subclass, bits 23 to 8 of the class code.
IDE: Final = 0x0101
#: By the bit of the programming interface that says "native mode": BAR that it would be, first port, how many.
LEGACY_PORTS: Final = {
    0: ((0, 0x1F0, 8), (1, 0x3F6, 1)),
    2: ((2, 0x170, 8), (3, 0x376, 1)),
}
#: Vendor and device, and what firmware writes where into configuration space, four bytes each, before a system starts:
#: IDETIM of both channels, bit 15: they decode their ports (Intel 82371FB and 82371AB data sheets).
FIRMWARE: Final = {
    (0x8086, 0x7010): ((0x40, 0x8000_8000),),
    (0x8086, 0x7111): ((0x40, 0x8000_8000),),
}


def legacy_ports(function: PciFunction) -> Iterator[tuple[int, int, int]]:
    """BAR, first port and how many ports of each range that a function decodes without a BAR."""
    if function.class_code >> 8 == IDE:
        for bit, ranges in LEGACY_PORTS.items():
            if not function.class_code >> bit & 1:
                yield from ranges


def set_up(platform: Platform, function: PciFunction) -> None:
    """Do what firmware would have done."""
    for offset, value in FIRMWARE.get((function.vendor, function.device), ()):
        platform.config_write(function.address, offset, 4, value)
