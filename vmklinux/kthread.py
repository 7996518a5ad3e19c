"""Kernel threads (Linux kernel/kthread.c): worlds of their own. kthread_worker runs from the image, on top of these."""

from __future__ import annotations

import errno
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import store_bytes
from vmklinux.api import linux_api, no_op
from vmklinux.errors import DriverStopped, WorldEnded
from vmklinux.kobject import Obj
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from vmklinux.linux import Linux, VaList

log = logging.getLogger(__name__)

#: Seconds that the start of a thread, and kthread_stop, wait for it.
LIMIT = 30.0
_TASK_UNINTERRUPTIBLE = 2  # include/linux/sched.h
_PF_KTHREAD = 0x0020_0000
_COMM = 16  # TASK_COMM_LEN


@dataclass(eq=False)
class KThread:
    """A thread: what it runs, for which module (``owner``, a code address), and how far it is."""

    function: int
    data: int
    owner: int
    name: str
    private: Obj  # what the image's own code reads of a thread
    task: int = 0
    stop: bool = False
    ended: bool = False
    result: int = -errno.EINTR  # of one that never ran
    #: Its task_struct lives as long as its thread, which ends no sooner than nobody may ask for it any more.
    forgotten: threading.Event = field(default_factory=threading.Event)


class KThreads:
    """The threads that were made and not stopped yet."""

    def __init__(self, linux: Linux) -> None:
        """There is none."""
        self.linux = linux
        self.changed = WaitQueue()
        self.all: list[KThread] = []

    def create(self, function: int, data: int, name: str, owner: int) -> KThread:
        """Make a thread that sleeps until it is woken for the first time."""
        thread = KThread(function, data, owner, name, self.linux.new("kthread"))
        threading.Thread(target=self._run, args=(thread,), name=name, daemon=True).start()
        self.changed.wait_until(lambda: bool(thread.task), f"the start of thread {name}", LIMIT)
        self.all.append(thread)
        return thread

    def _run(self, thread: KThread) -> None:
        linux = self.linux
        lib.vmk_baton_take()
        try:
            task = Obj(linux.types, "task_struct", lib.vmk_world_task())
            setattr(task, "__state", _TASK_UNINTERRUPTIBLE)
            task.usage.refs.counter = 1
            task.flags, task.worker_private = _PF_KTHREAD, thread.private
            store_bytes(task.comm.address, thread.name.encode()[: _COMM - 1].ljust(_COMM, b"\0"))
            thread.task = int(task)
            self.changed.wake_up()
            linux.call(linux.entry("schedule"), owner=thread.owner)
            if not thread.stop:
                thread.result = linux.call_int(thread.function, thread.data, owner=thread.owner)
        except (DriverStopped, WorldEnded):
            log.debug("thread %s was ended", thread.name)  # on_stopped has been told
        except Exception:  # an emulated function failed: nobody else is there to be told
            log.exception("thread %s failed", thread.name)
        finally:
            thread.ended = True
            self.changed.wake_up()
            lib.vmk_baton_drop()
        thread.forgotten.wait()

    def find(self, task: int) -> KThread | None:
        """The thread with that task_struct; None for a world that is no kernel thread."""
        return next((thread for thread in self.all if thread.task == task), None)

    def stop(self, thread: KThread) -> int:
        """Ask a thread to end, wait for it, and forget it; what its function returned."""
        self._ask(thread)
        self.linux.call(self.linux.entry("wake_up_process"), thread.task)
        self.changed.wait_until(lambda: thread.ended, f"the end of thread {thread.name}", LIMIT)
        self.forget(thread)
        return thread.result

    def _ask(self, thread: KThread) -> None:
        thread.stop = True
        thread.private.flags |= 1 << self.linux.types.enumerator("KTHREAD_SHOULD_STOP")

    def forget(self, thread: KThread) -> None:
        """Nobody uses the task_struct of a thread that has ended any more."""
        self.all.remove(thread)
        self.linux.free(thread.private)
        thread.forgotten.set()

    def owned(self, low: int, high: int) -> list[KThread]:
        """Threads that code in [low, high) made, or whose function lies there."""
        return [t for t in self.all if low <= t.owner < high or low <= t.function < high]

    def end(self, thread: KThread) -> None:
        """End a thread whose module goes, wherever it sleeps; does not wait."""
        self._ask(thread)
        lib.vmk_world_end(thread.task)

    def reap(self, low: int, high: int) -> None:
        """Wait until the threads of that module have ended, and forget them; TimedOut."""
        for thread in self.owned(low, high):
            self.changed.wait_until(lambda: thread.ended, f"the end of thread {thread.name}", LIMIT)  # noqa: B023 - called at once
            self.forget(thread)


@linux_api()
def kthread_create_on_node(
    linux: Linux, threadfn: int, data: int, node: int, namefmt: int, arguments: VaList
) -> int:
    """Make a thread; it runs from its first wake_up_process on."""
    name = linux.format(namefmt, arguments)
    return linux.state(KThreads).create(threadfn, data, name, lib.vmk_owner()).task


@linux_api()
def kthread_should_stop(linux: Linux) -> bool:
    """Whether kthread_stop was called for the thread that asks."""
    thread = linux.state(KThreads).find(lib.vmk_world_task())
    return thread is not None and thread.stop


@linux_api()
def kthread_stop(linux: Linux, k: Obj) -> int:
    """Ask a thread to end and wait for it; what its function returned, -EINTR when it never ran."""
    threads = linux.state(KThreads)
    thread = threads.find(int(k))
    if thread is None:
        raise ValueError(f"kthread_stop: there is no thread with the task {int(k):#x}")
    return threads.stop(thread)


@linux_api()
def kthread_create_worker(linux: Linux, flags: int, namefmt: int, arguments: VaList) -> int:
    """Make a worker and its thread, which waits for work."""
    owner: int = lib.vmk_owner()
    worker = linux.new("kthread_worker", owner)
    linux.call("__kthread_init_worker", worker, 0, 0)
    name = linux.format(namefmt, arguments)
    thread = linux.state(KThreads).create(linux.symbols["kthread_worker_fn"], int(worker), name, owner)
    worker.flags, worker.task = flags, thread.task
    linux.call(linux.entry("wake_up_process"), thread.task)
    return int(worker)


no_op("kthread.py", "Every thread runs on CPU 0, the only one that runs code.", "kthread_bind")
no_op(
    "kthread.py", "Worlds take turns; the host schedules their threads.", "set_user_nice",
    "sched_set_fifo", "sched_set_fifo_low", "sched_set_normal",
)  # fmt: skip
