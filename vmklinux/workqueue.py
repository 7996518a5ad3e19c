"""Work items (Linux kernel/workqueue.c): each runs in a world of its own, so it may sleep.

Deviation: all queues share one pool of worlds. An item never runs twice at the same time, and of a queue's items no
more at once than it allows: those of an ordered queue run one after the other.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.btf import NoSuchType
from vmklinux.errors import DriverStopped
from vmklinux.kobject import Obj, container_of
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from vmklinux.linux import Linux, VaList

log = logging.getLogger(__name__)

#: Worlds that may run items at the same time.
WORKERS = 4
#: Seconds that cancel and flush wait for an item that runs.
SYNC_LIMIT = 30.0
_PENDING = 1  # WORK_STRUCT_PENDING_BIT is bit 0 of work_struct.data (include/linux/workqueue.h)


@dataclass
class _Shared:
    """What the workers share, under its own lock (never held while waiting for the baton)."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    queued: deque[tuple[int, int]] = field(default_factory=deque)  # (queue, work)
    running: dict[int, tuple[int, int]] = field(default_factory=dict)  # work -> (queue, thread)
    limits: dict[int, int] = field(
        default_factory=dict
    )  # queue -> items that may run at once, where there is a limit
    stopping: bool = False


def _disable_field(linux: Linux) -> tuple[int, int]:
    """In work_struct.data, what one disable adds and where they are counted; nothing, where a kernel has none."""
    try:
        first = 1 << linux.types.enumerator("WORK_OFFQ_DISABLE_SHIFT")
        bits = linux.types.enumerator("WORK_OFFQ_DISABLE_BITS")
    except NoSuchType:
        return 0, 0
    return first, ((1 << bits) - 1) * first


