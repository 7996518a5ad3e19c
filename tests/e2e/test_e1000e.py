"""The clock of e1000e.ko's card. Independent: Debian's driver and QEMU's e1000e."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.engines import LINUX, only
from vmkernel_core.boot import VMkernel
from vmklinux.ptp import PtpClocks


@only("e1000e", engines=LINUX)
def test_its_clock_comes_and_goes(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        linux = host.linux
        clocks = linux.state(PtpClocks).clocks
        (clock,) = clocks.values()
        assert clock.index == 0
        time = linux.new("timespec64")
        told = []
        for _ in range(3):
            assert linux.call_int(clock.info.gettimex64, clock.info, time, 0, owner=clock.owner) == 0
            told.append(time.tv_sec * 10**9 + time.tv_nsec)
        assert told == sorted(told)
        linux.free(time)
        assert host.unload("e1000e") == []
        assert clocks == {}
    assert host.leaks == []
