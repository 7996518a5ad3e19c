"""Clocks of cards: numbers, pins and the auxiliary work, whose function is a few bytes of machine code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import code
from vmkernel_core.memory import load
from vmklinux.kobject import Obj
from vmklinux.linux import Linux
from vmklinux.ptp import PtpClocks


@pytest.fixture
def info(linux: Linux) -> Iterator[Obj]:
    """What a driver tells of a clock."""
    info = linux.new("ptp_clock_info")
    yield info
    linux.free(info)


def register(linux: Linux, info: Obj) -> int:
    return linux.call(linux.entry("ptp_clock_register"), info, 0)


def unregister(linux: Linux, clock: int) -> None:
    assert linux.call_int(linux.entry("ptp_clock_unregister"), clock) == 0


def test_clocks_are_numbered_from_the_lowest_free(linux: Linux, info: Obj) -> None:
    first, second = register(linux, info), register(linux, info)
    index = linux.entry("ptp_clock_index")
    assert [linux.call_int(index, clock) for clock in (first, second)] == [0, 1]
    unregister(linux, first)
    third = register(linux, info)
    assert linux.call_int(index, third) == 0
    unregister(linux, second)
    unregister(linux, third)
    assert linux.state(PtpClocks).clocks == {}


def test_a_pin_is_found_by_what_it_serves(linux: Linux, info: Obj) -> None:
    pins = linux.allocate(2 * linux.types.sizeof("ptp_pin_desc"))
    info.n_pins, info.pin_config = 2, pins
    info.pin_config[1].func, info.pin_config[1].chan = 2, 3
    clock = register(linux, info)
    find = linux.entry("ptp_find_pin")
    assert (linux.call_int(find, clock, 2, 3), linux.call_int(find, clock, 2, 4)) == (1, -1)
    unregister(linux, clock)
    linux.free(pins)


def test_the_work_runs_as_long_as_it_asks_for_it(linux: Linux, info: Obj, scratch: int) -> None:
    clock = register(linux, info)
    # mov $scratch,%rax; incq (%rax); cmpq $3,(%rax); mov $-1,%rax; mov $1,%ecx; cmovb %rcx,%rax
    info.do_aux_work = code(
        b"\x48\xb8", scratch.to_bytes(8, "little"), b"\x48\xff\x00", b"\x48\x83\x38\x03",
        b"\x48\xc7\xc0\xff\xff\xff\xff", b"\xb9\x01\x00\x00\x00", b"\x48\x0f\x42\xc1",
    )  # fmt: skip
    assert linux.call(linux.entry("ptp_schedule_worker"), clock, 0) == 0
    until("the work did not run three times", lambda: load(scratch, 8) == 3)
    linux.call(linux.entry("msleep"), 30)
    assert load(scratch, 8) == 3
    assert linux.call(linux.entry("ptp_schedule_worker"), clock, 1000 * linux.hz) == 0
    linux.call(linux.entry("ptp_cancel_worker_sync"), clock)
    assert linux.call(linux.entry("ptp_schedule_worker"), clock, 1000 * linux.hz) == 0
    unregister(linux, clock)
    assert load(scratch, 8) == 3
