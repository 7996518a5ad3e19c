"""Semaphores of readers and writers, between worlds. Independent side: Debian's own notifier chains, which run
on them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import LIMIT
from tests.vmklinux.conftest import code
from vmkernel_core.memory import load

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@pytest.mark.parametrize(("first", "second", "shared"), [
    ("read", "read", True), ("read", "write", False), ("write", "read", False), ("write", "write", False),
])  # fmt: skip
def test_only_readers_share(linux: Linux, first: str, second: str, shared: bool) -> None:
    semaphore = linux.new("rw_semaphore")
    linux.call("__init_rwsem", semaphore, 0, 0)
    linux.call(linux.entry(f"down_{first}"), semaphore)
    assert linux.call(linux.entry(f"down_{second}_trylock"), semaphore) == shared
    if shared:
        linux.call(linux.entry(f"up_{second}"), semaphore)
    order: list[str] = []

    def other() -> None:
        linux.call(linux.entry(f"down_{second}"), semaphore)
        order.append("second")
        linux.call(linux.entry(f"up_{second}"), semaphore)

    thread = threading.Thread(target=other)
    thread.start()
    if shared:
        thread.join(LIMIT)
    linux.call(linux.entry("msleep"), 20)
    order.append("first")
    linux.call(linux.entry(f"up_{first}"), semaphore)
    thread.join(LIMIT)
    assert order == (["second", "first"] if shared else ["first", "second"])
    assert semaphore.count.counter == 0
    linux.free(semaphore)


def test_the_images_notifier_chain_calls_its_blocks(linux: Linux) -> None:
    chain, block, counter = (
        linux.new("blocking_notifier_head"),
        linux.new("notifier_block"),
        linux.allocate(8),
    )
    linux.call("__init_rwsem", int(chain), 0, 0)
    block.notifier_call = code(
        b"\x48\xb8", counter.to_bytes(8, "little"), b"\x48\xff\x00"
    )  # movabs; incq (%rax)
    linux.call("blocking_notifier_chain_register", chain, block)
    linux.call("blocking_notifier_call_chain", chain, 7, 0)
    assert load(counter, 8) == 1
    linux.call("blocking_notifier_chain_unregister", chain, block)
    linux.call("blocking_notifier_call_chain", chain, 7, 0)
    assert load(counter, 8) == 1
    for memory in (chain, block, counter):
        linux.free(memory)
