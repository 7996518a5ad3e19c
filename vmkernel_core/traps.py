"""How many register accesses of kernel code trapped: the price of hardware that has no window of its own."""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel_core._core import ffi, lib


@dataclass(frozen=True, slots=True)
class TrapStats:
    """Accesses that trapped since the process started: reads and writes of registers, and port instructions."""

    reads: int
    writes: int
    ports: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.reads + self.writes + self.ports


def trap_stats() -> TrapStats:
    """The counters now."""
    stats = ffi.new("struct vmk_trap_stats *")
    lib.vmk_trap_stats(stats)
    return TrapStats(stats.reads, stats.writes, stats.ports)
