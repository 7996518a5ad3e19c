"""Work of drivers in Python that may sleep (Linux kernel/workqueue.c)."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from vmkernel_core.errors import TimedOut
from vmklinux.native.device import baton
from vmklinux.native.wait import WaitQueue, wait_event_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.device import Device

#: Seconds that the end of a workqueue, and ``flush``, give an item that runs.
LIMIT = 30.0


class Workqueue:
    """Runs functions of a driver's one after the other in a world of their own, with the baton; they may sleep.

    One that waits already is not queued again. What it raises stops the driver. It ends when the driver lets go of the
    device: items that wait are dropped, one that runs is waited for.
    """

    def __init__(self, device: Device) -> None:
        """No thread before the first item."""
        self._device = device
        self._items: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._waiting: list[Callable[[], object]] = []
        self._busy = False
        self._idle = WaitQueue()
        self._thread: threading.Thread | None = None
        device.devres.add(self._end)

    def schedule_work(self, function: Callable[[], object]) -> bool:
        """Run the function soon; False when it waits already. With the baton."""
        if function in self._waiting:
            return False
        self._waiting.append(function)
        if self._thread is None:
            name = f"vmk-work {self._device.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._items.put(function)
        return True

    def cancel_work_sync(self, function: Callable[[], object]) -> None:
        """It is not run any more, and does not run. With the baton; TimedOut."""
        if function in self._waiting:
            self._waiting.remove(function)
        self.flush()

    def flush(self) -> None:
        """Wait until no item runs; nothing in one of its own items. With the baton; TimedOut."""
        if threading.current_thread() is self._thread:
            return
        if not wait_event_timeout(self._idle, lambda: not self._busy, LIMIT):
            raise TimedOut(f"a work item of {self._device.driver_name} did not end", where=self._device.name)

    def _end(self) -> None:
        self._waiting.clear()
        self._items.put(None)
        self.flush()

    def _run(self) -> None:
        while (function := self._items.get()) is not None:
            with baton():
                if function not in self._waiting:  # cancelled
                    continue
                self._waiting.remove(function)
                self._busy = True
                self._device.deliver(function)
                self._busy = False
                self._idle.wake_up()
