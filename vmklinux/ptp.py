"""PTP hardware clocks (Linux drivers/ptp/ptp_clock.c): those that drivers register, by number."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.kobject import Obj
from vmklinux.workqueue import Workqueues

if TYPE_CHECKING:
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PtpClock:
    """A registered clock: its number, its ``ptp_clock``, the driver's ``ptp_clock_info``, the auxiliary work."""

    index: int
    clock: Obj
    info: Obj
    work: Obj
    owner: int


class PtpClocks:
    """The registered clocks, by address of their ptp_clock."""

    def __init__(self, linux: Linux) -> None:
        """None yet."""
        self.linux = linux
        self.clocks: dict[int, PtpClock] = {}

    def add(self, info: Obj, parent: Obj) -> PtpClock:
        """Number a clock."""
        taken = {entry.index for entry in self.clocks.values()}
        index = next(number for number in range(len(taken) + 1) if number not in taken)
        owner = lib.vmk_owner()
        clock, work = self.linux.new("ptp_clock", owner), self.linux.new("delayed_work", owner)
        clock.info, clock.index = info, index
        clock.dev.parent = parent
        work.work.func = self.linux.entry("ptp_aux_kworker")
        entry = self.clocks[int(clock)] = PtpClock(index, clock, info, work, owner)
        return entry

    def remove(self, clock: Obj) -> None:
        """Take a clock away, its work first."""
        entry = self.clocks.pop(int(clock))
        self.linux.state(Workqueues).cancel(entry.work.work, sync=True)
        self.linux.free(entry.work)
        self.linux.free(entry.clock)

    def schedule(self, entry: PtpClock, jiffies: int) -> bool:
        """Run the driver's do_aux_work after some jiffies; whether it waited already."""
        return self.linux.state(Workqueues).modify(0, entry.work, jiffies)

    def run(self, work: int) -> None:
        """Call do_aux_work, which tells when it wants to be called again."""
        entry = next((entry for entry in self.clocks.values() if int(entry.work) == work), None)
        if entry is None:
            return
        jiffies = self.linux.call(entry.info.do_aux_work, entry.info, owner=entry.owner)
        if not jiffies >> 63:  # a negative number: not again
            self.schedule(entry, jiffies)


@linux_api(partial="There is no /dev/ptp: programs use the functions of the clock's ptp_clock_info.")
def ptp_clock_register(linux: Linux, info: Obj, parent: Obj) -> int:
    """Make a card's clock known."""
    entry = linux.state(PtpClocks).add(info, parent)
    log.debug("clock %d is %s", entry.index, info.name.text())
    return int(entry.clock)


@linux_api()
def ptp_clock_unregister(linux: Linux, ptp: Obj) -> int:
    """Take a card's clock away."""
    linux.state(PtpClocks).remove(ptp)
    return 0


@linux_api()
def ptp_clock_index(linux: Linux, ptp: Obj) -> int:
    """The clock's number."""
    return int(ptp.index)


@linux_api("ptp_find_pin_unlocked")
def ptp_find_pin(linux: Linux, ptp: Obj, func: int, chan: int) -> int:
    """The pin that serves a function on a channel, or -1."""
    pins = ptp.info.pin_config
    for number in range(ptp.info.n_pins):
        if (pins[number].func, pins[number].chan) == (func, chan):
            return number
    return -1


@linux_api(partial="Nobody reads a clock's events (external time stamps, pulses): they are logged.")
def ptp_clock_event(linux: Linux, ptp: Obj, event: Obj) -> None:
    """Take an event of a clock."""
    log.debug("clock %d: event %d on channel %d at %d", ptp.index, event.type, event.index, event.timestamp)


@linux_api()
def ptp_schedule_worker(linux: Linux, ptp: Obj, delay: int) -> int:
    """Have the driver's do_aux_work called after some jiffies."""
    clocks = linux.state(PtpClocks)
    entry = clocks.clocks.get(int(ptp))
    return clocks.schedule(entry, delay) if entry else -errno.ENODEV


@linux_api()
def ptp_cancel_worker_sync(linux: Linux, ptp: Obj) -> None:
    """Withdraw a clock's work and wait until it does not run."""
    if entry := linux.state(PtpClocks).clocks.get(int(ptp)):
        linux.state(Workqueues).cancel(entry.work.work, sync=True)


@linux_api(note="It runs as a work item, not in a thread of its own.")
def ptp_aux_kworker(linux: Linux, work: Obj) -> None:
    """Call the clock's do_aux_work; never imported, but called by address."""
    linux.state(PtpClocks).run(int(work))
