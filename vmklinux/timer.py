"""Timers (Linux kernel/time/timer.c): timer_list on the idle loop's timer queue. Those in nanoseconds: hrtimer.py."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.errors import DriverStopped
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

#: Seconds that a timer function may take before del_timer_sync gives up.
SYNC_LIMIT = 10.0
_PENDING = 8  # any value but null in entry.pprev: timer_pending() is inlined in drivers and looks at it


class Armed:
    """Timers of one kind that are set, by address of their struct."""

    def __init__(self, linux: Linux, kind: str) -> None:
        """None is set; ``kind`` tells them from others on the idle loop's queue."""
        self.linux = linux
        self.kind = kind
        self.running: int = 0
        self._functions: dict[int, int] = {}  # of the timers that are set
        self._settings = itertools.count()
        self._latest: dict[int, int] = {}  # which setting of a timer counts
        self.done = WaitQueue()

    def arm(self, timer: Obj, deadline: int, expire: Callable[[], None]) -> bool:
        """Have ``expire`` called, with the baton, when vmk_now reaches ``deadline``; whether a call was due already."""
        address = int(timer)
        self._functions[address] = timer.function
        setting = self._latest[address] = next(self._settings)
        return self.linux.idle.timers.set(
            (self.kind, address), deadline, lambda: self._fire(address, setting, expire)
        )

    def drop(self, address: int) -> bool:
        """Cancel by address only: the memory of the timer may be gone. Whether it was pending."""
        self._functions.pop(address, None)
        self._latest.pop(address, None)
        return self.linux.idle.timers.cancel((self.kind, address))

    def owned(self, low: int, high: int) -> list[int]:
        """The timers that are set and whose function lies in [low, high)."""
        return [timer for timer, function in self._functions.items() if low <= function < high]

    def wait(self, timer: Obj) -> None:
        """Wait for a timer's function if it runs in another world; TimedOut."""
        address = int(timer)
        self.done.wait_until(lambda: self.running != address, "a timer's function", SYNC_LIMIT)

    def _fire(self, address: int, setting: int, expire: Callable[[], None]) -> None:
        lib.vmk_baton_take()
        try:
            if self._latest.get(address) != setting:
                return  # cancelled or moved while this world waited for the CPU
            del self._latest[address]
            self._functions.pop(address, None)
            self.running = address
            expire()
        except DriverStopped:
            log.debug("a timer's function was stopped")  # on_stopped has been told
        finally:
            self.running = 0
            lib.vmk_baton_drop()
            self.done.wake_up()


class Timers(Armed):
    """The timer_lists that are set."""

    def __init__(self, linux: Linux) -> None:
        """None is set."""
        super().__init__(linux, "timer")

    def set(self, timer: Obj, expires: int) -> bool:
        """Set or move a timer to a time in jiffies; whether it was pending. One that was shut down stays so."""
        if not timer.function:
            return False
        timer.expires = expires
        timer.entry.pprev = _PENDING
        left = max(0, _signed(expires - lib.linux_jiffies()))
        return self.arm(
            timer, lib.vmk_now() + left * 1_000_000_000 // self.linux.hz, lambda: self._expire(timer)
        )

    def _expire(self, timer: Obj) -> None:
        timer.entry.pprev = 0
        self.linux.call(timer.function, timer)

    def cancel(self, timer: Obj) -> bool:
        """Whether it was pending."""
        timer.entry.pprev = 0
        return self.drop(int(timer))

    def cancel_sync(self, timer: Obj) -> bool:
        """Cancel, and wait for the function if it runs in another world."""
        was_pending = self.cancel(timer)
        self.wait(timer)
        return was_pending


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (value >> 63 << 64)


@linux_api()
def init_timer_key(linux: Linux, timer: Obj, function: int, flags: int, name: int, key: int) -> None:
    """Initialise a timer."""
    timer.entry.pprev = 0
    timer.function = function
    timer.flags = flags


@linux_api()
def mod_timer(linux: Linux, timer: Obj, expires: int) -> bool:
    """Set a timer, or move one that is set."""
    return linux.state(Timers).set(timer, expires)


@linux_api()
def add_timer(linux: Linux, timer: Obj) -> None:
    """Set a timer to the time that it carries."""
    linux.state(Timers).set(timer, timer.expires)


@linux_api("timer_delete")
def del_timer(linux: Linux, timer: Obj) -> bool:
    """Cancel a timer without waiting for its function."""
    return linux.state(Timers).cancel(timer)


@linux_api("timer_delete_sync")
def del_timer_sync(linux: Linux, timer: Obj) -> bool:
    """Cancel a timer and wait for its function, if it runs in another world."""
    return linux.state(Timers).cancel_sync(timer)


@linux_api()
def timer_shutdown(linux: Linux, timer: Obj) -> bool:
    """Cancel a timer without waiting for its function, and let it never be set again."""
    was_pending = linux.state(Timers).cancel(timer)
    timer.function = 0
    return was_pending


@linux_api()
def timer_shutdown_sync(linux: Linux, timer: Obj) -> bool:
    """Cancel a timer, let it never be set again, and wait for its function, if it runs in another world."""
    was_pending = timer_shutdown(linux, timer)
    linux.state(Timers).wait(timer)
    return was_pending
