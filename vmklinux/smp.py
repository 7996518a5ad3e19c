"""Calls on other CPUs (Linux kernel/smp.c): there is one, so it is always the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api()
def smp_call_function_single_async(linux: Linux, cpu: int, csd: Obj) -> int:
    """Call a function on a CPU, which is this one."""
    linux.call(csd.func, csd.info)
    return 0


@linux_api()
def smp_call_function_single(linux: Linux, cpu: int, func: int, info: int, wait: int) -> int:
    """Call a function on a CPU and wait for it."""
    linux.call(func, info)
    return 0
