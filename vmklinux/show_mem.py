"""How much memory there is (Linux mm/show_mem.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api()
def si_meminfo(linux: Linux, val: Obj) -> None:
    """Tell how many pages of machine memory there are, and how many of them are free."""
    stats = ffi.new("struct vmk_memory_stats *")
    lib.vmk_memory_stats(stats)
    val.totalram, val.freeram, val.mem_unit = stats.pages_total, stats.pages_free, 4096
    val.sharedram = val.bufferram = val.totalhigh = val.freehigh = 0
