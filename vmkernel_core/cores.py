"""Sharing one core with the platform: waking each other up costs the most, so nobody is preempted by a waking."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_core(core: int) -> Iterator[None]:
    """Put the calling thread, and all threads and processes that it starts meanwhile, on one core.

    They run under SCHED_BATCH (sched(7)): one that becomes ready does not preempt the one that runs, so QEMU finishes
    what it was asked before the driver goes on. At the end the calling thread is put back; the others stay.
    UsageError for a core that this process may not use.
    """
    cores, policy, parameter = os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0)
    if core not in cores:
        raise UsageError(
            f"core {core} cannot be used", remedy=f"use one of {', '.join(map(str, sorted(cores)))}"
        )
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)
        os.sched_setaffinity(0, cores)
