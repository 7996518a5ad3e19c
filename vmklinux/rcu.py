"""Read-copy-update (Linux kernel/rcu): when what readers may still look at can go.

Readers count in their own task (``__rcu_read_lock`` runs from the image). One CPU runs all code, so whoever has it
sees only readers that gave it away in the middle, which waiting in an emulated function can do: a grace period lasts
until there are none. Callbacks run in the idle loop.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import TimedOut
from vmklinux.api import linux_api
from vmklinux.errors import DriverStopped

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

#: Nanoseconds between two looks for readers that have not come back yet.
AGAIN = 1_000_000
#: Seconds that a reader may stay away.
LIMIT = 30.0
#: A function below this is the offset of the head in an object that is just to be freed (__is_kvfree_rcu_offset).
OFFSETS = 4096


class GracePeriods:
    """The callbacks that wait for the end of a grace period."""

    def __init__(self, linux: Linux) -> None:
        """None waits."""
        self.linux = linux
        self._waiting: deque[tuple[int, int]] = deque()  # (function, argument), in the order of asking

    def synchronize(self) -> None:
        """Wait until no world is inside a read-side section; TimedOut when one stays."""
        deadline = lib.vmk_now() + int(LIMIT * 1e9)
        while lib.vmk_world_reading():
            if lib.vmk_now() >= deadline:
                raise TimedOut(f"a reader did not leave its section (RCU) within {LIMIT:.0f} s")
            lib.vmk_world_sleep(AGAIN)

    def call(self, function: int, argument: int) -> None:
        """Call a function of kernel code after a grace period."""
        self._waiting.append((function, argument))
        self._look(lib.vmk_now())

    def barrier(self) -> None:
        """Wait until every callback that waits now has run."""
        self.synchronize()
        for _ in range(len(self._waiting)):
            if self._waiting:
                self._run(*self._waiting.popleft())

    def drop(self, low: int, high: int) -> None:
        """Forget the callbacks whose function lies in [low, high): their module is dead."""
        self._waiting = deque(item for item in self._waiting if not low <= item[0] < high)

    def _look(self, when: int) -> None:
        self.linux.idle.timers.set(("rcu",), when, self._end)

    def _end(self) -> None:
        with self.linux.baton():
            if lib.vmk_world_reading():
                self._look(lib.vmk_now() + AGAIN)
            else:
                self.barrier()

    def _run(self, function: int, argument: int) -> None:
        try:
            self.linux.call(function, argument)
        except DriverStopped:
            log.debug("an RCU callback was stopped")  # on_stopped has been told


@linux_api("synchronize_rcu_expedited", "synchronize_net")
def synchronize_rcu(linux: Linux) -> None:
    """Wait until every world that is inside a read-side section has left it."""
    linux.state(GracePeriods).synchronize()


@linux_api("call_rcu_hurry")
def call_rcu(linux: Linux, head: Obj, func: int) -> None:
    """Call a function after a grace period."""
    linux.state(GracePeriods).call(func, int(head))


@linux_api()
def kvfree_call_rcu(linux: Linux, head: Obj, ptr: int) -> None:
    """Free an object after a grace period; 6.1 may tell it as the offset of its head."""
    address = int(head) - ptr if ptr < OFFSETS else ptr
    linux.state(GracePeriods).call(linux.entry("kvfree"), address)


@linux_api()
def rcu_barrier(linux: Linux) -> None:
    """Wait until the callbacks that were asked for have run."""
    linux.state(GracePeriods).barrier()
