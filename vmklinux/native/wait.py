"""Waiting for an event in a driver in Python (Linux kernel/sched/wait.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib

if TYPE_CHECKING:
    from collections.abc import Callable


class WaitQueue:
    """Worlds that wait for something; everything here is done with the baton."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._tasks: list[int] = []

    def wake_up(self) -> None:
        """Let everybody who waits look again."""
        for task in self._tasks:
            lib.vmk_world_wake(task)


def wait_event_timeout(queue: WaitQueue, condition: Callable[[], bool], seconds: float) -> bool:
    """Sleep, without the baton meanwhile, until the condition holds; False when the time ran out first.

    The condition is looked at when it begins and whenever somebody calls ``queue.wake_up``. Not in an interrupt handler.
    """
    task, left = lib.vmk_world_task(), int(seconds * 1e9)
    queue._tasks.append(task)
    try:
        while not condition():
            if left <= 0 or lib.vmk_world_ending():
                return False
            left = lib.vmk_world_sleep(left)
        return True
    finally:
        queue._tasks.remove(task)
