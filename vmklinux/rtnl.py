"""The RTNL (Linux net/core/rtnetlink.c): the lock under which network devices are configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from types import TracebackType

    from vmklinux.linux import Linux

#: Seconds after which whoever waits for the lock is told that nobody lets it go.
LIMIT = 60.0


class Rtnl:
    """The lock: ``with linux.state(Rtnl):`` on this side, rtnl_lock for drivers. The same world may take it again."""

    def __init__(self, linux: Linux) -> None:
        """Nobody holds it."""
        self._linux = linux
        self._depth = 0
        self._holder = 0
        self._owner = 0
        self._freed = WaitQueue()

    @property
    def is_locked(self) -> bool:
        """Whether any world holds it."""
        return self._depth > 0

    def _may_take(self) -> bool:
        return not self._depth or self._holder == lib.vmk_world_task()

    def acquire(self) -> None:
        """Wait for it, without the baton, and take it; TimedOut."""
        with self._linux.baton():
            self._freed.wait_until(self._may_take, "another world's hold of the RTNL", LIMIT)
            self._holder, self._owner = lib.vmk_world_task(), lib.vmk_owner()
            self._depth += 1

    def try_acquire(self) -> bool:
        """Take it if nobody has it, not even this world."""
        with self._linux.baton():
            if self._depth:
                return False
            self.acquire()
            return True

    def release(self) -> None:
        """Let it go, as often as it was taken."""
        with self._linux.baton():
            self._depth -= 1
            if not self._depth:
                self._freed.wake_up()

    def abandon(self, low: int, high: int) -> None:
        """Let it go for a driver in [low, high) that was stopped while it held it."""
        with self._linux.baton():
            if self._depth and low <= self._owner < high:
                self._depth = 1
                self.release()

    def __enter__(self) -> None:
        """Take it."""
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go, unless abandon() has."""
        if self._depth and self._holder == lib.vmk_world_task():
            self.release()


@linux_api("rtnl_lock_killable")
def rtnl_lock(linux: Linux) -> int:
    """Take the RTNL."""
    linux.state(Rtnl).acquire()
    return 0


@linux_api()
def rtnl_trylock(linux: Linux) -> bool:
    """Take the RTNL if nobody has it."""
    return linux.state(Rtnl).try_acquire()


@linux_api("__rtnl_unlock")
def rtnl_unlock(linux: Linux) -> None:
    """Let the RTNL go."""
    linux.state(Rtnl).release()


@linux_api()
def rtnl_is_locked(linux: Linux) -> bool:
    """Whether somebody holds the RTNL."""
    return linux.state(Rtnl).is_locked
