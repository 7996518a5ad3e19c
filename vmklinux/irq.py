"""Interrupts as drivers ask for them (Linux kernel/irq/manage.c), on the lines of vmkernel_core."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import TimedOut
from vmkernel_core.memory import load
from vmklinux.api import linux_api, no_op
from vmklinux.devres import Devres
from vmklinux.kobject import Obj, addressof
from vmklinux.sched import WaitQueue

if TYPE_CHECKING:
    from typing import Any

    from vmklinux.linux import Linux

# include/linux/interrupt.h
IRQF_SHARED, IRQF_ONESHOT, IRQF_NO_AUTOEN, IRQF_COND_ONESHOT = 0x80, 0x2000, 0x80000, 0x200000
IRQC_IS_HARDIRQ = 0
#: Seconds that the functions which wait for thread functions give them.
SYNC_LIMIT = 30.0


class Chip(Protocol):
    """What is behind a line that is no pin: ``kind`` is "msi" or "msi-x"."""

    kind: str

    def mask(self, line: int) -> None:
        """Let the device hold the line's message back: nobody handles it."""

    def unmask(self, line: int) -> None:
        """Let the device send the line's message."""


@dataclass(eq=False)
class Action:
    """One handler on a line: the driver's functions, its cookie, the name that it gave (and where that lies)."""

    line: int
    handler: int
    cookie: int
    name: str
    name_at: int
    flags: int
    function: int = 0  # of its thread; 0 without one
    ended: bool = False  # the thread

    @property
    def code(self) -> int:
        """An address in the driver's code."""
        return self.handler or self.function


@dataclass(frozen=True, slots=True)
class LineInfo:
    """A line as /proc/interrupts shows it: ``kind`` is "pin", "msi" or "msi-x".

    ``count`` and ``unhandled`` are numbers of interrupts; ``affinity_hint`` is a mask of CPUs, 0 without one.
    """

    number: int
    kind: str
    names: tuple[str, ...]
    count: int
    unhandled: int
    disabled: bool
    affinity_hint: int


@dataclass
class _Affinity:
    """What drivers said about where a line's handlers shall run."""

    hint: int = 0
    notifier: Obj | None = None


@dataclass
class Interrupts:
    """Who asked for which line, and what is known of the lines."""

    linux: Linux
    actions: list[Action] = field(default_factory=list)
    chips: dict[int, Chip] = field(default_factory=dict)
    affinities: dict[int, _Affinity] = field(default_factory=dict)
    _data: dict[int, Obj] = field(default_factory=dict)
    _done: WaitQueue = field(default_factory=WaitQueue)
    _ending: list[Action] = field(default_factory=list)

    def on(self, line: int) -> list[Action]:
        """The handlers of a line."""
        return [action for action in self.actions if action.line == line]

    def add(self, action: Action) -> int:
        """Install a handler: 0 or a negative error number."""
        first = not self.on(action.line)
        if action.function:
            once = bool(action.flags & IRQF_ONESHOT)
            thread = lib.vmk_irq_add_threaded(
                action.line, action.handler, action.cookie, action.function, once
            )
            if not thread:
                return -errno.ENOMEM
            name = f"irq/{action.line}-{action.name}"
            threading.Thread(target=self._run, args=(action, thread), name=name, daemon=True).start()
        elif error := lib.vmk_irq_add(action.line, action.handler, action.cookie):
            return int(error)
        if first and action.flags & IRQF_NO_AUTOEN:
            lib.vmk_irq_disable(action.line)
        self.actions.append(action)
        if first and (chip := self.chips.get(action.line)):
            chip.unmask(action.line)
        return 0

    def _run(self, action: Action, thread: Any) -> None:
        lib.vmk_irq_thread_run(thread)
        action.ended = True
        self._done.wake_up()

    def remove(self, action: Action, *, cut: bool = False) -> None:
        """Remove a handler; ``cut`` ends its thread wherever it sleeps. wait() waits for the thread."""
        (lib.vmk_irq_cut if cut else lib.vmk_irq_remove)(action.line, action.cookie)
        self.actions.remove(action)
        if action.function:
            self._ending.append(action)
        if (chip := self.chips.get(action.line)) and not self.on(action.line):
            chip.mask(action.line)

    def wait(self, action: Action) -> None:
        """Wait until the thread of a handler that was removed has ended; TimedOut."""
        self._done.wait_until(lambda: action.ended, f"the thread of {action.name}", SYNC_LIMIT)
        self._ending.remove(action)

    def reap(self, low: int, high: int) -> None:
        """Wait until the threads of removed handlers in [low, high) have ended; TimedOut."""
        for action in [action for action in self._ending if low <= action.code < high]:
            self.wait(action)

    def owned(self, low: int, high: int) -> list[Action]:
        """The handlers whose code lies in [low, high)."""
        return [action for action in self.actions if low <= action.code < high]

    def affinity(self, line: int) -> _Affinity:
        """What drivers said about a line's CPUs."""
        return self.affinities.setdefault(line, _Affinity())

    def data(self, line: int) -> Obj:
        """The irq_data of a line, for drivers that look into it: its affinity is every CPU."""
        if line not in self._data:
            linux = self.linux
            data, common = linux.new("irq_data"), linux.new("irq_common_data")
            data.irq, data.hwirq, data.common = line, line, common
            common.affinity = common.effective_affinity = linux.symbols["__cpu_possible_mask"]
            self._data[line] = data
        return self._data[line]

    def lines(self) -> list[LineInfo]:
        """Every line that has a handler, or that a device's messages were given."""
        numbers = sorted({action.line for action in self.actions} | set(self.chips))
        return [self._info(number) for number in numbers]

    def _info(self, number: int) -> LineInfo:
        stats = ffi.new("struct vmk_irq_stats *")
        lib.vmk_irq_stats(number, stats)
        chip = self.chips.get(number)
        affinity = self.affinities.get(number)
        return LineInfo(
            number, chip.kind if chip else "pin", tuple(action.name for action in self.on(number)),
            int(stats.delivered), int(stats.unhandled), stats.depth > 0, affinity.hint if affinity else 0,
        )  # fmt: skip


