"""The idle loop: the world that waits for hardware, timers and events when nobody else runs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import TimedOut
from vmkernel_core.time import TimerQueue

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_GONE, _EVENTS = 4, 8
#: Seconds that stop() gives the idle loop to come back from what it is doing.
STOP_LIMIT = 15.0


class IdleLoop:
    """Runs timers, interrupts and softirqs in a thread of its own, and tells about events.

    ``on_event`` gets each vmk_event (a struct of the C core) about kernel code, ``on_gone`` is called once a bus has
    gone. An exception in a callback is logged with its traceback and does not end the loop.
    """

    def __init__(self, on_event: Callable[[Any], None], on_gone: Callable[[], None]) -> None:
        """Make it; start() runs it."""
        self.timers = TimerQueue()
        self._on_event = on_event
        self._on_gone = on_gone
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="vmk-idle", daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; TimedOut when a callback does not come back."""
        self._stopping = True
        lib.vmk_kick()
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT)
            if self._thread.is_alive():
                raise TimedOut(f"the idle loop did not end within {STOP_LIMIT:.0f} s")

    def _guarded(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except Exception:
            log.exception("a callback of the idle loop failed")

    def _event(self, event: Any) -> None:
        if event.kind == lib.VMK_EVENT_NOBODY_CARED:
            log.error("irq %d: nobody cared; the line is disabled", event.detail)
        elif event.kind == lib.VMK_EVENT_LOST:
            log.warning("%d events were lost", event.detail)
        else:
            self._on_event(event)

    def _run(self) -> None:
        event = ffi.new("struct vmk_event *")
        while not self._stopping:
            reasons = lib.vmk_idle(self.timers.next_deadline())
            self._guarded(self.timers.fire)
            if reasons & _EVENTS:
                while lib.vmk_event_next(event):
                    self._guarded(self._event, event)
            if reasons & _GONE:
                self._guarded(self._on_gone)
