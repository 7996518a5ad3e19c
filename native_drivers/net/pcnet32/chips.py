"""The chips of the PCnet-PCI family, by the part number in CSR88 and CSR89."""

from __future__ import annotations

from dataclasses import dataclass

from native_drivers.net.pcnet32.registers import CSR88, CSR89
from vmkernel_core.errors import NotSupported
from vmklinux.native.register import Registers

#: Vendor and device; some cards have Trident's number by mistake.
IDS = frozenset({(0x1022, 0x2000), (0x1022, 0x2001), (0x1023, 0x2000)})
_AMD = 0x003


@dataclass(frozen=True)
class Chip:
    """``suspends``: it has CSR5. ``full_duplex``: BCR9. ``mii``: its PHY has MII registers. ``whole_frames``: its FIFO
    holds a frame, so that transmission can wait for all of it; ``sram``: that FIFO is to be divided first.
    """

    name: str
    suspends: bool = True
    full_duplex: bool = True
    mii: bool = True
    whole_frames: bool = False
    sram: bool = False


_CHIPS = {
    0x2420: Chip("Am79C970", suspends=False, full_duplex=False, mii=False),
    0x2430: Chip(
        "Am79C970", suspends=False, full_duplex=False, mii=False
    ),  # some say that they are an Am79C965
    0x2621: Chip("Am79C970A", mii=False),
    0x2623: Chip("Am79C971", whole_frames=True),
    0x2624: Chip("Am79C972", whole_frames=True),
    0x2625: Chip("Am79C973", whole_frames=True, sram=True),
    0x2627: Chip("Am79C975", whole_frames=True, sram=True),
    0x2628: Chip("Am79C976"),
}


def chip_of(csr: Registers) -> Chip:
    """The chip behind these registers. NotSupported for one that is not of the family."""
    low, high = csr.read(CSR88), csr.read(CSR89)
    part = high.PARTID_HIGH << 4 | low.PARTID_LOW
    if low.MANFID != _AMD or part not in _CHIPS:
        raise NotSupported(
            f"part {part:#06x} of manufacturer {low.MANFID:#05x} is no chip that is known", where=csr.name
        )
    return _CHIPS[part]
