"""Interrupts as drivers ask for them (Linux kernel/irq/manage.c), on the lines of vmkernel_core."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.linux import Linux

IRQF_SHARED = 0x80  # include/linux/interrupt.h


@dataclass(frozen=True, slots=True)
class Action:
    """One handler on a line: the driver's function, its cookie, the name that it gave."""

    line: int
    handler: int
    cookie: int
    name: str
    shared: bool


class Interrupts:
    """Who asked for which line."""

    def __init__(self, linux: Linux) -> None:
        """Nobody did."""
        self.actions: list[Action] = []

    def owned(self, low: int, high: int) -> list[Action]:
        """The handlers whose code lies in [low, high)."""
        return [action for action in self.actions if low <= action.handler < high]


@linux_api(partial="Threaded handlers (thread_fn) are refused with -EOPNOTSUPP.")
def request_threaded_irq(
    linux: Linux, irq: int, handler: int, thread_fn: int, irqflags: int, devname: int, dev_id: int
) -> int:
    """Install a handler on an interrupt line."""
    if thread_fn or not handler:
        return -errno.EOPNOTSUPP
    interrupts = linux.state(Interrupts)
    shared = bool(irqflags & IRQF_SHARED)
    if any(action.line == irq and not (action.shared and shared) for action in interrupts.actions):
        return -errno.EBUSY
    error: int = lib.vmk_irq_add(irq, handler, dev_id)
    if not error:
        interrupts.actions.append(Action(irq, handler, dev_id, linux.string(devname), shared))
    return error


@linux_api()
def free_irq(linux: Linux, irq: int, dev_id: int) -> int:
    """Remove a handler. Linux gives back the name that it was installed under; here it is a null pointer."""
    interrupts = linux.state(Interrupts)
    lib.vmk_irq_remove(irq, dev_id)
    interrupts.actions = [a for a in interrupts.actions if (a.line, a.cookie) != (irq, dev_id)]
    return 0


@linux_api("disable_irq_nosync", "disable_irq")
def disable_hardirq(linux: Linux, irq: int) -> bool:
    """Disable a line; no handler runs now, because this world holds the CPU."""
    lib.vmk_irq_disable(irq)
    return True


@linux_api()
def enable_irq(linux: Linux, irq: int) -> None:
    """Enable a line as often as it was disabled."""
    lib.vmk_irq_enable(irq)


@linux_api("synchronize_hardirq")
def synchronize_irq(linux: Linux, irq: int) -> bool:
    """Wait for handlers of the line: none runs, because this world holds the CPU."""
    return True
