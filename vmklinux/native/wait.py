"""Waiting for hardware in a driver in Python (Linux include/linux/wait.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.native.context import might_sleep
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WaitQueue", "wait_event_timeout"]


def wait_event_timeout(queue: WaitQueue, condition: Callable[[], bool], seconds: float) -> bool:
    """Sleep, without the baton meanwhile, until the condition holds; False when the time ran out first: sooner for a
    world whose device has gone.

    The condition is looked at when it begins and whenever somebody calls ``queue.wake_up``. Not in an interrupt handler.
    """
    might_sleep()
    left = int(seconds * 1e9)
    with queue.waiting():
        while not condition():
            if left <= 0 or lib.vmk_world_ending():
                return False
            left = lib.vmk_world_sleep(left)
        return True
