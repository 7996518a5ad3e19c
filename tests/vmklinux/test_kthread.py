"""Kernel threads and their workers. Independent side: Debian's kthread_worker code, which runs here unchanged on top of
our threads; the thread functions are a few bytes of machine code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from tests.vmklinux.conftest import CODE
from vmkernel_core._core import lib
from vmkernel_core.memory import load, store_bytes
from vmklinux.kobject import Obj
from vmklinux.kthread import KThreads
from vmklinux.linux import Linux

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = 7


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def call(function: int, argument: int | None = None) -> bytes:
    first = b"\xbf" + number(argument) if argument is not None else b""
    return first + b"\xb8" + number(function) + b"\xff\xd0"


@pytest.fixture
def counter(linux: Linux) -> Iterator[int]:
    """Where a thread counts: its data."""
    counter = linux.allocate(8)
    yield counter
    linux.free(counter)


@pytest.fixture
def create(linux: Linux) -> Iterator[Callable[[int, int], int]]:
    """kthread_create, by name "counter/3"; at the end no thread may be left."""
    name = linux.new_string("%s/%d")
    word = linux.new_string("counter")

    def create(function: int, data: int) -> int:
        entry = linux.entry("kthread_create_on_node")
        return linux.call(entry, function, data, -1 & (1 << 64) - 1, name, word, 3)

    yield create
    assert linux.state(KThreads).all == []
    linux.free(name)
    linux.free(word)


def polling(linux: Linux) -> int:
    """A thread function that counts each millisecond until it shall stop, and returns RESULT."""
    body = (
        b"\xff\x07\x57"
        + call(linux.entry("msleep"), 1)
        + call(linux.entry("kthread_should_stop"))
        + b"\x5f\x85\xc0"
    )
    loop = body + b"\x74" + (256 - len(body) - 2).to_bytes(1, "little")
    store_bytes(CODE, loop + b"\xb8" + number(RESULT) + b"\xc3")
    return CODE


def test_a_thread_runs_from_its_first_waking_to_its_stop(
    linux: Linux, counter: int, create: Callable[[int, int], int]
) -> None:
    task = create(polling(linux), counter)
    thread = Obj(linux.types, "task_struct", task)
    assert thread.comm.text() == "counter/3"
    assert load(counter, 4) == 0
    assert linux.call_int(linux.entry("wake_up_process"), task) == 1
    until("the thread runs", lambda: load(counter, 4) > 3)
    assert linux.call_int(linux.entry("kthread_stop"), task) == RESULT


def test_a_thread_that_never_ran_is_stopped(
    linux: Linux, counter: int, create: Callable[[int, int], int]
) -> None:
    task = create(polling(linux), counter)
    assert linux.call_int(linux.entry("kthread_stop"), task) == -errno.EINTR
    assert load(counter, 4) == 0


def test_a_thread_that_ended_by_itself_still_answers(
    linux: Linux, counter: int, create: Callable[[int, int], int]
) -> None:
    store_bytes(CODE, b"\xff\x07\xb8" + number(RESULT) + b"\xc3")
    task = create(CODE, counter)
    linux.call(linux.entry("wake_up_process"), task)
    threads = linux.state(KThreads)
    until("the thread ends", lambda: threads.all[0].ended)
    assert linux.call_int(linux.entry("kthread_stop"), task) == RESULT


def test_a_thread_sleeps_in_schedule_until_it_is_woken(
    linux: Linux, counter: int, create: Callable[[int, int], int]
) -> None:
    store_bytes(CODE, b"\xff\x07\x57" + call(linux.entry("schedule")) + b"\x5f\xff\x07\x31\xc0\xc3")
    task = create(CODE, counter)
    thread = Obj(linux.types, "task_struct", task)
    with linux.baton():
        linux.call(linux.entry("wake_up_process"), task)
        while load(counter, 4) == 0:
            lib.vmk_world_sleep(1_000_000)
    until("schedule returns at once to a task that runs", lambda: load(counter, 4) == 2)
    assert getattr(thread, "__state") == 0
    linux.call(linux.entry("kthread_stop"), task)


@pytest.mark.parametrize("where", ["msleep", "schedule_timeout", "wait_for_completion"])
def test_a_thread_is_ended_where_it_sleeps(
    linux: Linux, counter: int, create: Callable[[int, int], int], where: str
) -> None:
    """What unloading does with a thread that its module forgot."""
    argument = {"msleep": 3_600_000, "schedule_timeout": 900_000, "wait_for_completion": None}[where]
    completion = linux.new("completion")
    linux.call("__init_swait_queue_head", int(completion) + linux.types.offsetof("completion", "wait"), 0, 0)
    enter = b"\x57"
    if argument is None:
        enter += b"\x48\xbf" + int(completion).to_bytes(8, "little")
    elif where == "schedule_timeout":  # current->state has to say that it sleeps
        state = linux.types.offsetof("task_struct", "__state")
        enter += call_task(linux) + b"\xc7\x80" + number(state) + number(2)
    store_bytes(CODE, b"\xff\x07" + enter + call(linux.entry(where), argument) + b"\x5f\xff\x07\xc3")
    task = create(CODE, counter)
    linux.call(linux.entry("wake_up_process"), task)
    until("the thread begins", lambda: load(counter, 4) == 1)
    threads = linux.state(KThreads)
    (thread,) = threads.owned(CODE, CODE + 4096)
    threads.end(thread)
    threads.reap(CODE, CODE + 4096)
    assert load(counter, 4) == 1
    assert thread.ended
    linux.free(completion)


def call_task(linux: Linux) -> bytes:
    """movq %gs:current, %rax"""
    from vmklinux import layout

    current = layout.percpu_place(linux.image, linux.types, "current_task", "current_task")
    return b"\x65\x48\x8b\x04\x25" + number(current)


def test_a_worker_does_its_work(linux: Linux, counter: int) -> None:
    """kthread_queue_work, flush and destroy are the image's; a work's function counts behind the work."""
    name = linux.new_string("worker/%d")
    worker = linux.call(linux.entry("kthread_create_worker"), 0, name, 5)
    size = linux.types.sizeof("kthread_work")
    work = Obj(linux.types, "kthread_work", linux.allocate(size + 8))
    work.node.next = work.node.prev = work.node
    work.func = CODE
    store_bytes(CODE, b"\xff\x87" + number(size) + b"\xc3")  # incl size(%rdi)
    for count in range(1, 4):
        assert linux.call_int("kthread_queue_work", worker, work) == 1
        linux.call("kthread_flush_work", work)
        assert load(int(work) + size, 4) == count
    linux.call("kthread_queue_work", worker, work)
    linux.call("kthread_destroy_worker", worker)
    assert load(int(work) + size, 4) == 4
    assert linux.state(KThreads).all == []
    linux.free(work)
    linux.free(name)
    assert LIMIT
