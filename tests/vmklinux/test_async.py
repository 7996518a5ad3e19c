"""Functions that run asynchronously, on both kernels. They are machine code of the test's; the sleep is the image's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vmklinux.conftest import CODE, code
from vmkernel_core._core import lib
from vmkernel_core.memory import load, store_bytes
from vmklinux.async_ import AsyncCalls
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_init

if TYPE_CHECKING:
    from vmklinux.linux import Linux

NOTE = b"\x48\x89\x37"  # mov %rsi,(%rdi): the cookie goes where the data is


def sleeping(linux: Linux, milliseconds: int) -> int:
    """A function that sleeps and notes its cookie then."""
    # push %rdi; push %rsi; sub $8,%rsp; mov $ms,%edi; mov $msleep,%eax; call *%rax; add $8,%rsp; pop %rsi; pop %rdi
    msleep = (
        b"\xbf" + milliseconds.to_bytes(4, "little") + b"\xb8" + linux.entry("msleep").to_bytes(4, "little")
    )
    return code(b"\x57\x56\x48\x83\xec\x08" + msleep + b"\xff\xd0\x48\x83\xc4\x08\x5e\x5f" + NOTE)


def schedule(linux: Linux, function: int, data: int, domain: Obj | None = None) -> int:
    """Have it run; the cookie."""
    if domain is None:
        return linux.call(linux.entry("async_schedule_node"), function, data, 0)
    return linux.call(linux.entry("async_schedule_node_domain"), function, data, 0, domain)


def new_domain(linux: Linux, *, registered: bool) -> Obj:
    """An empty async_domain."""
    domain = linux.new("async_domain")
    list_init(linux, addressof(domain, "pending"))
    domain.registered = int(registered)
    return domain


@pytest.fixture
def slots(linux: Linux, scratch: int) -> list[int]:
    """Eight words of memory that are zero."""
    store_bytes(scratch, bytes(64))
    return [scratch + 8 * n for n in range(8)]


def test_each_gets_its_data_and_its_cookie(linux: Linux, slots: list[int]) -> None:
    function = code(NOTE)
    cookies = [schedule(linux, function, slot) for slot in slots]
    assert cookies == sorted(set(cookies))
    linux.call(linux.entry("async_synchronize_full"))
    assert [load(slot, 8) for slot in slots] == cookies


def test_who_synchronizes_waits_for_those_before_a_cookie(linux: Linux, slots: list[int]) -> None:
    function = sleeping(linux, 50)
    first, second = (schedule(linux, function, slot) for slot in slots[:2])
    linux.call(linux.entry("async_synchronize_cookie"), second)
    assert load(slots[0], 8) == first
    linux.call(linux.entry("async_synchronize_cookie"), second + 1)
    assert load(slots[1], 8) == second


def test_a_domain_is_waited_for_by_itself(linux: Linux, slots: list[int]) -> None:
    """One that is not registered does not count when everything is waited for."""
    domain = new_domain(linux, registered=False)
    cookie = schedule(linux, sleeping(linux, 200), slots[0], domain)
    linux.call(linux.entry("async_synchronize_full"))
    assert load(slots[0], 8) == 0
    linux.call(linux.entry("async_synchronize_full_domain"), domain)
    assert load(slots[0], 8) == cookie
    linux.free(domain)


def test_what_sleeps_ends_with_its_module(linux: Linux, slots: list[int]) -> None:
    """Its memory goes: it is ended in its sleep, and does not go on."""
    schedule(linux, sleeping(linux, 3_600_000), slots[0])
    calls = linux.state(AsyncCalls)
    with linux.baton():
        calls.changed.wait_until(lambda: all(call.task for call in calls.calls), "its start", 10.0)
        begun = lib.vmk_now()
        calls.end(CODE, CODE + 4096)
        calls.reap(CODE, CODE + 4096)
        assert lib.vmk_now() - begun < 10_000_000_000
    assert load(slots[0], 8) == 0
