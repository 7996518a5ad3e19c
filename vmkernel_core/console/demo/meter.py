"""What the traffic of a demo cost: time, and register accesses."""

from __future__ import annotations

from time import perf_counter

from vmkernel_core.traps import trap_stats


class Meter:
    """Adds up the seconds and the trapped register accesses of the blocks that it is the context of."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.accesses = 0
        self.seconds = 0.0

    def __enter__(self) -> None:
        """Begin."""
        self._began = perf_counter(), trap_stats().total

    def __exit__(self, *exception: object) -> None:
        """Add."""
        began, before = self._began
        self.seconds += perf_counter() - began
        self.accesses += trap_stats().total - before
