"""Functions that are run asynchronously, each in a world of its own (Linux kernel/async.c)."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.errors import DriverStopped, WorldEnded
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

#: Seconds that whoever synchronizes waits: the scan of a large host is among what runs here.
LIMIT = 300.0
#: The domain of functions that were scheduled without one.
DEFAULT = 0


@dataclass(eq=False)
class AsyncCall:
    """A function that was scheduled and has not ended; ``task`` is 0 until its world begins."""

    cookie: int
    function: int
    data: int
    domain: int
    counts: bool  # whether waiting for everything includes it
    owner: int
    task: int = 0
    cancelled: bool = False


class AsyncCalls:
    """Those of one kernel, in the order of their cookies."""

    def __init__(self, linux: Linux) -> None:
        """There is none."""
        self.linux = linux
        self.changed = WaitQueue()
        self.calls: list[AsyncCall] = []
        self._last = 0

    def schedule(self, function: int, data: int, domain: int, *, counts: bool = True) -> int:
        """Have ``function(data, cookie)`` run; the cookie."""
        self._last += 1
        call = AsyncCall(self._last, function, data, domain, counts, lib.vmk_owner())
        self.calls.append(call)
        name = f"async-{call.cookie}"
        threading.Thread(target=self._run, args=(call,), name=name, daemon=True).start()
        return call.cookie

    def _run(self, call: AsyncCall) -> None:
        lib.vmk_baton_take()
        try:
            call.task = lib.vmk_world_task()
            if not call.cancelled:
                self.linux.call(call.function, call.data, call.cookie, owner=call.owner)
        except (DriverStopped, WorldEnded):
            log.debug("an asynchronous function was ended")  # on_stopped has been told
        except Exception:  # an emulated function failed: nobody else is there to be told
            log.exception("an asynchronous function failed")
        finally:
            self.calls.remove(call)
            self.changed.wake_up()
            lib.vmk_baton_drop()

    def wait(self, domain: int | None, before: int | None = None) -> None:
        """Wait until a domain's functions (None: all that count) with cookies below ``before`` have ended. TimedOut."""

        def waits_for(call: AsyncCall) -> bool:
            included = call.counts if domain is None else call.domain == domain
            return included and (before is None or call.cookie < before)

        self.changed.wait_until(lambda: not any(map(waits_for, self.calls)), "asynchronous functions", LIMIT)

    def owned(self, low: int, high: int) -> list[AsyncCall]:
        """Those that code in [low, high) scheduled, or whose function lies there."""
        return [c for c in self.calls if low <= c.function < high or low <= c.owner < high]

    def end(self, low: int, high: int) -> None:
        """Their module goes: end them, wherever they sleep; does not wait."""
        for call in self.owned(low, high):
            call.cancelled = True
            if call.task:
                lib.vmk_world_end(call.task)

    def reap(self, low: int, high: int) -> None:
        """Wait until those of a module have ended; TimedOut."""
        self.changed.wait_until(lambda: not self.owned(low, high), "asynchronous functions", LIMIT)


@linux_api()
def async_schedule_node(linux: Linux, func: int, data: int, node: int) -> int:
    """Have a function run; a cookie, by which it can be waited for."""
    return linux.state(AsyncCalls).schedule(func, data, DEFAULT)


@linux_api()
def async_schedule_node_domain(linux: Linux, func: int, data: int, node: int, domain: Obj) -> int:
    """Have a function run that belongs to a domain; a cookie, by which it can be waited for."""
    return linux.state(AsyncCalls).schedule(func, data, int(domain), counts=bool(domain.registered))


@linux_api()
def async_synchronize_full(linux: Linux) -> None:
    """Wait until every function of the domains that are registered has ended."""
    linux.state(AsyncCalls).wait(None)


@linux_api()
def async_synchronize_full_domain(linux: Linux, domain: Obj) -> None:
    """Wait until every function of a domain has ended."""
    linux.state(AsyncCalls).wait(int(domain) or None)


@linux_api()
def async_synchronize_cookie(linux: Linux, cookie: int) -> None:
    """Wait until every function without a domain that was scheduled before a cookie has ended."""
    linux.state(AsyncCalls).wait(DEFAULT, cookie)


@linux_api()
def async_synchronize_cookie_domain(linux: Linux, cookie: int, domain: Obj) -> None:
    """Wait until every function of a domain that was scheduled before a cookie has ended."""
    linux.state(AsyncCalls).wait(int(domain) or None, cookie)
