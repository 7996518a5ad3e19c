"""Fixtures for the tests of the vmkernel's services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vmkernel_core.memory import MachineMemory


@pytest.fixture
def memory() -> Iterator[MachineMemory]:
    """The machine's RAM, 64 MiB of it."""
    with MachineMemory(64 << 20) as memory:
        yield memory
