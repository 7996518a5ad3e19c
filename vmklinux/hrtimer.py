"""Timers in nanoseconds (Linux kernel/time/hrtimer.c), on the idle loop's timer queue.

hrtimer_init is the image's own: it leads to the clocks, whose functions are ours.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.kobject import Obj
from vmklinux.timer import Armed

if TYPE_CHECKING:
    from vmklinux.linux import Linux

#: include/linux/hrtimer.h: hrtimer.state, of which drivers ask whether it is queued, and a bit of enum hrtimer_mode.
_INACTIVE, _ENQUEUED = 0, 1
_RELATIVE = 1
_RESTART = 1  # enum hrtimer_restart: what a function returns whose timer is to run on


def _now(timer: Obj) -> int:
    """What the timer's clock shows."""
    return time.clock_gettime_ns(timer.base.clockid)


class HrTimers(Armed):
    """The hrtimers that are set."""

    def __init__(self, linux: Linux) -> None:
        """None is set."""
        super().__init__(linux, "hrtimer")

    def start(self, timer: Obj, expires: int, slack: int) -> None:
        """Set or move a timer to a time of its clock; ``slack`` more may pass."""
        timer._softexpires, timer.node.expires = expires, expires + slack
        self.enqueue(timer)

    def enqueue(self, timer: Obj) -> None:
        """Set a timer to the time that it carries."""
        timer.state = _ENQUEUED
        left = max(0, timer._softexpires - _now(timer))
        self.arm(timer, lib.vmk_now() + left, lambda: self._expire(timer))

    def _expire(self, timer: Obj) -> None:
        timer.state = _INACTIVE
        if self.linux.call_int(timer.function, timer) == _RESTART and timer.state == _INACTIVE:
            self.enqueue(timer)

    def cancel(self, timer: Obj) -> bool:
        """Whether it was set."""
        timer.state = _INACTIVE
        return self.drop(int(timer))


@linux_api()
def hrtimer_start_range_ns(linux: Linux, timer: Obj, tim: int, range_ns: int, mode: int) -> None:
    """Set a timer, or move one that is set."""
    linux.state(HrTimers).start(timer, tim + (_now(timer) if mode & _RELATIVE else 0), range_ns)


@linux_api()
def hrtimer_try_to_cancel(linux: Linux, timer: Obj) -> int:
    """Cancel a timer: 1 if it was set, 0 if not, -1 if its function runs, which is left alone."""
    timers = linux.state(HrTimers)
    return -1 if timers.running == int(timer) else timers.cancel(timer)


@linux_api()
def hrtimer_cancel(linux: Linux, timer: Obj) -> int:
    """Cancel a timer, wait for its function if it runs, and for good: 1 if it was set, else 0."""
    timers = linux.state(HrTimers)
    was_set = timers.cancel(timer)
    timers.wait(timer)
    return was_set | timers.cancel(timer)  # the function may have asked to go on


@linux_api()
def hrtimer_active(linux: Linux, timer: Obj) -> bool:
    """Whether a timer is set, or its function runs."""
    return timer.state != _INACTIVE or linux.state(HrTimers).running == int(timer)


@linux_api()
def hrtimer_forward(linux: Linux, timer: Obj, now: int, interval: int) -> int:
    """Move the time that a timer carries on by whole intervals until it is later than now; by how many."""
    late = now - timer.node.expires
    if late < 0:
        return 0
    interval = max(interval, 1)
    intervals = late // interval + 1
    timer._softexpires += interval * intervals
    timer.node.expires += interval * intervals
    return int(intervals)


@linux_api()
def __hrtimer_get_remaining(linux: Linux, timer: Obj, adjust: bool) -> int:
    """Nanoseconds until a timer expires, negative when it has."""
    return int(timer.node.expires) - _now(timer)
