"""Threaded handlers and what drivers say of lines. Independent side: Debian's kernel image (cpu_rmap);
the handlers are a few bytes of machine code, the interrupts the test's own."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import CODE
from vmkernel_core._core import lib
from vmkernel_core.memory import load, store, store_bytes
from vmklinux.irq import IRQF_NO_AUTOEN, IRQF_ONESHOT, IRQF_SHARED, Interrupts
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

PIN, OTHER = 20, 22
COUNT, HANDLED, WAKE = b"\xff\x06", b"\xb8\1\0\0\0\xc3", b"\xb8\2\0\0\0\xc3"


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


class Irq:
    """The functions that drivers call, and handlers: one counts, one asks for its thread, one sleeps in between."""

    def __init__(self, linux: Linux) -> None:
        self.linux = linux
        self.name = linux.new_string("test")
        self.counter = linux.allocate(16)
        msleep = linux.entry("msleep")
        sleep = b"\x56\xbf" + number(100) + b"\xb8" + number(msleep) + b"\xff\xd0\x5e"
        self.counting, self.asking, self.sleeping = CODE, CODE + 0x40, CODE + 0x80
        store_bytes(self.counting, COUNT + HANDLED)
        store_bytes(self.asking, WAKE)
        store_bytes(self.sleeping, COUNT + sleep + COUNT + HANDLED)

    def call(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call_int(self.linux.entry(name), *arguments)

    def request(self, line: int, handler: int, thread: int, flags: int = 0, cookie: int = 0) -> int:
        return self.call(
            "request_threaded_irq", line, handler, thread, flags, self.name, cookie or self.counter
        )

    @property
    def count(self) -> int:
        return load(self.counter, 4)


@pytest.fixture
def irq(linux: Linux) -> Iterator[Irq]:
    lib.vmk_irq_reset()
    irq = Irq(linux)
    yield irq
    assert linux.state(Interrupts).actions == []
    linux.free(irq.counter)
    linux.free(irq.name)


def test_the_thread_runs_after_its_handler(irq: Irq) -> None:
    assert irq.request(PIN, irq.asking, irq.counting) == 0
    lib.vmk_irq_pulse(PIN)
    until("the thread function runs", lambda: irq.count == 1)
    irq.call("irq_wake_thread", PIN, irq.counter)
    until("the thread function runs", lambda: irq.count == 2)
    free_irq = irq.linux.entry("free_irq")
    assert irq.linux.call(free_irq, PIN, irq.counter) == irq.name, "free_irq returns the name"


def test_without_handler_a_level_must_be_masked(irq: Irq) -> None:
    assert irq.request(PIN, 0, irq.counting) == -errno.EINVAL
    assert irq.request(PIN, 0, 0) == -errno.EINVAL
    assert irq.request(PIN, 0, irq.counting, IRQF_ONESHOT) == 0
    lib.vmk_irq_set_level(PIN, 1)
    until("the thread function runs as long as the level is up", lambda: irq.count > 10)
    lib.vmk_irq_set_level(PIN, 0)
    irq.call("free_irq", PIN, irq.counter)


def test_a_line_is_shared_by_those_who_agree(irq: Irq) -> None:
    assert irq.request(PIN, irq.counting, 0, IRQF_SHARED) == 0
    assert irq.request(PIN, irq.counting, 0, 0, 8) == -errno.EBUSY
    assert irq.request(PIN, 0, irq.counting, IRQF_SHARED | IRQF_ONESHOT, 8) == -errno.EBUSY
    assert irq.request(PIN, irq.counting, 0, IRQF_SHARED, irq.counter + 8) == 0
    lib.vmk_irq_pulse(PIN)
    until("both run", lambda: irq.count == 1 and load(irq.counter + 8, 4) == 1)
    irq.call("free_irq", PIN, irq.counter)
    irq.call("free_irq", PIN, irq.counter + 8)


@pytest.mark.parametrize("wait", ["free_irq", "synchronize_irq", "disable_irq"])
def test_who_waits_for_a_line_waits_for_its_thread(irq: Irq, wait: str) -> None:
    assert irq.request(PIN, irq.asking, irq.sleeping) == 0
    lib.vmk_irq_pulse(PIN)
    until("the thread function sleeps", lambda: irq.count == 1)
    irq.call(wait, PIN, irq.counter)
    assert irq.count == 2
    if wait != "free_irq":
        irq.call("free_irq", PIN, irq.counter)


def test_a_line_may_begin_disabled(irq: Irq) -> None:
    assert irq.request(PIN, irq.counting, 0, IRQF_NO_AUTOEN) == 0
    lib.vmk_irq_pulse(PIN)
    assert irq.request(OTHER, irq.counting, 0, 0, irq.counter + 8) == 0
    lib.vmk_irq_pulse(OTHER)
    until("the other line is served", lambda: load(irq.counter + 8, 4) == 1)
    assert irq.count == 0
    assert [line.disabled for line in irq.linux.state(Interrupts).lines()] == [True, False]
    irq.call("enable_irq", PIN)
    until("what waited comes", lambda: irq.count == 1)
    irq.call("free_irq", PIN, irq.counter)
    irq.call("free_irq", OTHER, irq.counter + 8)


def test_a_thread_is_cut_where_it_sleeps(irq: Irq) -> None:
    """What unloading does for a driver that left its handler behind."""
    sleep_long = irq.sleeping + 3 + 1
    store(sleep_long, 4, 3_600_000)
    assert load(irq.sleeping + 3, 1) == 0xBF, "the sleep's argument was patched"
    assert irq.request(PIN, irq.asking, irq.sleeping) == 0
    lib.vmk_irq_pulse(PIN)
    until("the thread function sleeps", lambda: irq.count == 1)
    interrupts, began = irq.linux.state(Interrupts), time.monotonic()
    (action,) = interrupts.owned(CODE, CODE + 4096)
    interrupts.remove(action, cut=True)
    interrupts.reap(CODE, CODE + 4096)
    assert time.monotonic() - began < 10
    assert irq.count == 1


def test_what_drivers_say_of_affinity_can_be_read(irq: Irq) -> None:
    mask = irq.linux.allocate(1024)
    store(mask, 8, 5)
    assert irq.request(PIN, irq.counting, 0) == 0
    assert irq.call("__irq_apply_affinity_hint", PIN, mask, 1) == 0
    (line,) = irq.linux.state(Interrupts).lines()
    assert (line.kind, line.names, line.affinity_hint) == ("pin", ("test",), 5)
    assert irq.call("irq_set_affinity", PIN, mask) == 0
    store(mask, 8, 4)
    assert irq.call("irq_set_affinity", PIN, mask) == -errno.EINVAL, "there is no such CPU"
    assert irq.call("__irq_apply_affinity_hint", PIN, 0, 1) == 0
    data = Obj(irq.linux.types, "irq_data", irq.linux.call(irq.linux.entry("irq_get_irq_data"), PIN))
    assert data.irq == PIN
    irq.call("free_irq", PIN, irq.counter)
    irq.linux.free(mask)


def test_the_images_reverse_map_takes_and_leaves_lines(irq: Irq) -> None:
    """cpu_rmap, as multi-queue drivers use it: its entries are freed by irq_set_affinity_notifier's release."""
    linux = irq.linux
    rmap = linux.call("alloc_cpu_rmap", 2, 0xCC0)
    assert linux.call_int("irq_cpu_rmap_add", rmap, PIN) == 0
    assert linux.state(Interrupts).affinity(PIN).notifier is not None
    linux.call("free_irq_cpu_rmap", rmap)
    assert linux.state(Interrupts).affinity(PIN).notifier is None
