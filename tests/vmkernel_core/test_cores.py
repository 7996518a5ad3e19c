"""Sharing a core. Independent side: the host's scheduler, asked about a process that was started meanwhile."""

from __future__ import annotations

import os
import subprocess

import pytest

from vmkernel_core.cores import one_core
from vmkernel_core.errors import UsageError


def test_what_is_started_meanwhile_shares_the_core_and_does_not_preempt() -> None:
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    core = max(before[0])
    with one_core(core), subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert os.sched_getaffinity(child.pid) == {core}
        assert os.sched_getscheduler(child.pid) == os.SCHED_BATCH
        child.communicate(timeout=5)
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before


def test_a_core_that_is_not_there_is_refused() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(UsageError, match="core 4096 cannot be used"), one_core(4096):
        raise AssertionError
    assert os.sched_getaffinity(0) == before
