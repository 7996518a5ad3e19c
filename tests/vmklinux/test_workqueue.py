"""Queues of work items. Independent side: Debian's own types and enumerators say where a disabled item is told;
items are a few bytes of machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import code
from vmkernel_core._core import lib
from vmkernel_core.memory import load
from vmklinux.workqueue import Workqueues

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def _queue(linux: Linux, most: int) -> int:
    name = linux.new_string("queue")
    queue = linux.call(linux.entry("alloc_workqueue"), name, 0, most)
    linux.free(name)
    return queue


@pytest.mark.parametrize(("most", "together"), [(1, 1), (2, 2), (0, 3)])
def test_of_a_queues_items_no_more_run_at_once_than_it_allows(linux: Linux, most: int, together: int) -> None:
    queue = _queue(linux, most)
    counter = linux.allocate(8)
    # movabs $counter,%rax; incq (%rax); sub $8,%rsp; mov $30,%edi; mov $msleep,%eax; call *%rax; add $8,%rsp;
    # movabs $counter,%rax; decq (%rax)
    address = b"\x48\xb8" + counter.to_bytes(8, "little")
    function = code(
        address, b"\x48\xff\x00\x48\x83\xec\x08\xbf\x1e\x00\x00\x00\xb8",
        linux.entry("msleep").to_bytes(4, "little"), b"\xff\xd0\x48\x83\xc4\x08", address, b"\x48\xff\x08",
    )  # fmt: skip
    works = [linux.new("work_struct") for _ in range(3)]
    for work in works:
        work.func = function
        assert linux.call(linux.entry("queue_work_on"), 0, queue, work)
    seen = set()

    def done() -> bool:
        with linux.baton():
            seen.add(load(counter, 8))
            return not any(linux.call(linux.entry("work_busy"), work) for work in works)

    until("the items did not run", done)
    assert max(seen) == together
    linux.call(linux.entry("destroy_workqueue"), queue)
    assert lib.vmk_alloc_size(queue) == 0
    for work in works:
        linux.free(work)
    linux.free(counter)


def test_an_item_that_is_disabled_cannot_be_queued(linux: Linux) -> None:
    if "disable_work_sync" not in linux.symbols:
        assert linux.types.function("disable_work_sync") is None, "6.1 has no such function"
        return
    delayed = linux.new("delayed_work")
    delayed.work.data.counter = 0x7FFFFFFF << linux.types.enumerator("WORK_OFFQ_POOL_SHIFT")  # INIT_WORK
    delayed.work.func = code(b"\xcc")
    before = delayed.work.data.counter
    for _ in range(2):
        linux.call(linux.entry("disable_delayed_work_sync"), delayed)
    assert linux.call(linux.entry("queue_work_on"), 0, 0, delayed) == 0
    assert linux.call(linux.entry("mod_delayed_work_on"), 0, 0, delayed, 0) == 0
    assert linux.call(linux.entry("enable_delayed_work"), delayed) == 0
    assert linux.call(linux.entry("enable_delayed_work"), delayed) == 1
    assert delayed.work.data.counter == before
    assert linux.state(Workqueues).owned(0, 1 << 32) == []
    linux.free(delayed)


def test_flushing_a_delayed_item_does_not_wait_for_its_time(linux: Linux) -> None:
    delayed, counter = linux.new("delayed_work"), linux.allocate(8)
    delayed.work.func = code(
        b"\x48\xb8", counter.to_bytes(8, "little"), b"\x48\xff\x00"
    )  # movabs; incq (%rax)
    linux.call(linux.entry("queue_delayed_work_on"), 0, 0, delayed, linux.hz * 1000)
    assert linux.call(linux.entry("flush_delayed_work"), delayed) == 1
    assert load(counter, 8) == 1
    assert linux.call(linux.entry("flush_delayed_work"), delayed) == 0
    linux.free(delayed)
    linux.free(counter)


def test_an_item_can_ask_which_one_it_is(linux: Linux) -> None:
    assert linux.call(linux.entry("current_work")) == 0, "outside of one"
    told = linux.allocate(8)
    # sub $8,%rsp; mov $current_work,%eax; call *%rax; add $8,%rsp; movabs $told,%rcx; mov %rax,(%rcx)
    function = code(
        b"\x48\x83\xec\x08\xb8", linux.entry("current_work").to_bytes(4, "little"), b"\xff\xd0\x48\x83\xc4\x08",
        b"\x48\xb9", told.to_bytes(8, "little"), b"\x48\x89\x01",
    )  # fmt: skip
    queue, work = _queue(linux, 0), linux.new("work_struct")
    work.func = function
    assert linux.call(linux.entry("queue_work_on"), 0, queue, work)
    linux.call(linux.entry("destroy_workqueue"), queue)
    assert load(told, 8) == int(work)
    linux.free(work)
    linux.free(told)
