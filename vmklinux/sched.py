"""Waiting in Python of either engine (Linux kernel/sched/wait.c): the baton is given away meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import TimedOut
from vmklinux.errors import WorldEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class WaitQueue:
    """Worlds that wait for something to become true; whoever makes it true calls wake_up(). With the baton."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._tasks: list[int] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """This world sleeps now and then, until wake_up()."""
        task = lib.vmk_world_task()
        self._tasks.append(task)
        try:
            yield
        finally:
            self._tasks.remove(task)

    def wait_until(self, true: Callable[[], bool], what: str, limit: float) -> None:
        """Sleep until ``true()``, for another world's doing; TimedOut, naming ``what``, after ``limit`` seconds, which
        are that long for a world in a hurry too; WorldEnded.
        """
        deadline = lib.vmk_now() + int(limit * 1e9)
        with self.waiting():
            while not true():
                left = deadline - lib.vmk_now()
                if left <= 0:
                    raise TimedOut(f"{what} did not end within {limit:.0f} s")
                lib.vmk_world_sleep(left)
                if lib.vmk_world_ending():
                    raise WorldEnded(f"this world was ended while it waited for {what}")

    def wake_up(self) -> None:
        """Let every waiting world look again."""
        for task in list(self._tasks):
            lib.vmk_world_wake(task)