def _compatible(old: Action, flags: int) -> bool:
    """Whether a handler with these flags may share a line with that one (__setup_irq)."""
    return bool(old.flags & flags & IRQF_SHARED) and not (old.flags ^ flags) & IRQF_ONESHOT


@linux_api()
def request_threaded_irq(
    linux: Linux, irq: int, handler: int, thread_fn: int, irqflags: int, devname: int, dev_id: int
) -> int:
    """Install a handler, and a thread function that it may ask for, on an interrupt line."""
    interrupts = linux.state(Interrupts)
    if not (handler or thread_fn) or (irqflags & IRQF_SHARED and not dev_id):
        return -errno.EINVAL
    others = interrupts.on(irq)
    if irqflags & IRQF_COND_ONESHOT and any(other.flags & IRQF_ONESHOT for other in others):
        irqflags |= IRQF_ONESHOT
    if not handler and not irqflags & IRQF_ONESHOT and irq not in interrupts.chips:
        return -errno.EINVAL  # a level would call the default handler over and over
    if not all(_compatible(other, irqflags) for other in others):
        return -errno.EBUSY
    name = linux.string(devname) if devname else ""
    return interrupts.add(Action(irq, handler, dev_id, name, devname, irqflags, thread_fn))


@linux_api()
def request_any_context_irq(linux: Linux, irq: int, handler: int, flags: int, name: int, dev_id: int) -> int:
    """Install a handler on a line; no line here calls its handlers from a thread."""
    return request_threaded_irq(linux, irq, handler, 0, flags, name, dev_id) or IRQC_IS_HARDIRQ


@linux_api()
def free_irq(linux: Linux, irq: int, dev_id: int) -> int:
    """Remove a handler and wait for its thread; the name that it was installed under."""
    interrupts = linux.state(Interrupts)
    action = next((action for action in interrupts.on(irq) if action.cookie == dev_id), None)
    if action is None:
        return 0
    interrupts.remove(action)
    if action.function:
        interrupts.wait(action)
    return action.name_at


