"""Interrupt lines of the C core: levels, messages, threads, and lines that nobody serves.

The handlers are a few bytes of machine code; eventfds and epoll, through which messages come, are the kernel's own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from vmkernel_core._core import ffi, lib
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import load, store_bytes
from vmkernel_core.platform.messages import Message, MessageInterrupts

CODE = 0x7F30_0000
COUNTERS = CODE + 0x800
PIN, OTHER_PIN, MESSAGE = 20, 21, 64
HANDLED, NONE, WAKE = 1, 0, 2


class Lines:
    """Handlers that count, and an idle loop that delivers."""

    def __init__(self) -> None:
        assert lib.vmk_map(CODE, 4096, 7, 0, -1, 0) == 0
        self.code, self.counter = CODE, COUNTERS
        self.threads: list[threading.Thread] = []
        self.idle = IdleLoop(lambda _event: None, lambda: None)
        lib.vmk_irq_reset()
        self.idle.start()

    def close(self) -> None:
        lib.vmk_irq_reset()
        for thread in self.threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        self.idle.stop()
        lib.vmk_unmap(CODE, 4096)

    def function(self, result: int, extra: bytes = b"") -> int:
        """int f(int, uint32_t *counter) { ++*counter; extra; return result; }"""
        address = self.code
        store_bytes(address, b"\xff\x06" + extra + b"\xb8" + result.to_bytes(4, "little") + b"\xc3")
        self.code += 32
        return address

    def new_counter(self) -> int:
        self.counter += 8
        return self.counter

    def handler(self, line: int, result: int) -> int:
        """Install a handler with that result; its counter."""
        counter = self.new_counter()
        with self.baton():
            assert lib.vmk_irq_add(line, self.function(result), counter) == 0
        return counter

    def threaded(self, line: int, *, handler: int = 0, once: bool, result: int = HANDLED) -> int:
        """Install a thread function that counts, behind that handler; its counter."""
        counter = self.new_counter()
        with self.baton():
            thread = lib.vmk_irq_add_threaded(line, handler, counter, self.function(result), once)
        assert thread
        self.threads.append(threading.Thread(target=lib.vmk_irq_thread_run, args=(thread,), daemon=True))
        self.threads[-1].start()
        return counter

    def baton(self) -> Baton:
        return Baton()

    def stats(self, line: int) -> Any:
        stats = ffi.new("struct vmk_irq_stats *")
        assert lib.vmk_irq_stats(line, stats) == 0
        return stats


class Baton:
    """Holds the CPU."""

    def __enter__(self) -> None:
        lib.vmk_baton_take()

    def __exit__(self, *exception: object) -> None:
        lib.vmk_baton_drop()


def nothing() -> int:
    """Code that does nothing: a call of it is a delivery point."""
    store_bytes(CODE + 0x7F0, b"\xc3")
    return CODE + 0x7F0


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.close()


def counts(counter: int, value: int) -> None:
    until(f"count of {value}", lambda: load(counter, 4) == value)


def test_a_message_calls_its_handlers_once(lines: Lines) -> None:
    first, second = lines.handler(MESSAGE, HANDLED), lines.handler(MESSAGE, NONE)
    for number in range(1, 4):
        lib.vmk_irq_pulse(MESSAGE)
        counts(first, number)
        counts(second, number)


def test_a_message_waits_for_its_line(lines: Lines) -> None:
    counter = lines.handler(MESSAGE, HANDLED)
    other = lines.handler(OTHER_PIN, HANDLED)
    with lines.baton():
        lib.vmk_irq_disable(MESSAGE)
    lib.vmk_irq_pulse(MESSAGE)
    lib.vmk_irq_set_level(OTHER_PIN, 1)
    until("delivery", lambda: load(other, 4))
    lib.vmk_irq_set_level(OTHER_PIN, 0)
    assert load(counter, 4) == 0
    assert lines.stats(MESSAGE).pending
    with lines.baton():
        lib.vmk_irq_enable(MESSAGE)
    counts(counter, 1)


def test_a_message_before_its_handler_waits_for_it(lines: Lines) -> None:
    lib.vmk_irq_pulse(MESSAGE)
    counts(lines.handler(MESSAGE, HANDLED), 1)


def test_no_message_is_lost_between_threads(lines: Lines) -> None:
    """A handler runs after each message; who sends the next one only then loses none."""
    counter = lines.handler(MESSAGE, HANDLED)
    for number in range(1, 2001):
        lib.vmk_irq_pulse(MESSAGE)
        deadline = time.monotonic() + LIMIT
        while load(counter, 4) < number:
            assert time.monotonic() < deadline, f"message {number} was lost"


def eventfds(count: int) -> list[int]:
    return [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]


@pytest.fixture
def messages() -> Iterator[MessageInterrupts]:
    made = MessageInterrupts(0xF000_000C, 64, eventfds(8))
    assert lib.vmk_idle_watch(made.handle) == 0
    yield made
    lib.vmk_idle_unwatch(made.handle)
    made.close()


def test_an_eventfd_is_a_message(lines: Lines, messages: MessageInterrupts) -> None:
    (line,) = messages.allocate(1)
    counter = lines.handler(line, HANDLED)
    assert messages.message(line) == Message(0xF000_000C, line - 64)
    eventfd = messages._eventfd(line)
    for number in range(1, 100):
        os.eventfd_write(eventfd, 1)
        counts(counter, number)


def test_messages_before_a_line_is_given_out_do_not_count(lines: Lines, messages: MessageInterrupts) -> None:
    (line,) = messages.allocate(1)
    eventfd = messages._eventfd(line)
    messages.release(line)
    os.eventfd_write(eventfd, 1)
    assert messages.allocate(1) == [line]
    messages.service()
    assert not lines.stats(line).pending


def test_lines_are_given_out_in_aligned_blocks(messages: MessageInterrupts) -> None:
    assert messages.allocate(1) == [64]
    assert messages.allocate(4, aligned=True) == [68, 69, 70, 71]
    assert messages.allocate(4, aligned=True) == [66, 67], "the largest block that is left"
    assert messages.allocate(3) == [65]
    assert messages.allocate(1) == []
    messages.release(70)
    assert messages.allocate(2) == [70]


def test_a_line_that_nobody_serves_is_disabled_and_others_work(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    unserved, served = lines.handler(PIN, NONE), lines.handler(OTHER_PIN, HANDLED)
    arguments, result = ffi.new("uint64_t[6]"), ffi.new("struct vmk_result *")
    lib.vmk_irq_set_level(PIN, 1)
    deadline = time.monotonic() + 60
    while f"irq {PIN}: nobody cared" not in caplog.text:
        assert time.monotonic() < deadline, f"after {load(unserved, 4)} calls"
        for _ in range(5000):
            lib.vmk_call(nothing(), arguments, 0, result)
        before = load(served, 4)
        lib.vmk_irq_set_level(OTHER_PIN, 1)
        until("the other line", lambda: load(served, 4) > before)  # noqa: B023 - called at once
        lib.vmk_irq_set_level(OTHER_PIN, 0)
    calls = load(unserved, 4)
    assert calls >= 100_000
    assert calls % 100_000 == 0, (
        "Linux's rule: judged each 100,000; a pause of a tenth of a second begins anew"
    )
    assert lines.stats(PIN).depth == 1
    lib.vmk_call(nothing(), arguments, 0, result)
    assert load(unserved, 4) == calls
    with lines.baton():
        lib.vmk_irq_remove(PIN, unserved)
    again = lines.handler(PIN, NONE)
    until("a new handler", lambda: load(again, 4))


def test_a_thread_runs_when_its_handler_asks(lines: Lines) -> None:
    function = lines.function(WAKE)
    counter = lines.threaded(MESSAGE, handler=function, once=False)  # both count at the same place
    lib.vmk_irq_pulse(MESSAGE)
    counts(counter, 2)
    with lines.baton():
        assert lib.vmk_irq_thread_wake(MESSAGE, counter) == 0
        assert lib.vmk_irq_thread_wake(MESSAGE, 0) < 0
    counts(counter, 3)


def test_a_level_is_masked_until_its_thread_is_done(lines: Lines) -> None:
    """Each run of the thread function takes one interrupt: the level does not call handlers meanwhile."""
    counter, other = lines.threaded(PIN, once=True), lines.handler(OTHER_PIN, HANDLED)
    lib.vmk_irq_set_level(PIN, 1)
    until("a storm", lambda: load(counter, 4) > 1000)
    lib.vmk_irq_set_level(OTHER_PIN, 1)
    until("the other line", lambda: load(other, 4))
    lib.vmk_irq_set_level(OTHER_PIN, 0)
    lib.vmk_irq_set_level(PIN, 0)
    lib.vmk_irq_sync(PIN, int(LIMIT * 1e9))
    stats = lines.stats(PIN)
    assert load(counter, 4) == stats.delivered
    assert stats.unhandled <= 1


def test_a_handler_that_is_removed_ends_its_thread(lines: Lines) -> None:
    counter = lines.threaded(MESSAGE, once=True)
    lib.vmk_irq_pulse(MESSAGE)
    counts(counter, 1)
    with lines.baton():
        assert lib.vmk_irq_remove(MESSAGE, counter) == 0
    lines.threads[0].join(LIMIT)
    assert not lines.threads[0].is_alive()
    lib.vmk_irq_pulse(MESSAGE)
    counts(lines.handler(MESSAGE, HANDLED), 1)
    assert load(counter, 4) == 1
