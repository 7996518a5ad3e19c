"""Tasklets and irq_poll. Independent side: none but Linux's headers, which say what drivers do inline; the callbacks are
a few bytes of machine code, and one calls irq_poll_complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import CODE
from vmkernel_core._core import lib
from vmkernel_core.memory import load, store_bytes
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

_SCHED = 1  # TASKLET_STATE_SCHED, IRQ_POLL_F_SCHED


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


class Tasklet:
    """A tasklet of the old kind that counts at its data."""

    def __init__(self, linux: Linux) -> None:
        self.linux = linux
        self.obj = linux.new("tasklet_struct")
        self.counter = linux.allocate(8)
        store_bytes(CODE, b"\xff\x07\xc3")
        self.call("tasklet_init", CODE, self.counter)

    def call(self, name: str, *arguments: int) -> None:
        self.linux.call(self.linux.entry(name), self.obj, *arguments)

    def schedule(self, name: str = "__tasklet_schedule") -> None:
        """tasklet_schedule, which is inline in drivers."""
        if not self.obj.state & _SCHED:
            self.obj.state |= _SCHED
            self.call(name)

    @property
    def count(self) -> int:
        return load(self.counter, 4)


@pytest.fixture
def tasklet(linux: Linux) -> Iterator[Tasklet]:
    tasklet = Tasklet(linux)
    yield tasklet
    tasklet.call("tasklet_kill")
    linux.free(tasklet.obj)
    linux.free(tasklet.counter)


@pytest.mark.parametrize("name", ["__tasklet_schedule", "__tasklet_hi_schedule"])
def test_a_tasklet_runs_once_for_each_scheduling(tasklet: Tasklet, name: str) -> None:
    for count in range(1, 50):
        tasklet.schedule(name)
        until("the tasklet runs", lambda: tasklet.count == count)  # noqa: B023 - called at once
    assert tasklet.obj.state == 0


def test_a_tasklet_gets_itself(linux: Linux, tasklet: Tasklet) -> None:
    """tasklet_setup's callback; it counts in the tasklet's own data."""
    tasklet.call("tasklet_setup", CODE)
    offset = linux.types.offsetof("tasklet_struct", "data")
    store_bytes(CODE, b"\xff\x87" + number(offset) + b"\xc3")  # incl offset(%rdi)
    tasklet.schedule()
    until("the tasklet runs", lambda: tasklet.obj.data == 1)


def test_a_disabled_tasklet_waits(tasklet: Tasklet, linux: Linux) -> None:
    other = linux.new("tasklet_struct")
    tasklet.obj.count.counter = 1
    tasklet.schedule()
    counter = linux.allocate(8)
    linux.call(linux.entry("tasklet_init"), other, CODE, counter)
    other.state = _SCHED
    linux.call(linux.entry("__tasklet_schedule"), other)
    until("the other one runs", lambda: load(counter, 4) == 1)
    assert tasklet.count == 0
    assert tasklet.obj.state == _SCHED
    with linux.baton():  # as a driver does that enables it and sleeps: nothing else wakes the idle loop
        tasklet.obj.count.counter = 0
        for _ in range(1000):
            if tasklet.count:
                break
            lib.vmk_world_sleep(10_000_000)
    assert tasklet.count == 1
    linux.free(other)
    linux.free(counter)


def test_a_stopped_drivers_tasklet_is_forgotten(tasklet: Tasklet) -> None:
    tasklet.obj.count.counter = 1
    tasklet.schedule()
    lib.linux_softirq_forget(CODE, CODE + 4096)
    tasklet.obj.count.counter = 0
    tasklet.linux.call(tasklet.linux.entry("msleep"), 5)
    assert tasklet.count == 0
    tasklet.obj.state = 0


def test_killing_lets_what_is_scheduled_run(tasklet: Tasklet) -> None:
    with tasklet.linux.baton():
        tasklet.schedule()
        tasklet.call("tasklet_kill")
    assert tasklet.count == 1


@pytest.fixture
def poll(linux: Linux) -> Iterator[Obj]:
    """An irq_poll whose function counts behind it, three times its weight, and then completes."""
    size = linux.types.sizeof("irq_poll")
    memory = linux.allocate(size + 8)
    poll = Obj(linux.types, "irq_poll", memory)
    complete = linux.entry("irq_poll_complete")
    parts = (
        b"\x8b\x87" + number(size),  # mov size(%rdi), %eax
        b"\xff\xc0\x89\x87" + number(size),  # inc %eax; mov %eax, size(%rdi)
        b"\x83\xe0\x03\x74\x03",  # and $3, %eax; jz done
        b"\x89\xf0\xc3",  # mov %esi, %eax; ret: all of the weight, and there is more
        b"\x50\xb8" + number(complete) + b"\xff\xd0\x58\x31\xc0\xc3",  # done: irq_poll_complete(); return 0
    )
    store_bytes(CODE, b"".join(parts))
    linux.call(linux.entry("irq_poll_init"), poll, 16, CODE)
    yield poll
    linux.free(memory)


def counted(linux: Linux, poll: Obj) -> int:
    return load(int(poll) + linux.types.sizeof("irq_poll"), 4)


def test_a_poll_goes_on_until_it_is_complete(linux: Linux, poll: Obj) -> None:
    for rounds in range(1, 5):
        linux.call(linux.entry("irq_poll_sched"), poll)
        until("the poll completes", lambda: counted(linux, poll) == 4 * rounds)  # noqa: B023 - called at once
        assert poll.state == 0


def test_a_disabled_poll_is_not_scheduled(linux: Linux, poll: Obj) -> None:
    with linux.baton():
        linux.call(linux.entry("irq_poll_sched"), poll)
        linux.call(linux.entry("irq_poll_disable"), poll)
    seen = counted(linux, poll)
    assert seen > 0, "who disables lets what is scheduled run"
    linux.call(linux.entry("irq_poll_sched"), poll)
    linux.call(linux.entry("msleep"), 5)
    assert counted(linux, poll) == seen
    linux.call(linux.entry("irq_poll_enable"), poll)
    linux.call(linux.entry("irq_poll_sched"), poll)
    until("the poll completes", lambda: counted(linux, poll) % 4 == 0 and poll.state == 0)
