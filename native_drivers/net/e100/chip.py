"""The chips of the 8255x family and what each can do (manual, 2 and 4.1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmkernel_core.pci_function import PciFunction

VENDOR = 0x8086
#: Device ids whose revision tells the chip; all others are in a chipset and programmed like an 82559.
_STAND_ALONE = (0x1029, 0x1030, 0x1059, 0x1209, 0x1229)
#: All of them.
IDS = frozenset(
    [
        *_STAND_ALONE, *range(0x1031, 0x1035), *range(0x1038, 0x103F), *range(0x1050, 0x1058),
        *range(0x1064, 0x106C), *range(0x1091, 0x1096), 0x10FE, 0x2449, 0x2459, 0x245D, 0x27DC,
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Chip:
    """A generation of the family.

    ``masks``: single causes of interrupts can be masked; it also receives frames that are longer than 1518 bytes with a
    VLAN tag, heeds PAUSE frames and wakes the machine. ``tco``: it counts management frames. ``crossing``: its PHY can
    cross the pairs by itself. ``extended``: its configuration has 32 bytes.
    """

    name: str
    masks: bool = True
    tco: bool = True
    crossing: bool = False
    extended: bool = False


I82557 = Chip("82557", masks=False, tco=False)
I82558 = Chip("82558", tco=False)
I82559 = Chip("82559")
#: By the lowest revision id (4.1.4), the latest first.
_BY_REVISION = (
    (0x10, Chip("82551", crossing=True, extended=True)),
    (0x0E, Chip("82551", crossing=True)),
    (0x0C, Chip("82550", crossing=True)),
    (0x06, I82559),
    (0x04, I82558),
    (0x00, I82557),
)


def chip_of(function: PciFunction) -> Chip:
    """The chip that a PCI function is."""
    if function.device not in _STAND_ALONE:
        return I82559
    return next(chip for lowest, chip in _BY_REVISION if function.revision >= lowest)


def in_chipset(function: PciFunction) -> bool:
    """Whether it is a part of an ICH."""
    return function.device not in _STAND_ALONE
