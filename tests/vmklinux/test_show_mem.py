"""How much memory kernel code is told of, on both kernels: beside what the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def test_memory_is_told_in_pages(linux: Linux) -> None:
    info = linux.new("sysinfo")
    linux.call(linux.entry("si_meminfo"), info)
    assert 0 < info.freeram < info.totalram <= linux.memory.size // 4096
    free = info.freeram
    taken = linux.allocate(1 << 20)
    linux.call(linux.entry("si_meminfo"), info)
    assert free - info.freeram >= 256
    assert info.mem_unit == 4096
    linux.free(taken)
    linux.free(info)
