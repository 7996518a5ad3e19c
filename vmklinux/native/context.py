"""Where a driver must not sleep (Linux's in_atomic, might_sleep)."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger(__name__)


class _Atomic:
    """``with atomic:`` is around code of a driver that must not sleep. With the baton; it nests."""

    def __init__(self) -> None:
        self._threads: list[int] = []

    def __enter__(self) -> None:
        self._threads.append(threading.get_ident())

    def __exit__(self, *_error: object) -> None:
        self._threads.pop()


atomic = _Atomic()


def in_atomic() -> bool:
    """Whether this world must not sleep: it is in an interrupt handler, a timer's function, poll or ndo_start_xmit."""
    return threading.get_ident() in atomic._threads


def might_sleep() -> None:
    """For what sleeps: that it is called where it must not is logged, with the place; interrupts wait for its end."""
    if in_atomic():
        log.error("a driver sleeps where it must not (docs/native.md)", stack_info=True)
