"""The PHY behind MDIC (SDM 13.4.7), and what it has to be told."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from native_drivers.net.e1000.phy_registers import EPSCR, PSCR
from native_drivers.net.e1000.registers import EXTCNF_CTRL, MDIC
from vmkernel_core.errors import DeviceGone, VmkError
from vmklinux.native.mii import BMCR, PHYSID1, PHYSID2
from vmklinux.native.register import Register, Registers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from native_drivers.net.e1000.chips import Chip

#: Its address on the MDI bus.
ADDRESS = 1
_WRITE, _READ = 1, 2
#: Seconds that an access, firmware that holds the PHY, and a reset may take (IEEE 802.3, 22.2.4.1.1: 0.5 s).
_ACCESS_LIMIT, _OWNER_LIMIT, _RESET_LIMIT = 0.1, 1.0, 0.5
#: The first revision of the 88E1011 whose clock and downshift need not be set; its identifier, lower half.
_M88E1011, _GOOD_REVISION = 0x0C20, 4
_CLOCK_25_MHZ = 7
_CROSSOVER_MANUAL, _CROSSOVER_AUTOMATIC = 0, 3


class PhyError(VmkError):
    """The PHY did not take an access, or is none that the driver knows."""


class Phy(Registers):
    """The PHY's registers; ``offset`` is their number. Everything raises PhyError, RegisterTimeout and DeviceGone."""

    def __init__(self, mac: Registers, chip: Chip) -> None:
        """Nothing is asked yet."""
        super().__init__(mac.window, f"{mac.name} PHY")
        self._mac = mac
        self._shared = chip.express

    def load(self, register: type[Register]) -> int:
        """Read a register of 16 bits."""
        return self._access(MDIC(PHYADD=ADDRESS, REGADD=register.offset, OP=_READ)).DATA

    def store(self, register: type[Register], raw: int) -> None:
        """Write one; the PHY has it on return."""
        self._access(MDIC(PHYADD=ADDRESS, REGADD=register.offset, OP=_WRITE, DATA=raw))

    def _access(self, command: MDIC) -> MDIC:
        with self._owned():
            self._mac.write(command)
            done = self._mac.wait(MDIC, _ACCESS_LIMIT, R=1)
        if self.window.gone:
            raise DeviceGone("nothing answers there", where=self.name)
        if done.E:
            raise PhyError(f"the PHY refused an access to its register {command.REGADD}", where=self.name)
        return done

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Firmware may use the 82574's PHY as well (82574 4.6.2.1)."""
        if self._shared:
            self._mac.modify(EXTCNF_CTRL, MDIO_SW_OWNERSHIP=1)
            self._mac.wait(EXTCNF_CTRL, _OWNER_LIMIT, MDIO_SW_OWNERSHIP=1)
        try:
            yield
        finally:
            if self._shared:
                self._mac.modify(EXTCNF_CTRL, MDIO_SW_OWNERSHIP=0)

    def identify(self) -> int:
        """Its identifier, of 32 bits. PhyError when it is not one of Marvell's."""
        high, low = self.load(PHYSID1), self.load(PHYSID2)
        if high != 0x0141:
            raise PhyError(f"the PHY {high:04x}:{low:04x} is not known", where=self.name)
        return high << 16 | low

    def reset(self) -> None:
        """A software reset: what was written to Marvell's registers, and forced modes, take effect now."""
        self.modify(BMCR, RESET=1)
        self.wait(BMCR, _RESET_LIMIT, RESET=0)

    def power(self, on: bool) -> None:
        """Let it work, or turn it off."""
        control = self.read(BMCR)
        if on == control.PDOWN:
            self.write(control.replace(PDOWN=not on))

    def configure(self, *, automatic_crossover: bool) -> None:
        """Marvell's own settings; they count from the next reset on. A forced mode wants the crossover set by hand."""
        crossover = _CROSSOVER_AUTOMATIC if automatic_crossover else _CROSSOVER_MANUAL
        self.modify(PSCR, ASSERT_CRS_ON_TX=1, MDIX=crossover, POLARITY_REVERSAL_OFF=0)
        kind = self.read(PHYSID2)
        if kind.replace(REVISION=0).raw == _M88E1011 and kind.REVISION >= _GOOD_REVISION:
            return
        self.modify(EPSCR, TX_CLK=_CLOCK_25_MHZ)
