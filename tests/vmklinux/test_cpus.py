"""Several CPUs are presented: in masks, with an area each. Independent side: Debian's own image, whose functions count
them and add up what lies in their areas."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

import pytest

from tests.vmklinux.conftest import CODE, code
from vmkernel_core.errors import UsageError
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory, load, store
from vmklinux import cpu, kernels
from vmklinux.cpu import HotplugStates
from vmklinux.linux import Linux

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.kernels import Kernel

CPUS = 3


@pytest.fixture(scope="module")
def machine(kernel: Kernel) -> Iterator[Linux]:
    """A booted kernel with CPUS CPUs, and a page for machine code where the shared fixture has it."""
    with MachineMemory(64 << 20) as memory:
        idle = IdleLoop(lambda _event: None, lambda: None)
        with Linux(kernel, memory, idle, kernels.image_dir(), cpus=CPUS) as linux:
            linux.map_at(CODE, 4096, 7)
            yield linux


def areas(linux: Linux) -> list[int]:
    return [load(linux.symbols["__per_cpu_offset"] + 8 * number, 8) for number in range(CPUS)]


def test_the_image_counts_them(machine: Linux) -> None:
    for mask in ("possible", "present", "online", "active"):
        address = machine.symbols[f"__cpu_{mask}_mask"]
        assert machine.call("__bitmap_weight", address, load(machine.symbols["nr_cpu_ids"], 4)) == CPUS
    assert load(machine.symbols["__num_online_cpus"], 4) == CPUS
    found = [machine.call("cpumask_local_spread", number, -1 & 0xFFFF_FFFF) for number in range(CPUS)]
    assert sorted(found) == list(range(CPUS))


def test_what_is_allocated_for_each_cpu_is_cleared_and_summed(machine: Linux) -> None:
    allocate, free = machine.entry("__alloc_percpu"), machine.entry("free_percpu")
    for _ in range(2):  # the second time the memory was used before
        sums, place = machine.new("rtnl_link_stats64"), machine.call(allocate, 64, 8)
        copies = [place + area & (1 << 64) - 1 for area in areas(machine)]
        assert [load(copy, 8) for copy in copies] == [0] * CPUS
        for number, copy in enumerate(copies):
            store(copy, 8, 10**number)  # struct pcpu_sw_netstats: rx_packets is its first
        machine.call("dev_fetch_sw_netstats", sums, place)
        assert sums.rx_packets == 111
        machine.call(free, place)
        machine.free(sums)


def test_a_state_is_set_up_for_every_cpu_and_every_object(machine: Linux) -> None:
    count = machine.new("hlist_node")  # (cpu, node): incq (%rsi); xor %eax,%eax
    function = code(b"\x48\xff\x06\x31\xc0")
    dynamic = machine.types.enumerator("CPUHP_AP_ONLINE_DYN")
    number = machine.call_int(machine.entry("__cpuhp_setup_state"), dynamic, 0, 0, function, function, 1)
    assert number >= dynamic
    assert machine.call_int(machine.entry("__cpuhp_state_add_instance"), number, count, 1) == 0
    assert load(int(count), 8) == CPUS
    machine.call(machine.entry("__cpuhp_state_remove_instance"), number, count, 0)
    assert load(int(count), 8) == CPUS
    machine.call(machine.entry("__cpuhp_remove_state"), number, 0)
    assert machine.state(HotplugStates).states == {}
    machine.free(count)


def test_a_call_on_any_of_them_is_made(machine: Linux) -> None:
    count = machine.allocate(8)
    single, function = machine.entry("smp_call_function_single"), code(b"\x48\xff\x07")  # incq (%rdi)
    assert machine.call_int(single, CPUS - 1, function, count, 1) == 0
    assert machine.call_int(single, CPUS, function, count, 1) == -errno.ENXIO
    assert load(count, 8) == 1
    machine.free(count)


def test_too_many_are_refused() -> None:
    for cpus, memory in ((0, 1 << 20), (cpu.MOST_CPUS + 1, 1 << 20), (2, cpu.STRIDE + 1)):
        with pytest.raises(UsageError, match="cannot be presented"):
            cpu.check(cpus, memory)


def test_idle_time_is_what_this_process_does_not_compute(machine: Linux) -> None:
    """Of CPU 0; nothing runs on the others. Independent: the C library's clock of the process."""
    word = machine.allocate(8)

    def look(number: int) -> tuple[int, int]:
        idle = machine.call(machine.entry("get_cpu_idle_time"), number, word, 1)
        return idle, load(word, 8)

    idle, wall = look(0)
    busy, until = time.process_time_ns(), time.process_time_ns() + 50_000_000
    while time.process_time_ns() < until:
        pass
    later_idle, later_wall = look(0)
    worked = (time.process_time_ns() - busy) // 1000
    assert 0 <= later_idle - idle <= max(later_wall - wall - 50_000, 0)  # other threads compute, too
    assert later_idle - idle >= (later_wall - wall) - worked - 10_000
    other_idle, other_wall = look(1)
    assert other_idle == other_wall >= later_wall
    machine.free(word)
