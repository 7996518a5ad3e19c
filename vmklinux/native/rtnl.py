"""The lock under which network devices are configured (Linux net/core/rtnetlink.c)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmkernel_core.errors import TimedOut
from vmklinux.native.wait import WaitQueue, wait_event_timeout

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
        """Have it for a while; TimedOut when it does not come free."""
        me = threading.get_ident()
        if not wait_event_timeout(self._free, lambda: self._owner in (None, me), LIMIT):
            raise TimedOut(f"a network device was being configured for {LIMIT:.0f} s")
        self._owner = me
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._free.wake_up()
