"""How often the chip interrupts (SDM 13.4.18, 13.4.30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import ITR, RADV, RDTR, TADV, TIDV
from vmkernel_core.errors import NotSupported, UsageError

if TYPE_CHECKING:
    from native_drivers.net.e1000.chips import Chip
    from vmklinux.native.register import Registers

#: ITR counts in so many nanoseconds.
_UNIT = 256
#: Microseconds between interrupts at first, and at most.
USUAL, MOST = 50, ITR.INTERVAL.most * _UNIT // 1000


class Moderation:
    """The least time between two interrupts of a chip."""

    def __init__(self, registers: Registers, chip: Chip) -> None:
        """``USUAL``, once ``write`` was called; none where the chip has no ITR."""
        self._registers = registers
        self._chip = chip
        self.microseconds = 0 if chip.early else USUAL

    def set(self, microseconds: int) -> None:
        """Change it. NotSupported without ITR, UsageError."""
        if self._chip.early:
            raise NotSupported(
                f"the {self._chip.name} does not moderate interrupts", where=self._registers.name
            )
        if not 0 <= microseconds <= MOST:
            raise UsageError(f"{microseconds} us between interrupts", remedy=f"use 0 to {MOST}")
        self.microseconds = microseconds
        self.write()

    def write(self) -> None:
        """Tell the chip. All else that delays interrupts is off."""
        self._registers.write(RDTR())
        self._registers.write(TIDV())
        if not self._chip.early:
            self._registers.write(RADV())
            self._registers.write(TADV())
            self._registers.write(ITR(INTERVAL=self.microseconds * 1000 // _UNIT))
