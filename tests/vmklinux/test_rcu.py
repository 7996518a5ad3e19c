"""Grace periods. Independent side: Debian's own __rcu_read_lock and __rcu_read_unlock, which do the readers' counting;
callbacks are a few bytes of machine code."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from tests.vmklinux.conftest import code
from vmkernel_core._core import lib
from vmkernel_core.memory import load
from vmklinux.errors import DriverStopped
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux


class Reader(threading.Thread):
    """A world that sleeps inside a read-side section, as a wait in an emulated function can make it."""

    def __init__(self, linux: Linux, seconds: float) -> None:
        super().__init__()
        self.linux = linux
        self.seconds = seconds
        self.inside = threading.Event()
        self.left = False

    def run(self) -> None:
        with self.linux.baton():
            self.linux.call("__rcu_read_lock")
            self.inside.set()
            self.linux.call(self.linux.entry("msleep"), int(self.seconds * 1000))
            self.left = True
            self.linux.call("__rcu_read_unlock")


def test_a_grace_period_waits_for_a_reader_that_sleeps(linux: Linux) -> None:
    reader = Reader(linux, 0.1)
    reader.start()
    assert reader.inside.wait(LIMIT)
    linux.call(linux.entry("synchronize_rcu"))
    assert reader.left
    reader.join(LIMIT)
    linux.call(linux.entry("synchronize_rcu"))


def test_a_callback_runs_once_and_not_before_the_reader_has_left(linux: Linux) -> None:
    head, counter = linux.new("callback_head"), linux.allocate(8)
    function = code(b"\x48\xb8", counter.to_bytes(8, "little"), b"\x48\xff\x00")  # movabs; incq (%rax)
    reader = Reader(linux, 0.1)
    reader.start()
    assert reader.inside.wait(LIMIT)
    linux.call(linux.entry("call_rcu"), head, function)
    assert reader.left or load(counter, 8) == 0
    until("the callback did not run", lambda: load(counter, 8))
    assert reader.left
    linux.call(linux.entry("rcu_barrier"))
    assert load(counter, 8) == 1
    reader.join(LIMIT)
    linux.free(head)
    linux.free(counter)


@pytest.mark.parametrize("told", ["offset", "pointer"])
def test_kfree_rcu_frees_the_object_around_its_head(linux: Linux, told: str) -> None:
    address = linux.allocate(64)
    linux.call(linux.entry("kvfree_call_rcu"), address + 16, 16 if told == "offset" else address)
    linux.call(linux.entry("rcu_barrier"))
    assert lib.vmk_alloc_size(address) == 0


def test_a_driver_that_is_stopped_while_it_reads_holds_up_nobody(linux: Linux) -> None:
    lock = linux.symbols["__rcu_read_lock"]
    # sub $8,%rsp; mov $lock,%eax; call *%rax; mov 0xdead0000,%eax: nobody's address
    function = code(
        b"\x48\x83\xec\x08\xb8", lock.to_bytes(4, "little"), b"\xff\xd0\xb8\x00\x00\xad\xde\x8b\x00"
    )
    with linux.baton():
        with pytest.raises(DriverStopped):
            linux.call(function)
        task = Obj(linux.types, "task_struct", lib.vmk_world_task())
        assert task.rcu_read_lock_nesting == 0
