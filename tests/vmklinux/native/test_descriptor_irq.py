"""Descriptors that interrupt: their handlers run at delivery points. Independent of us: the kernel's pipes and epoll."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmkernel_core._core import lib
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import VmkError
from vmkernel_core.platform.model import ModelPlatform
from vmklinux.native.descriptor_irq import DescriptorIrq
from vmklinux.native.device import Device

#: Seconds until what was to come has failed to come.
LIMIT = 30.0


@pytest.fixture
def device() -> Iterator[Device]:
    """A device of a host without hardware."""
    with VMkernel(ModelPlatform([]), engine="native", memory=16 << 20) as host:
        made = Device("test", "test", host.memory, host.idle)
        yield made
        made.devres.release_all()


def pipe(stack: ExitStack) -> tuple[int, int]:
    """A pipe's ends, closed at the end."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for end in ends:
        stack.callback(os.close, end)
    return ends


def test_each_write_is_heard_of_though_nobody_reads(device: Device) -> None:
    heard = threading.Semaphore(0)
    with ExitStack() as stack:
        out, into = pipe(stack)
        irq = DescriptorIrq(device, out, heard.release)
        for _ in range(5):
            os.write(into, b"x")
            assert heard.acquire(timeout=LIMIT)
        irq.again()
        assert heard.acquire(timeout=LIMIT)
        device.devres.release_all()
        os.write(into, b"x")
        lib.vmk_attend(0)
        assert not heard.acquire(blocking=False)


def test_descriptors_behind_an_epoll_set_interrupt_and_tell_which(device: Device) -> None:
    heard: list[bytes] = []
    done = threading.Event()
    with ExitStack() as stack:
        one, two = pipe(stack), pipe(stack)
        epoll = stack.enter_context(select.epoll())
        for out, _ in (one, two):
            epoll.register(out, select.EPOLLIN)

        def handler() -> None:
            for fd, _ in epoll.poll(0):
                heard.append(os.read(fd, 10))
            if len(heard) == 2:
                done.set()

        DescriptorIrq(device, epoll.fileno(), handler)
        os.write(one[1], b"one")
        os.write(two[1], b"two")
        assert done.wait(LIMIT)
        assert sorted(heard) == [b"one", b"two"]
        device.devres.release_all()


def test_whoever_attends_takes_it_in(device: Device) -> None:
    threads: list[int] = []
    with ExitStack() as stack:
        out, into = pipe(stack)
        DescriptorIrq(device, out, lambda: threads.append(threading.get_ident()))
        deadline = time.monotonic() + LIMIT
        while threading.get_ident() not in threads:  # the idle loop may be first, but not for ever
            assert time.monotonic() < deadline
            os.write(into, b"x")
            lib.vmk_attend(lib.vmk_now() + 10_000_000)
        device.devres.release_all()


def test_a_handler_that_fails_stops_its_driver(device: Device) -> None:
    stopped = threading.Event()
    device.on_stopped = lambda _error: stopped.set()
    with ExitStack() as stack:
        out, into = pipe(stack)
        DescriptorIrq(device, out, lambda: 1 / 0)
        os.write(into, b"x")
        assert stopped.wait(LIMIT)
        device.devres.release_all()


def test_what_cannot_be_waited_for_is_told_and_lines_come_back(device: Device, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as plain:
        for _ in range(100):  # more than there are lines
            with pytest.raises(VmkError, match="cannot look after a descriptor"):
                DescriptorIrq(device, plain.fileno(), lambda: None)
            device.devres.release_all()
