"""Timers and delays of drivers in Python (Linux kernel/time/timer.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.native.context import might_sleep
from vmklinux.native.device import baton

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.device import Device


class Timer:
    """Calls a function of a driver's once, so many seconds after ``mod_timer``, with the baton. It must not sleep there:
    what takes long is for schedule_work. What it raises stops the driver.
    """

    def __init__(self, device: Device, function: Callable[[], object]) -> None:
        """It is not set yet; it ends when the driver lets go of the device."""
        self.device = device
        self.function = function
        self.setting = 0
        self.ended = False
        device.devres.add(self._shutdown)

    def _shutdown(self) -> None:
        """Whatever of the driver still runs cannot set it any more (timer_shutdown)."""
        self.ended = True
        timer_delete(self)


def mod_timer(timer: Timer, seconds: float) -> bool:
    """Set it, or set it anew; whether it was set. Nothing happens once the driver has let go of the device."""
    if timer.ended:
        return False
    timer.setting += 1
    setting = timer.setting

    def expire() -> None:
        with baton():
            if timer.setting == setting:  # nobody set or deleted it while this world waited for the baton
                timer.device.deliver(timer.function)

    deadline = lib.vmk_now() + int(seconds * 1e9)
    return timer.device.idle.timers.set(("native", id(timer)), deadline, expire)


def timer_delete(timer: Timer) -> bool:
    """It is not called any more, with the baton held from here on; whether it was set."""
    timer.setting += 1
    return timer.device.idle.timers.cancel(("native", id(timer)))


def msleep(milliseconds: float) -> None:
    """Sleep, without the baton meanwhile. Not in an interrupt handler, nor in a timer's function."""
    might_sleep()
    left = int(milliseconds * 1e6)
    while left > 0 and not lib.vmk_world_ending():
        left = lib.vmk_world_sleep(left)  # what is left of it is told, and is less for a world in a hurry


def udelay(microseconds: float) -> None:
    """Wait busily, for at most a few milliseconds: an interrupt handler may."""
    deadline = lib.vmk_now() + int(microseconds * 1e3)
    while lib.vmk_now() < deadline:
        pass
