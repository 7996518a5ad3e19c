"""The wire: a 10BASE-T transceiver in the chip, or from the Am79C971 on a PHY with MII registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.pcnet32.ports import PhyRegisters
from native_drivers.net.pcnet32.registers import BCR2, BCR9, BCR32, BCR33, LED
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.net.settings import Duplex, LinkSettings
from vmklinux.native.mii import PHYSID1, Mii

if TYPE_CHECKING:
    from native_drivers.net.pcnet32.chips import Chip
    from native_drivers.net.pcnet32.ports import Bcrs
    from vmklinux.native.register import Registers

#: CSR15.PORTSEL.
_TEN_BASE_T = 1
_MODES = {"half": "10baseT/Half", "full": "10baseT/Full"}


class Media:
    """What is known of the link, and how it is set. ``port``: CSR15.PORTSEL."""

    def __init__(self, chip: Chip, csr: Registers, bcr: Bcrs) -> None:
        self.chip = chip
        self.csr = csr
        self.bcr = bcr
        self.port = 0 if chip.mii else _TEN_BASE_T
        self.mii = Mii(_phy(bcr)) if chip.mii else None
        self._full = self._forced = False

    def program(self) -> None:
        """After a reset, which leaves a PHY alone: choose the port, set duplex, have it negotiate if it never did."""
        self.bcr.modify(BCR2, ASEL=self.chip.mii)
        if self.mii:
            if not (self._forced or self.bcr.read(BCR32).XPHYANE):
                self.bcr.modify(BCR32, DANAS=1)
                self.bcr.modify(BCR32, DANAS=0, XPHYFD=0, XPHYANE=1)
        elif self.chip.full_duplex:
            self.bcr.modify(BCR9, FDEN=self._full)

    def settled(self) -> None:
        """The link came: the chip's duplex is to be the PHY's."""
        if self.mii:
            self.bcr.modify(BCR9, FDEN=self.mii.speed()[1] == "full")

    def link_ok(self) -> bool:
        """Whether there is a link: without a PHY the light of BCR4 tells."""
        return self.mii.link_ok() if self.mii else bool(self.bcr.read(LED[0]).LEDOUT)

    def speed(self) -> tuple[int, Duplex]:
        """Mb/s and duplex."""
        return self.mii.speed() if self.mii else (10, "full" if self._full else "half")

    def get(self) -> LinkSettings:
        """As ethtool has it."""
        if self.mii:
            return self.mii.get_link_settings()
        speed, duplex = self.speed()
        able = {"half", "full"} if self.chip.full_duplex else {"half"}
        modes = frozenset(_MODES[one] for one in able)
        return LinkSettings(speed, duplex, False, frozenset(), modes | {"TP"}, frozenset(), "TP")

    def set(self, settings: LinkSettings) -> None:
        """Change it. UsageError."""
        if self.mii:
            self.mii.set_link_settings(settings)
            self._forced = not settings.autonegotiation
            return
        able = self.get().supported
        if settings.autonegotiation or settings.speed != 10 or _MODES.get(settings.duplex) not in able:
            raise UsageError(
                f"the {self.chip.name} cannot do that",
                remedy=f"it can be forced to {', '.join(sorted(able - {'TP'}))}",
            )
        self._full = settings.duplex == "full"
        if self.chip.full_duplex:
            self.bcr.modify(BCR9, FDEN=self._full)

    def negotiate(self) -> None:
        """Anew. NotSupported without a PHY."""
        if not self.mii:
            raise NotSupported("10BASE-T does not negotiate")
        self.mii.nway_reset()


def _phy(bcr: Bcrs) -> PhyRegisters:
    """The PHY that the chip names, else the first that answers. NotSupported."""
    for address in (bcr.read(BCR33).PHYAD, *range(32)):
        phy = PhyRegisters(bcr, address)
        if phy.read(PHYSID1).raw not in (0, 0xFFFF):
            return phy
    raise NotSupported("no PHY answers", where=bcr.name)
