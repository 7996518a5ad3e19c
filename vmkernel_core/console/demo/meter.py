"""What the traffic of a demo cost: time, and register accesses."""

from __future__ import annotations

from time import perf_counter

from vmkernel_core._core import lib


class Meter:
    """Adds up the seconds and the register accesses of the blocks that it is the context of."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.accesses = 0
        self.seconds = 0.0

    def __enter__(self) -> None:
        """Begin."""
        self._began = perf_counter(), lib.vmk_bus_accesses()

    def __exit__(self, *exception: object) -> None:
        """Add."""
        began, before = self._began
        self.seconds += perf_counter() - began
        self.accesses += lib.vmk_bus_accesses() - before
