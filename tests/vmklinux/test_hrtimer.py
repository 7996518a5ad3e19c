"""Timers in nanoseconds. Independent sides: the C library's clock, and Debian's image, whose hrtimer_init makes them;
the functions are a few bytes of machine code that count behind the timer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from tests.vmklinux.conftest import CODE, code
from vmkernel_core.memory import load, store
from vmklinux.hrtimer import HrTimers
from vmklinux.kobject import Obj
from vmklinux.linux import Linux

ABSOLUTE, RELATIVE = 0, 1
MILLISECOND = 1_000_000
FAR = 3600 * 1000 * MILLISECOND


def counting(linux: Linux, times: int) -> int:
    """A function that counts, and lets its timer run on until it has counted that far."""
    place = linux.types.sizeof("hrtimer").to_bytes(4, "little")
    # incl place(%rdi); xor %eax,%eax; cmpl $times,place(%rdi); setb %al
    return code(b"\xff\x87", place, b"\x31\xc0\x83\xbf", place, bytes([times]), b"\x0f\x92\xc0")


class Counted:
    """A timer with its count behind it."""

    def __init__(self, linux: Linux) -> None:
        self.linux, self._size = linux, linux.types.sizeof("hrtimer")
        self.timer = Obj(linux.types, "hrtimer", linux.allocate(self._size + 8))

    @property
    def count(self) -> int:
        return load(int(self.timer) + self._size, 4)

    def init(self, clock: int, function: int) -> None:
        self.linux.call("hrtimer_init", self.timer, clock, ABSOLUTE)
        self.timer.function = function

    def call(self, name: str, *arguments: int) -> int:
        return self.linux.call_int(self.linux.entry(name), self.timer, *arguments)

    def start(self, when: int, mode: int) -> None:
        self.call("hrtimer_start_range_ns", when, 0, mode)


@pytest.fixture
def counted(linux: Linux) -> Iterator[Counted]:
    counted = Counted(linux)
    yield counted
    assert linux.state(HrTimers).owned(CODE, CODE + 4096) == []
    linux.free(counted.timer)


@pytest.mark.parametrize("clock", [time.CLOCK_MONOTONIC, time.CLOCK_REALTIME, time.CLOCK_BOOTTIME])
@pytest.mark.parametrize("mode", [ABSOLUTE, RELATIVE])
def test_it_fires_once_and_not_before_its_time(linux: Linux, counted: Counted, clock: int, mode: int) -> None:
    counted.init(clock, counting(linux, 1))
    began = time.clock_gettime_ns(clock)
    counted.start(30 * MILLISECOND + (began if mode == ABSOLUTE else 0), mode)
    assert counted.timer.state == 1, "drivers look whether it is queued"
    assert linux.state(HrTimers).owned(CODE, CODE + 1) == [int(counted.timer)]
    until("the timer fires", lambda: counted.count)
    assert time.clock_gettime_ns(clock) - began >= 30 * MILLISECOND
    until("it is over", lambda: not counted.call("hrtimer_active"))
    assert (counted.count, counted.timer.state) == (1, 0)


def test_its_function_may_let_it_run_on(linux: Linux, counted: Counted) -> None:
    counted.init(time.CLOCK_MONOTONIC, counting(linux, 3))
    counted.start(MILLISECOND, RELATIVE)
    until("the timer fires again and again", lambda: counted.count == 3)
    until("it is over", lambda: not counted.call("hrtimer_active"))
    assert counted.count == 3


def test_a_cancelled_timer_does_not_fire(linux: Linux, counted: Counted) -> None:
    counted.init(time.CLOCK_MONOTONIC, counting(linux, 1))
    for cancel in ("hrtimer_cancel", "hrtimer_try_to_cancel"):
        counted.start(FAR, RELATIVE)
        assert FAR - LIMIT * 1e9 < linux.call(linux.entry("__hrtimer_get_remaining"), counted.timer, 0) <= FAR
        assert counted.call("hrtimer_active") == 1
        assert [counted.call(cancel), counted.call(cancel)] == [1, 0]
        assert counted.call("hrtimer_active") == 0
    counted.start(FAR, RELATIVE)
    counted.start(MILLISECOND, RELATIVE)
    until("it was moved", lambda: counted.count)
    assert counted.call("hrtimer_cancel") == 0


def test_a_function_that_runs_is_waited_for(linux: Linux, counted: Counted) -> None:
    """It sleeps, which a real one may not, so that there is time to look at it."""
    place = linux.types.sizeof("hrtimer").to_bytes(4, "little")
    sleep = b"\xbf\x32\x00\x00\x00\xb8" + linux.entry("msleep").to_bytes(4, "little") + b"\xff\xd0"
    # incl place(%rdi); push %rdi; msleep(50); pop %rdi; incl place(%rdi); mov $1,%eax: it wants to run on
    body = (b"\xff\x87", place, b"\x57", sleep, b"\x5f\xff\x87", place, b"\xb8\x01\x00\x00\x00")
    counted.init(time.CLOCK_MONOTONIC, code(*body))
    store(int(counted.timer) + linux.types.sizeof("hrtimer"), 4, 0)
    counted.start(0, RELATIVE)
    until("it runs", lambda: counted.count)
    assert counted.call("hrtimer_try_to_cancel") == -1
    counted.call("hrtimer_cancel")
    assert counted.count % 2 == 0, "it ended first"
    assert counted.call("hrtimer_active") == 0


@pytest.mark.parametrize(
    ("now", "interval", "intervals"),
    [(999, 10, 0), (1000, 10, 1), (1009, 10, 1), (1010, 10, 2), (1234, 100, 3)],
)
def test_it_goes_forward_by_whole_intervals(
    linux: Linux, counted: Counted, now: int, interval: int, intervals: int
) -> None:
    counted.init(time.CLOCK_MONOTONIC, 0)
    counted.timer.node.expires = counted.timer._softexpires = 1000
    assert counted.call("hrtimer_forward", now, interval) == intervals
    assert counted.timer.node.expires == counted.timer._softexpires == 1000 + intervals * interval
    assert not intervals or counted.timer.node.expires > now
