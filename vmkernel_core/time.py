"""Time: timers by absolute deadline, in nanoseconds of CLOCK_MONOTONIC."""

from __future__ import annotations

import heapq
import itertools
import threading
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from vmkernel_core._core import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

#: No timer is set.
NEVER = (1 << 64) - 1


class TimerQueue:
    """Timers by key: setting one again moves it, as Linux's mod_timer does. Safe from any thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._heap: list[tuple[int, int, Hashable]] = []
        self._live: dict[Hashable, tuple[int, Callable[[], None]]] = {}
        self._order = itertools.count()

    def set(self, key: Hashable, deadline: int, callback: Callable[[], None]) -> bool:
        """Call back at the deadline, from the idle loop. Whether the key was set already."""
        with self._lock:
            order = next(self._order)
            was_set = key in self._live
            self._live[key] = (order, callback)
            heapq.heappush(self._heap, (deadline, order, key))
            first = self._heap[0][1] == order
        if first:
            lib.vmk_kick()
        return was_set

    def cancel(self, key: Hashable) -> bool:
        """Whether there was one to cancel; a callback that has begun is not stopped."""
        with self._lock:
            return self._live.pop(key, None) is not None

    def _first(self) -> tuple[int, int, Hashable] | None:
        while self._heap:
            entry = self._heap[0]
            if self._live.get(entry[2], (None, None))[0] == entry[1]:
                return entry
            heapq.heappop(self._heap)
        return None

    def next_deadline(self) -> int:
        """When the earliest timer is due; NEVER without one."""
        with self._lock:
            first = self._first()
            return first[0] if first else NEVER

    def fire(self) -> int:
        """Call back all that is due; how many."""
        fired = 0
        while True:
            with self._lock:
                first = self._first()
                if first is None or first[0] > lib.vmk_now():
                    return fired
                _, callback = self._live.pop(first[2])
            callback()
            fired += 1


@contextmanager
def timed(table: dict[str, float], key: str) -> Iterator[None]:
    """Add the seconds that a block takes to a table."""
    began = perf_counter()
    try:
        yield
    finally:
        table[key] = table.get(key, 0.0) + perf_counter() - began
