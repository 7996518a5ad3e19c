"""Waiting in a function that is written in Python: the baton is given away meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import TimedOut
from vmklinux.errors import WorldEnded

if TYPE_CHECKING:
    from collections.abc import Callable


class WaitList:
    """Worlds that wait for something to become true; whoever makes it true calls wake_all()."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._tasks: list[int] = []

    def wait_until(self, true: Callable[[], bool], what: str, limit: float) -> None:
        """Sleep until ``true()``; TimedOut, naming ``what``, after ``limit`` seconds; WorldEnded."""
        deadline = lib.vmk_now() + int(limit * 1e9)
        task = lib.vmk_world_task()
        self._tasks.append(task)
        try:
            while not true():
                left = deadline - lib.vmk_now()
                if left <= 0:
                    raise TimedOut(f"{what} did not end within {limit:.0f} s")
                lib.vmk_world_sleep(left)
                if lib.vmk_world_ending():
                    raise WorldEnded(f"this world was ended while it waited for {what}")
        finally:
            self._tasks.remove(task)

    def wake_all(self) -> None:
        """Let every waiting world look again."""
        for task in list(self._tasks):
            lib.vmk_world_wake(task)
