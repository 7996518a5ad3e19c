"""Calls on other CPUs (Linux kernel/smp.c). Nothing runs on those (cpu.py): the caller's makes the call."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core.memory import load
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

_HERE = "The function runs at once and finds itself on CPU 0, whichever of the CPUs is named."


def _call(linux: Linux, cpu: int, function: int, argument: int) -> int:
    if not 0 <= cpu < load(linux.symbols["nr_cpu_ids"], 4):
        return -errno.ENXIO
    linux.call(function, argument)
    return 0


@linux_api(partial=_HERE)
def smp_call_function_single_async(linux: Linux, cpu: int, csd: Obj) -> int:
    """Call a function on a CPU: -ENXIO where there is none of that number."""
    return _call(linux, cpu, csd.func, csd.info)


@linux_api(partial=_HERE)
def smp_call_function_single(linux: Linux, cpu: int, func: int, info: int, wait: int) -> int:
    """Call a function on a CPU and wait for it: -ENXIO where there is none of that number."""
    return _call(linux, cpu, func, info)
