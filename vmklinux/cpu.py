"""CPUs as drivers count them (Linux kernel/cpu.c, arch/x86/kernel/setup_percpu.c).

One baton runs all kernel code, on CPU 0. Others are only presented, so that drivers make a queue for each: they are
in every mask and have a per-CPU area each, in which nothing runs.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import UsageError
from vmkernel_core.memory import load, store
from vmklinux.api import linux_api, no_op
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

#: From one CPU's area to the next: for the image's and the modules' per-CPU data as for what alloc_percpu gives, which
#: lies in machine memory, and for the other CPUs behind it at this distance.
STRIDE = 1 << 32
#: As many areas fit before the array of struct page.
MOST_CPUS = 64
#: Masks of CPUs (kernel/cpu.c), as far as a kernel has them.
_MASKS = ("possible", "present", "online", "active", "enabled")
#: Per-CPU pointers to masks of neighbours (arch/x86/kernel/smpboot.c): each CPU is a core of one package.
_ALONE, _ALL = ("cpu_sibling_map",), ("cpu_core_map", "cpu_die_map")


def check(cpus: int, memory: int) -> None:
    """UsageError where so many CPUs cannot be presented with so much machine memory (bytes)."""
    if not 1 <= cpus <= MOST_CPUS or (cpus > 1 and memory > STRIDE):
        raise UsageError(
            f"{cpus} CPUs cannot be presented",
            remedy=f"1 to {MOST_CPUS}; with more than {STRIDE >> 30} GiB of memory, 1",
        )


def present(linux: Linux, cpus: int, percpu: int) -> None:
    """Tell the image of its CPUs, whose areas lie at ``percpu`` and every STRIDE behind it."""
    symbols, every = linux.symbols, (1 << cpus) - 1
    for kind in _MASKS:
        if (at := symbols.get(f"__cpu_{kind}_mask")) is not None:
            store(at, 8, every)
    store(symbols["__num_online_cpus"], 4, cpus)
    store(symbols["nr_cpu_ids"], 4, cpus)
    # Of neighbours the image has pointers to masks (CONFIG_CPUMASK_OFFSTACK).
    masks = [linux.allocate(linux.types.sizeof("cpumask")) for _ in range(cpus + 1)]
    for mask, value in zip(masks, [1 << n for n in range(cpus)] + [every], strict=True):
        store(mask, 8, value)
    store(symbols["node_to_cpumask_map"], 8, masks[cpus])
    number = symbols.get("cpu_number")
    if number is None:
        number = symbols["pcpu_hot"] + linux.types.offsetof("pcpu_hot", "cpu_number")
    for cpu in range(cpus):
        area = percpu + cpu * STRIDE
        store(symbols["__per_cpu_offset"] + 8 * cpu, 8, area)
        store(area + symbols["this_cpu_off"], 8, area)
        store(area + number, 4, cpu)
        store(area + symbols["numa_node"], 4, 0)
        for names, mask in ((_ALONE, masks[cpu]), (_ALL, masks[cpus])):
            for name in names:
                store(area + symbols[name], 8, mask)
    lib.linux_cpus(cpus, STRIDE)


@dataclass
class _State:
    startup: int
    teardown: int
    instances: list[Obj] = field(default_factory=list)


class HotplugStates:
    """What drivers have called for each CPU: their states by number."""

    def __init__(self, linux: Linux) -> None:
        """None yet."""
        self.linux = linux
        self.states: dict[int, _State] = {}
        #: Numbers that mean any free one behind them.
        self.dynamic = [
            linux.types.enumerator(name) for name in ("CPUHP_AP_ONLINE_DYN", "CPUHP_BP_PREPARE_DYN")
        ]

    def free_number(self, wanted: int) -> int:
        """The number of a new state."""
        if wanted not in self.dynamic:
            return wanted
        return next(n for n in range(wanted, wanted + 1 + len(self.states)) if n not in self.states)

    def every_cpu(self, function: int, *arguments: int | Obj) -> int:
        """Call a function for each CPU, until it fails."""
        for cpu in range(load(self.linux.symbols["nr_cpu_ids"], 4) if function else 0):
            if error := self.linux.call_int(function, cpu, *arguments):
                return error
        return 0

    def abandon(self, low: int, high: int) -> None:
        """Forget the states of a module in [low, high): its code does not run again."""
        self.states = {
            number: state
            for number, state in self.states.items()
            if not (low <= state.startup < high or low <= state.teardown < high)
        }


@linux_api(
    "__cpuhp_setup_state_cpuslocked", note="CPUs neither come nor go: they are all there from the start."
)
def __cpuhp_setup_state(
    linux: Linux, state: int, name: int, invoke: int, startup: int, teardown: int, multi_instance: int
) -> int:
    """Have functions called for each CPU; the number of the state where any would do, else 0."""
    states = linux.state(HotplugStates)
    number = states.free_number(state)
    if number in states.states:
        return -errno.EBUSY
    states.states[number] = _State(startup, teardown)
    error = states.every_cpu(startup) if invoke and not multi_instance else 0
    if error:
        del states.states[number]
        return error
    return number if state in states.dynamic else 0


@linux_api("__cpuhp_remove_state_cpuslocked")
def __cpuhp_remove_state(linux: Linux, state: int, invoke: int) -> None:
    """Have them called no more, after the last time for each CPU."""
    states = linux.state(HotplugStates)
    found = states.states.pop(state, None)
    if found and invoke:
        states.every_cpu(found.teardown)


@linux_api()
def __cpuhp_state_add_instance(linux: Linux, state: int, node: Obj, invoke: int) -> int:
    """Have the functions of a state called for one more object."""
    states = linux.state(HotplugStates)
    found = states.states[state]
    error = states.every_cpu(found.startup, node) if invoke else 0
    if not error:
        found.instances.append(node)
    return error


@linux_api()
def __cpuhp_state_remove_instance(linux: Linux, state: int, node: Obj, invoke: int) -> int:
    """Have them called for an object no more."""
    states = linux.state(HotplugStates)
    found = states.states[state]
    found.instances.remove(node)
    return states.every_cpu(found.teardown, node) if invoke else 0


class IdleTime:
    """How long CPU 0, on which this process's worlds run, had nothing to do; what is beside them counts too."""

    def __init__(self, linux: Linux) -> None:
        """Begin with a CPU that was always idle."""
        self._wall, self._busy = time.monotonic_ns(), time.process_time_ns()
        self.idle = self._wall

    def look(self) -> tuple[int, int]:
        """Nanoseconds idle and altogether; neither ever falls."""
        wall, busy = time.monotonic_ns(), time.process_time_ns()
        self.idle += max(0, (wall - self._wall) - (busy - self._busy))
        self._wall, self._busy = wall, busy
        return self.idle, wall


@linux_api(note="CPU 0 is busy while this process computes; the others, where nothing runs, are idle.")
def get_cpu_idle_time(linux: Linux, cpu: int, wall: int, io_busy: int) -> int:
    """Tell for how long a CPU was idle, and in ``wall`` of how much time, both in microseconds."""
    idle, all_of_it = linux.state(IdleTime).look()
    store(wall, 8, all_of_it // 1000)
    return (all_of_it if cpu else idle) // 1000


no_op(
    "cpu.py",
    "CPUs neither come nor go: they are all there from the start.",
    "cpus_read_lock", "cpus_read_unlock", "cpu_hotplug_disable", "cpu_hotplug_enable",
)  # fmt: skip
