"""What time kernel code is told. Independent side: the C library's clocks, through Python; for time counters,
Debian's own image and Python's integers."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest

from tests.vmklinux.conftest import code
from vmkernel_core.memory import load_bytes

if TYPE_CHECKING:
    from vmklinux.linux import Linux

ENODEV = 19
ENODATA = 61


@pytest.mark.parametrize(
    ("name", "clock"),
    [
        ("ktime_get", time.CLOCK_MONOTONIC),
        ("ktime_get_raw", time.CLOCK_MONOTONIC_RAW),
        ("sched_clock", time.CLOCK_MONOTONIC),
        ("ktime_get_boot_fast_ns", time.CLOCK_BOOTTIME),
        ("ktime_get_real_fast_ns", time.CLOCK_REALTIME),
    ],
)
def test_nanoseconds_are_the_hosts(linux: Linux, name: str, clock: int) -> None:
    before = time.clock_gettime_ns(clock)
    told = linux.call(linux.entry(name))
    assert before <= told <= time.clock_gettime_ns(clock)


@pytest.mark.parametrize(
    ("offset", "clock"),
    [
        ("TK_OFFS_REAL", time.CLOCK_REALTIME),
        ("TK_OFFS_BOOT", time.CLOCK_BOOTTIME),
        ("TK_OFFS_TAI", time.CLOCK_TAI),
    ],
)
def test_clocks_are_chosen_by_their_offset(linux: Linux, offset: str, clock: int) -> None:
    before = time.clock_gettime_ns(clock)
    told = linux.call(linux.entry("ktime_get_with_offset"), linux.types.enumerator(offset))
    assert before <= told <= time.clock_gettime_ns(clock)


@pytest.mark.parametrize(
    ("name", "clock"),
    [
        ("ktime_get_ts64", time.CLOCK_MONOTONIC),
        ("ktime_get_raw_ts64", time.CLOCK_MONOTONIC_RAW),
        ("ktime_get_real_ts64", time.CLOCK_REALTIME),
    ],
)
def test_seconds_and_nanoseconds(linux: Linux, scratch: int, name: str, clock: int) -> None:
    before = time.clock_gettime_ns(clock)
    linux.call(linux.entry(name), scratch)
    seconds, nanoseconds = struct.unpack("<qq", load_bytes(scratch, 16))
    assert before <= seconds * 10**9 + nanoseconds <= time.clock_gettime_ns(clock)
    assert nanoseconds < 10**9


def test_seconds(linux: Linux) -> None:
    before = time.clock_gettime(time.CLOCK_REALTIME)
    told = linux.call(linux.entry("ktime_get_real_seconds"))
    assert int(before) <= told <= time.clock_gettime(time.CLOCK_REALTIME)
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert (
        int(before)
        <= linux.call(linux.entry("ktime_get_seconds"))
        <= time.clock_gettime(time.CLOCK_MONOTONIC)
    )


def test_a_snapshot_has_both_clocks(linux: Linux) -> None:
    snapshot = linux.new("system_time_snapshot")
    before = time.time_ns()
    linux.call(linux.entry("ktime_get_snapshot"), snapshot)
    assert before <= snapshot.real <= time.time_ns()
    assert snapshot.raw <= time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    linux.free(snapshot)


def test_a_cards_clock_and_the_cpus_cannot_be_compared(linux: Linux, scratch: int) -> None:
    ask = linux.entry("get_device_system_crosststamp")
    agrees = code(b"\x31\xc0")  # xor %eax,%eax
    assert linux.call_int(ask, agrees, 0, 0, scratch) == -ENODEV
    fails = code(b"\xb8", (-ENODATA & 0xFFFFFFFF).to_bytes(4, "little"))  # mov $-ENODATA,%eax
    assert linux.call_int(ask, fails, 0, 0, scratch) == -ENODATA


def test_a_time_counter_follows_a_cards_counter(linux: Linux, scratch: int) -> None:
    cycles, counter = linux.new("cyclecounter"), linux.new("timecounter")
    # A counter of 16 bits at 40 MHz that the test moves: mov $value,%eax
    cycles.mask, cycles.mult, cycles.shift = 0xFFFF, 25 << 8, 8
    cycles.read = code(b"\xb8", (0xFFF0).to_bytes(4, "little"))
    linux.call("timecounter_init", counter, cycles, 1_000_000)
    code(b"\xb8", (0x0010).to_bytes(4, "little"))
    assert linux.call("timecounter_read", counter) == 1_000_000 + 0x20 * 25
    assert linux.call("timecounter_cyc2time", counter, 0x0020) == 1_000_000 + 0x30 * 25
    linux.free(counter)
    linux.free(cycles)