class Workqueues:
    """The items that wait and run, and the worlds that run them."""

    def __init__(self, linux: Linux) -> None:
        """Start the worlds."""
        self.linux = linux
        self.done = WaitQueue()
        self._functions: dict[int, int] = {}  # of the items that wait
        self._at_work: dict[int, tuple[int, int]] = {}  # of those that run: function and world
        self._one_disable, self._disables = _disable_field(linux)
        self._shared = _Shared()
        self._threads = [
            threading.Thread(target=self._work, name=f"kworker/{n}", daemon=True) for n in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the worlds once their items are done; what still waits is dropped."""
        with self._shared.changed:
            self._shared.stopping = True
            self._shared.changed.notify_all()
        for thread in self._threads:
            thread.join(SYNC_LIMIT)

    def current(self) -> int:
        """The item that this world runs, 0 for none."""
        me = threading.get_ident()
        with self._shared.changed:
            return next((work for work, (_, thread) in self._shared.running.items() if thread == me), 0)

    def limit(self, queue: int, items: int) -> None:
        """Let no more than so many items of a queue run at once; 0: as many as there are worlds."""
        with self._shared.changed:
            if items:
                self._shared.limits[queue] = items
            else:
                self._shared.limits.pop(queue, None)

    def queue(self, queue: int, work: Obj) -> bool:
        """Queue an item; False when it waits already."""
        if not self._wait_for_turn(work):
            return False
        self._push(queue, int(work))
        return True

    def _wait_for_turn(self, work: Obj) -> bool:
        if work.data.counter & _PENDING or self._disabled(work):
            return False
        work.data.counter |= _PENDING
        self._functions[int(work)] = work.func
        return True

    def _push(self, queue: int, work: int) -> None:
        with self._shared.changed:
            self._shared.queued.append((queue, work))
            self._shared.changed.notify()

    def delay(self, queue: int, delayed: Obj, jiffies: int) -> bool:
        """Queue a delayed item after some jiffies; False when it waits already."""
        if not self._wait_for_turn(delayed.work):
            return False
        self._set(queue, delayed, jiffies)
        return True

    def _set(self, queue: int, delayed: Obj, jiffies: int) -> None:
        address = int(delayed.work)
        if not jiffies:
            self._push(queue, address)
            return
        delayed.wq = queue
        deadline = lib.vmk_now() + jiffies * 1_000_000_000 // self.linux.hz
        self.linux.idle.timers.set(("work", address), deadline, lambda: self._push(queue, address))

    def modify(self, queue: int, delayed: Obj, jiffies: int) -> bool:
        """Queue a delayed item anew, whether it waits or not; whether it waited."""
        waited = self._withdraw(delayed.work)
        if self._wait_for_turn(delayed.work):
            self._set(queue, delayed, jiffies)
        return waited

    def hurry(self, delayed: Obj) -> bool:
        """Queue a delayed item now if it waits for its time; whether it did."""
        address = int(delayed.work)
        waited = self.linux.idle.timers.cancel(("work", address))
        if waited:
            self._push(int(delayed.wq), address)
        return waited

    def _withdraw(self, work: Obj) -> bool:
        address = int(work)
        found = self.linux.idle.timers.cancel(("work", address))
        with self._shared.changed:
            before = len(self._shared.queued)
            self._shared.queued = deque(item for item in self._shared.queued if item[1] != address)
            found |= len(self._shared.queued) != before
        work.data.counter &= ~_PENDING
        self._functions.pop(address, None)
        return found

    def cancel(self, work: Obj, *, sync: bool) -> bool:
        """Withdraw an item, and with ``sync`` wait until it does not run; whether it waited."""
        waited = self._withdraw(work)
        if sync:
            address = int(work)
            self.done.wait_until(
                lambda: address not in self._shared.running or self._is_own(address),
                "a work item",
                SYNC_LIMIT,
            )
            waited |= self._withdraw(work)
        return waited

    def disable(self, work: Obj, *, sync: bool) -> bool:
        """Withdraw an item and let it not be queued until it was enabled as often; whether it waited."""
        work.data.counter += self._one_disable
        return self.cancel(work, sync=sync)

    def enable(self, work: Obj) -> bool:
        """Undo one disable; whether the item may be queued again."""
        if self._disabled(work):
            work.data.counter -= self._one_disable
        return not self._disabled(work)

    def _disabled(self, work: Obj) -> bool:
        return bool(work.data.counter & self._disables)

    def busy(self, work: Obj) -> int:
        """WORK_BUSY_PENDING (1) and WORK_BUSY_RUNNING (2) of an item."""
        with self._shared.changed:
            running = int(work) in self._shared.running
        return int(work.data.counter & _PENDING) | running << 1

    def _is_own(self, work: int) -> bool:
        return self._shared.running.get(work, (0, 0))[1] == threading.get_ident()

    def drop(self, work: int) -> None:
        """Withdraw an item of a module that is being freed, by address only: its memory may be gone."""
        self._functions.pop(work, None)
        self.linux.idle.timers.cancel(("work", work))
        with self._shared.changed:
            self._shared.queued = deque(item for item in self._shared.queued if item[1] != work)

    def flush(self, work: int = 0, queue: int = 0) -> None:
        """Wait until an item, or every item of a queue, has run."""

        def idle() -> bool:
            with self._shared.changed:
                waiting = any(work in (0, w) and queue in (0, q) for q, w in self._shared.queued)
                runs = any(work in (0, w) and queue in (0, q) for w, (q, _) in self._shared.running.items())
            return not (waiting or runs)

        self.done.wait_until(idle, "a work queue", SYNC_LIMIT)

    def owned(self, low: int, high: int) -> list[int]:
        """Items that wait, also for their time, and whose function lies in [low, high)."""
        return [work for work, function in self._functions.items() if low <= function < high]

    def worlds(self, low: int, high: int) -> list[int]:
        """The worlds that run items whose function lies in [low, high)."""
        return [task for function, task in self._at_work.values() if low <= function < high]

    def finish(self, low: int, high: int) -> None:
        """Wait until no item runs whose function lies in [low, high), whose module goes. TimedOut."""
        self.done.wait_until(
            lambda: not self.worlds(low, high), "a work item of a module that goes", SYNC_LIMIT
        )

    def _may_run(self, queue: int, work: int) -> bool:
        shared = self._shared
        busy = sum(1 for other, _ in shared.running.values() if other == queue)
        return work not in shared.running and busy < shared.limits.get(queue, WORKERS)

    def _next(self) -> tuple[int, int] | None:
        with self._shared.changed:
            while not self._shared.stopping:
                for item in self._shared.queued:
                    if self._may_run(*item):
                        self._shared.queued.remove(item)
                        self._shared.running[item[1]] = (item[0], threading.get_ident())
                        return item
                self._shared.changed.wait()
        return None

    def _work(self) -> None:
        while (item := self._next()) is not None:
            _, address = item
            work = Obj(self.linux.types, "work_struct", address)
            lib.vmk_baton_take()
            try:
                work.data.counter &= ~_PENDING
                self._functions.pop(address, None)
                self._at_work[address] = work.func, lib.vmk_world_task()
                self.linux.call(work.func, work)
            except DriverStopped:
                log.debug("a work item was stopped")  # on_stopped has been told
            except Exception:  # an emulated function failed: nobody else is there to be told
                log.exception("a work item failed")
            finally:
                _, task = self._at_work.pop(address, (0, 0))
                lib.vmk_world_hurry(task, False)
                lib.vmk_baton_drop()
                with self._shared.changed:
                    del self._shared.running[address]
                    self._shared.changed.notify_all()
                self.done.wake_up()


@linux_api()
def queue_work_on(linux: Linux, cpu: int, wq: Obj, work: Obj) -> bool:
    """Queue a work item. Whichever CPU is named, it runs on CPU 0, the only one that runs code."""
    return linux.state(Workqueues).queue(int(wq), work)


@linux_api()
def queue_delayed_work_on(linux: Linux, cpu: int, wq: Obj, dwork: Obj, delay: int) -> bool:
    """Queue a work item after some jiffies."""
    return linux.state(Workqueues).delay(int(wq), dwork, delay)


@linux_api()
def mod_delayed_work_on(linux: Linux, cpu: int, wq: Obj, dwork: Obj, delay: int) -> bool:
    """Queue a delayed item anew."""
    return linux.state(Workqueues).modify(int(wq), dwork, delay)


@linux_api()
def alloc_workqueue(linux: Linux, fmt: int, flags: int, max_active: int, arguments: VaList) -> int:
    """Make a queue; flags other than the number of items that may run at once only choose worlds."""
    queue = linux.allocate(linux.types.sizeof("workqueue_struct"), lib.vmk_owner())
    linux.state(Workqueues).limit(queue, max_active)
    return queue


@linux_api()
def destroy_workqueue(linux: Linux, wq: Obj) -> None:
    """Wait until the items of a queue have run, and free it."""
    queues = linux.state(Workqueues)
    queues.flush(queue=int(wq))
    queues.limit(int(wq), 0)
    linux.free(wq)


@linux_api()
def delayed_work_timer_fn(linux: Linux, timer: Obj) -> None:
    """The function of a delayed item's own timer, for drivers that set it themselves."""
    delayed = container_of(timer, linux.types, "delayed_work", "timer")
    linux.state(Workqueues).queue(int(delayed.wq), delayed.work)


@linux_api()
def cancel_work_sync(linux: Linux, work: Obj) -> bool:
    """Withdraw an item and wait until it does not run."""
    return linux.state(Workqueues).cancel(work, sync=True)


@linux_api()
def cancel_delayed_work_sync(linux: Linux, dwork: Obj) -> bool:
    """Withdraw a delayed item and wait until it does not run."""
    return linux.state(Workqueues).cancel(dwork.work, sync=True)


@linux_api()
def cancel_delayed_work(linux: Linux, dwork: Obj) -> bool:
    """Withdraw a delayed item."""
    return linux.state(Workqueues).cancel(dwork.work, sync=False)


@linux_api()
def cancel_work(linux: Linux, work: Obj) -> bool:
    """Withdraw an item."""
    return linux.state(Workqueues).cancel(work, sync=False)


@linux_api()
def disable_work(linux: Linux, work: Obj) -> bool:
    """Withdraw an item and let it not be queued until enabled."""
    return linux.state(Workqueues).disable(work, sync=False)


@linux_api()
def disable_work_sync(linux: Linux, work: Obj) -> bool:
    """Withdraw an item, wait until it does not run, and let it not be queued until enabled."""
    return linux.state(Workqueues).disable(work, sync=True)


@linux_api()
def disable_delayed_work_sync(linux: Linux, dwork: Obj) -> bool:
    """Do the same with a delayed item."""
    return linux.state(Workqueues).disable(dwork.work, sync=True)


@linux_api()
def enable_work(linux: Linux, work: Obj) -> bool:
    """Let an item be queued again."""
    return linux.state(Workqueues).enable(work)


@linux_api()
def enable_delayed_work(linux: Linux, dwork: Obj) -> bool:
    """Let a delayed item be queued again."""
    return linux.state(Workqueues).enable(dwork.work)


@linux_api()
def current_work(linux: Linux) -> int:
    """The item whose function this world runs; 0 outside of one."""
    return linux.state(Workqueues).current()


@linux_api()
def work_busy(linux: Linux, work: Obj) -> int:
    """Whether an item waits (1) or runs (2)."""
    return linux.state(Workqueues).busy(work)


@linux_api()
def flush_delayed_work(linux: Linux, dwork: Obj) -> bool:
    """Run a delayed item at once if it waits, and wait until it has run."""
    queues = linux.state(Workqueues)
    waited = queues.hurry(dwork)
    queues.flush(work=int(dwork.work))
    return waited


@linux_api()
def flush_work(linux: Linux, work: Obj) -> bool:
    """Wait until an item has run."""
    linux.state(Workqueues).flush(work=int(work))
    return True


@linux_api("drain_workqueue")
def __flush_workqueue(linux: Linux, wq: Obj) -> None:
    """Wait until the items of a queue have run."""
    linux.state(Workqueues).flush(queue=int(wq))
