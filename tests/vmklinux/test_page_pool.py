"""Page pools, and the image's own containers on the nodes that we give them. Independent side for the containers:
Debian's image, compared with a Python dict; what is left over is counted by the allocator."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import until
from vmkernel_core._core import ffi, lib
from vmkernel_core.memory import load, store
from vmklinux.btf import BtfError
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

GFP_KERNEL = 0xCC0
EFAULT, EINVAL = 14, 22


def allocations() -> int:
    """How many objects and runs of pages are out; sites 0 and 1 are the worlds' and the slabs' own."""
    return int(lib.vmk_allocations(2, 0xFFFF_FFFF, ffi.NULL, 0))


def make_pool(linux: Linux) -> int:
    parameters = linux.new("page_pool_params")
    parameters.order, parameters.max_len, parameters.offset = 1, 2048, 64
    pool = linux.call(linux.entry("page_pool_create"), parameters)
    linux.free(parameters)
    return pool


def test_a_pools_pages_come_mapped_and_go(linux: Linux) -> None:
    before = allocations()
    pool = make_pool(linux)
    described = Obj(linux.types, "page_pool", pool)
    assert (described.p.order, described.p.max_len, described.p.offset) == (1, 2048, 64)
    page = Obj(linux.types, "page", linux.call(linux.entry("page_pool_alloc_pages"), pool, GFP_KERNEL))
    address = linux.memory.base + page.dma_addr
    store(address + 8191, 1, 0x5A)
    assert load(address + 8191, 1) == 0x5A
    names = ("page_pool_put_unrefed_netmem", "page_pool_put_defragged_page")
    give_back = next(linux.entry(name) for name in names if name in linux.symbols)
    linux.call(give_back, pool, page, 0, 0)
    linux.call(linux.entry("page_pool_destroy"), pool)
    assert allocations() == before


def test_a_queue_told_to_xdp_holds_its_pool(linux: Linux) -> None:
    before = allocations()
    pool, queue = make_pool(linux), linux.new("xdp_rxq_info")
    register = linux.entry("xdp_rxq_info_reg_mem_model")
    kind = linux.types.enumerator("MEM_TYPE_PAGE_POOL")
    assert linux.call_int(register, queue, kind, pool) == -EFAULT, "the queue is not registered"
    queue.reg_state = 1  # REG_STATE_REGISTERED
    assert linux.call_int(register, queue, kind, 0) == -EINVAL
    assert linux.call_int(register, queue, kind, pool) == 0
    assert (queue.mem.type, queue.mem.id) == (kind, 1)
    linux.call(linux.entry("page_pool_destroy"), pool)
    assert allocations() == before + 1, "the pool"
    linux.call(linux.entry("xdp_rxq_info_unreg"), queue)
    assert (queue.mem.type, queue.mem.id) == (0, 0)
    linux.free(queue)
    assert allocations() == before


def test_a_page_in_parts_goes_with_the_last_and_may_outlive_its_pool(linux: Linux) -> None:
    before = allocations()
    pool = make_pool(linux)
    page = Obj(linux.types, "page", linux.call(linux.entry("page_pool_alloc_pages"), pool, GFP_KERNEL))
    linux.call(linux.entry("page_pool_destroy"), pool)
    parts = "pp_ref_count" if "pp_ref_count" in dir(page) else "pp_frag_count"
    getattr(page, parts).counter = 2
    skbs = []
    for _ in range(2):
        skb = linux.call(linux.entry("__alloc_skb"), 128, 0, 0, 0xFFFFFFFF)
        linux.call("skb_add_rx_frag" if "skb_add_rx_frag" in linux.symbols else "skb_add_rx_frag_netmem",
                   skb, 0, page, 0, 100, 4096)  # fmt: skip
        skbs.append(skb)
    linux.call(linux.entry("consume_skb"), skbs[0])
    assert allocations() == before + 3, "an skb, its head, the page"
    linux.call(linux.entry("consume_skb"), skbs[1])
    assert allocations() == before


def test_an_array_by_index_is_a_dict(linux: Linux) -> None:
    before = allocations()
    array = linux.new("xarray")
    array.xa_flags = 0
    chosen, expected = random.Random(7), {}
    for _ in range(300):
        index, value = (
            chosen.choice([chosen.randrange(64), chosen.randrange(1 << 40)]),
            chosen.randrange(1 << 20) * 8,
        )
        linux.call("xa_store", array, index, 0x1_0000_0000 + value, GFP_KERNEL)
        expected[index] = 0x1_0000_0000 + value
    assert {index: linux.call("xa_load", array, index) for index in expected} == expected
    assert linux.call("xa_load", array, 1 << 41) == 0
    for index, value in list(expected.items())[::2]:
        assert linux.call("xa_erase", array, index) == value
        del expected[index]
    assert {index: linux.call("xa_load", array, index) for index in expected} == expected
    linux.call("xa_destroy", array)
    linux.free(array)
    until("nodes are left", lambda: allocations() == before)


def ida_flags(linux: Linux) -> int:
    """IDA_INIT_FLAGS: the marks of a root begin where the bits of gfp_t end (include/linux/xarray.h)."""
    try:
        first_mark = linux.types.enumerator("___GFP_LAST_BIT")
    except BtfError:
        first_mark = 27  # __GFP_BITS_SHIFT, when it was no enumerator yet
    return 1 | 4 | 1 << first_mark


@pytest.mark.parametrize("count", [3, 200])
def test_numbers_are_given_from_the_lowest_free(linux: Linux, count: int) -> None:
    before = allocations()
    ida = linux.new("ida")
    ida.xa.xa_flags = ida_flags(linux)
    give = [linux.call_int("ida_alloc_range", ida, 5, 0x7FFFFFFF, GFP_KERNEL) for _ in range(count)]
    assert give == list(range(5, 5 + count))
    linux.call("ida_free", ida, 6)
    assert linux.call_int("ida_alloc_range", ida, 0, 0x7FFFFFFF, GFP_KERNEL) == 0
    assert linux.call_int("ida_alloc_range", ida, 5, 0x7FFFFFFF, GFP_KERNEL) == 6
    linux.call("ida_destroy", ida)
    linux.free(ida)
    until("nodes are left", lambda: allocations() == before)
