"""The device's own counters, added up (manual, 6.3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e100.blocks import DUMP_RESET_DONE, Counters
from native_drivers.net.e100.registers import CUC_DUMP_RESET, CUC_LOAD_DUMP_ADDRESS
from vmkernel_core.errors import TimedOut
from vmklinux.native.timer import udelay

if TYPE_CHECKING:
    from native_drivers.net.e100.scb import Scb

#: Microseconds that a dump may take, and between two looks.
LIMIT, PAUSE = 10_000, 10
#: Where the mark of a finished dump can be: an 82557 has 64 bytes of counters, an 82558 76, an 82559 80. QEMU's devices
#: all behave like an 82557 in this.
_MARKS = (64, 76, 80)


class HardwareCounters:
    """``total`` has the sums by the names in Counters, since the driver has the device."""

    def __init__(self, scb: Scb, view: memoryview, dma: int) -> None:
        """The device writes them into ``view``, which it sees at ``dma``."""
        self.scb = scb
        self.total = {name: 0 for name in Counters.fields}
        self._dma = dma
        self._block = Counters.at(view)
        self._words = view[: Counters.size].cast("I")

    def start(self) -> None:
        """The device was reset: tell it where they go, and have it begin at 0."""
        self.scb.command(CUC=CUC_LOAD_DUMP_ADDRESS, pointer=self._dma)
        self._dump()

    def collect(self) -> dict[str, int]:
        """Add to the sums what was counted since the last time; that. TimedOut."""
        self._dump()
        counted = {name: getattr(self._block, name) for name in Counters.fields}
        for mark in _MARKS:
            if self._words[mark // 4] == DUMP_RESET_DONE:
                counted |= {name: 0 for name, field in Counters.fields.items() if field.offset >= mark}
        for name, number in counted.items():
            self.total[name] += number
        return counted

    def _dump(self) -> None:
        self.scb.accepted()  # it may sleep: from here on nobody else's dump comes between
        self._words[:] = memoryview(bytes(Counters.size)).cast("I")
        self.scb.command(CUC=CUC_DUMP_RESET)
        for _ in range(0, LIMIT, PAUSE):
            if any(self._words[mark // 4] == DUMP_RESET_DONE for mark in _MARKS):
                return
            udelay(PAUSE)
        raise TimedOut(f"the counters did not come within {LIMIT} us", where=self.scb.csr.name)
