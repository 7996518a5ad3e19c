"""Work of drivers in Python that may sleep (Linux kernel/workqueue.c)."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import TimedOut
from vmklinux.native.context import might_sleep
from vmklinux.native.device import baton
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.device import Device

#: Seconds that the end of a workqueue, and ``flush``, give an item that runs; and the end once its sleeps are cut short.
LIMIT, LAST = 30.0, 5.0


class Workqueue:
    """Runs functions of a driver's one after the other in a world of their own, with the baton; they may sleep.

    One that waits already is not queued again. What it raises stops the driver. It ends when the driver lets go of the
    device: items that wait are dropped, one that runs is waited for. Who waits must not have a lock that it takes: what
    takes the RTNL is for a workqueue that probe makes, since what ndo_open took goes back under the RTNL.
    """

    def __init__(self, device: Device) -> None:
        """No thread before the first item."""
        self._device = device
        self._items: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._waiting: list[Callable[[], object]] = []
        self._busy = self._ended = False
        self._task = 0
        self._idle = WaitQueue()
        self._thread: threading.Thread | None = None
        device.devres.add(self._end)

    def schedule_work(self, function: Callable[[], object]) -> bool:
        """Run the function soon; False when it waits already, or the driver has let go of the device. With the baton."""
        if self._ended or function in self._waiting:
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

    def flush(self, limit: float = LIMIT) -> None:
        """Wait until no item runs; nothing in one of its own items. With the baton; TimedOut, WorldEnded."""
        might_sleep()
        if threading.current_thread() is not self._thread:
            device = self._device
            self._idle.wait_until(
                lambda: not self._busy, f"a work item of {device.driver_name} for {device.name}", limit
            )

    def _end(self) -> None:
        self._ended = True
        self._waiting.clear()
        self._items.put(None)
        try:
            self.flush()
        except TimedOut:
            lib.vmk_world_end(self._task)  # it is not to find, much later, that all it uses has gone
            self.flush(LAST)

    def _run(self) -> None:
        while (function := self._items.get()) is not None:
            with baton():
                if function not in self._waiting:  # cancelled
                    continue
                self._waiting.remove(function)
                self._task, self._busy = lib.vmk_world_task(), True
                try:
                    self._device.deliver(function, may_sleep=True)
                finally:
                    self._busy = False
                    self._idle.wake_up()