@linux_api()
def devm_request_threaded_irq(
    linux: Linux, dev: Obj, irq: int, handler: int, thread_fn: int, irqflags: int, devname: int, dev_id: int
) -> int:
    """Install a handler that is removed when the driver lets go of the device."""
    name = devname or dev.init_name or dev.kobj.name
    error = request_threaded_irq(linux, irq, handler, thread_fn, irqflags, name, dev_id)
    if not error:
        linux.state(Devres).action(dev, partial(free_irq, linux, irq, dev_id), (irq, dev_id))
    return error


@linux_api()
def devm_free_irq(linux: Linux, dev: Obj, irq: int, dev_id: int) -> None:
    """Remove such a handler earlier."""
    devres = linux.state(Devres)
    if resource := devres.find_action(dev, (irq, dev_id)):
        devres.take(dev, resource)
    free_irq(linux, irq, dev_id)


def _sync(irq: int) -> None:
    if lib.vmk_irq_sync(irq, int(SYNC_LIMIT * 1e9)):
        raise TimedOut(f"the threads of interrupt line {irq} did not end within {SYNC_LIMIT:.0f} s")


@linux_api()
def disable_irq(linux: Linux, irq: int) -> None:
    """Disable a line and wait for its thread functions; no handler runs now, because this world holds the CPU."""
    lib.vmk_irq_disable(irq)
    _sync(irq)


@linux_api("disable_irq_nosync")
def disable_hardirq(linux: Linux, irq: int) -> bool:
    """Disable a line; no handler runs now, because this world holds the CPU."""
    lib.vmk_irq_disable(irq)
    return True


@linux_api()
def enable_irq(linux: Linux, irq: int) -> None:
    """Enable a line as often as it was disabled."""
    lib.vmk_irq_enable(irq)


@linux_api()
def synchronize_irq(linux: Linux, irq: int) -> None:
    """Wait for the thread functions of the line; no handler runs now, because this world holds the CPU."""
    _sync(irq)


@linux_api()
def synchronize_hardirq(linux: Linux, irq: int) -> bool:
    """Wait for handlers of the line: none runs, because this world holds the CPU."""
    return True


@linux_api()
def irq_wake_thread(linux: Linux, irq: int, dev_id: int) -> None:
    """Make a thread function run."""
    lib.vmk_irq_thread_wake(irq, dev_id)


# ---- affinity: all handlers run on CPU 0 (cpu.py), so it is remembered and changes nothing ----


def _mask(address: int) -> int:
    return load(address, 8) if address else 0


@linux_api(note="All handlers run on CPU 0: the hint can be read back, and that is all.")
def __irq_apply_affinity_hint(linux: Linux, irq: int, m: Obj, setaffinity: bool) -> int:
    """Say where the line's handlers would run best."""
    linux.state(Interrupts).affinity(irq).hint = _mask(int(m))
    return 0


@linux_api("irq_force_affinity")
def irq_set_affinity(linux: Linux, irq: int, cpumask: Obj) -> int:
    """Say on which CPUs the line's handlers shall run: -EINVAL unless one that there is is among them."""
    return 0 if _mask(int(cpumask)) & load(linux.symbols["__cpu_online_mask"], 8) else -errno.EINVAL


@linux_api(note="The affinity never changes, so that nobody is notified.")
def irq_set_affinity_notifier(linux: Linux, irq: int, notify: Obj) -> int:
    """Say who wants to hear of changes of affinity; who wanted it before is released."""
    affinity = linux.state(Interrupts).affinity(irq)
    old, affinity.notifier = affinity.notifier, notify or None
    if notify:
        notify.irq = irq
        notify.kref.refcount.refs.counter = 1
    if old is not None:
        linux.call(old.release, addressof(old, "kref"))
    return 0


@linux_api()
def irq_get_irq_data(linux: Linux, irq: int) -> int:
    """The irq_data of a line."""
    return int(linux.state(Interrupts).data(irq))


@linux_api(
    partial="IRQ_NOAUTOEN is not obeyed; the flags of balancing mean nothing where all handlers run on CPU 0."
)
def irq_modify_status(linux: Linux, irq: int, clr: int, set: int) -> None:
    """Change flags of a line."""


no_op("irq.py", "The machine has no ISA lines to probe.", "probe_irq_on", "probe_irq_off")
no_op("irq.py", "The machine does not sleep, so that nothing has to wake it.", "irq_set_irq_wake")
