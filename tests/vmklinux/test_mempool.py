"""Memory pools. Independent side: Debian's own image, whose mempool.c runs here on our allocator, locks and worlds; the
elements' functions are a few bytes of machine code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from tests.vmklinux.conftest import CODE
from vmkernel_core._core import lib
from vmkernel_core.memory import load, store_bytes
from vmklinux.kobject import Obj, addressof
from vmklinux.linux import Linux
from vmklinux.loader import allocations

#: include/linux/gfp_types.h: ___GFP_DIRECT_RECLAIM. Who asks with it may sleep.
MAY_SLEEP, MAY_NOT = 0x400, 0
ALLOC, FREE = CODE, CODE + 64
STEP = 16


class Elements:
    """What a pool's functions work on: how many elements there are to be had, the next one, how many came back."""

    def __init__(self, linux: Linux, address: int, left: int) -> None:
        self.linux, self.address, self.first = linux, address, 0x1000
        store_bytes(address, struct.pack("<QQQ", left, self.first, 0))
        # xor %eax,%eax; cmp %rax,(%rsi); je 1f; decq (%rsi); mov 8(%rsi),%rax; addq $STEP,8(%rsi); 1: ret
        body = b"\x48\xff\x0e\x48\x8b\x46\x08\x48\x83\x46\x08" + bytes([STEP])
        store_bytes(ALLOC, b"\x31\xc0\x48\x39\x06\x74" + bytes([len(body)]) + body + b"\xc3")
        store_bytes(FREE, b"\x48\xff\x46\x10\xc3")  # incq 16(%rsi); ret

    @property
    def returned(self) -> int:
        return load(self.address + 16, 8)

    def number(self, element: int) -> int:
        """Which one it is, from 0; -1 for none."""
        return (element - self.first) // STEP if element else -1


def call(linux: Linux, name: str, *arguments: int) -> int:
    """The function of that name, or 6.12's, which memory profiling gave another."""
    return linux.call(name if name in linux.symbols else name + "_noprof", *arguments)


@pytest.fixture
def elements(linux: Linux, scratch: int) -> Iterator[Elements]:
    """Five elements; after the test nothing that the image took is left."""
    before = allocations(linux, linux.image.base, linux.image.base + linux.image.size)
    yield Elements(linux, scratch, 5)
    assert allocations(linux, linux.image.base, linux.image.base + linux.image.size) == before


def create(linux: Linux, elements: Elements, reserve: int) -> int:
    return call(linux, "mempool_create_node", reserve, ALLOC, FREE, elements.address, MAY_SLEEP, 0)


def test_the_reserve_is_used_when_nothing_else_is_left_and_filled_up_first(
    linux: Linux, elements: Elements
) -> None:
    pool = create(linux, elements, 3)
    taken = [call(linux, "mempool_alloc", pool, MAY_NOT) for _ in range(6)]
    assert [elements.number(element) for element in taken] == [3, 4, 2, 1, 0, -1]
    for element in taken[:3]:
        linux.call("mempool_free", element, pool)
    assert elements.returned == 0, "the reserve takes what comes back"
    assert elements.number(call(linux, "mempool_alloc", pool, MAY_NOT)) == 2
    for element in taken[2:5]:
        linux.call("mempool_free", element, pool)
    assert elements.returned == 2, "the reserve is full again"
    linux.call("mempool_free", 0, pool)
    linux.call("mempool_destroy", pool)
    assert elements.returned == 5
    linux.call("mempool_destroy", 0)


def test_a_reserve_that_cannot_be_filled_gives_no_pool(linux: Linux, elements: Elements) -> None:
    assert create(linux, elements, 6) == 0
    assert elements.returned == 5


def test_a_reserve_grows_and_shrinks(linux: Linux, elements: Elements) -> None:
    pool = create(linux, elements, 1)
    assert linux.call_int("mempool_resize", pool, 4) == 0
    assert Obj(linux.types, "mempool_s", pool).curr_nr == 4
    assert linux.call_int("mempool_resize", pool, 2) == 0
    assert elements.returned == 2
    linux.call("mempool_destroy", pool)
    assert elements.returned == 4, "the fifth was never asked for"


def test_who_may_sleep_waits_for_an_element(linux: Linux, elements: Elements) -> None:
    pool = create(linux, elements, 5)
    taken = [call(linux, "mempool_alloc", pool, MAY_NOT) for _ in range(5)]
    queue = addressof(Obj(linux.types, "mempool_s", pool), "wait") + linux.types.offsetof(
        "wait_queue_head", "head"
    )
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(call, linux, "mempool_alloc", pool, MAY_SLEEP)
        until("it sleeps", lambda: load(queue, 8) != queue)
        assert not waiting.done()
        linux.call("mempool_free", taken[2], pool)
        assert waiting.result(LIMIT) == taken[2]
    for element in taken:
        linux.call("mempool_free", element, pool)
    linux.call("mempool_destroy", pool)


@pytest.mark.parametrize(
    ("kind", "data", "size"),
    [("mempool_kmalloc", 200, 200), ("mempool_alloc_pages", 1, 8192), ("mempool_alloc_slab", 72, 72)],
)
def test_elements_of_our_memory(linux: Linux, kind: str, data: int, size: int) -> None:
    give_back = {"mempool_kmalloc": "mempool_kfree"}.get(kind, kind.replace("alloc", "free"))
    if kind == "mempool_alloc_slab":
        cache = linux.new("kmem_cache")
        cache.size, data = data, int(cache)
    pool = call(linux, "mempool_create_node", 2, linux.symbols[kind], linux.symbols[give_back], data, 0, 0)
    element = call(linux, "mempool_alloc", pool, MAY_SLEEP)
    memory = element
    if kind == "mempool_alloc_pages":
        pages = load(linux.symbols["vmemmap_base"], 8)
        memory = linux.memory.base + (element - pages) // linux.types.sizeof("page") * 4096
    assert lib.vmk_alloc_size(memory) >= size
    if kind != "mempool_alloc_pages":  # 6.1's pools ask for the size of what they hand out
        assert linux.call(linux.entry("__ksize"), element) >= size
        ksize = linux.image.kallsyms.address("__ksize")
        assert ksize is not None
        assert linux.call(ksize, element) >= size
    linux.call("mempool_free", element, pool)
    linux.call("mempool_destroy", pool)
    assert lib.vmk_alloc_size(memory) == 0
    if kind == "mempool_alloc_slab":
        linux.free(data)
