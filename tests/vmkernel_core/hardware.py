"""What tests ask of the hardware and of kernel code: the level of an interrupt line, and what comes with time."""

from __future__ import annotations

import time
from collections.abc import Callable

from vmkernel_core._core import ffi, lib

#: Seconds until what was to come has failed to come.
LIMIT = 10.0


def level(line: int) -> int:
    """The interrupt line's level, 0 or 1, as the C core has it."""
    stats = ffi.new("struct vmk_irq_stats *")
    assert lib.vmk_irq_stats(line, stats) == 0
    return int(stats.level)


def until(what: str, condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait for a condition that no descriptor tells of, at most ``limit`` seconds, and name it when it does not come."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(0.001)
