"""The lock under which network devices are configured (Linux net/core/rtnetlink.c)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmklinux.native.context import might_sleep
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds until whoever waits for the lock gives up.
LIMIT = 60.0


class Rtnl:
    """One at a time configures a device, also while its driver sleeps and so has given the baton away.

    ``with rtnl.lock():`` is for program and driver alike, with the baton; a thread that has it may take it again.
    """

    def __init__(self) -> None:
        """Nobody has it."""
        self._owner: int | None = None
        self._depth = 0
        self._free = WaitQueue()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Have it for a while; TimedOut when it does not come free. WorldEnded."""
        might_sleep()
        me = threading.get_ident()
        self._free.wait_until(lambda: self._owner in (None, me), "what configures a network device", LIMIT)
        self._owner = me
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._free.wake_up()
