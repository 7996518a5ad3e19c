"""What kernel code finds of the machine: one CPU, its pages, an instance of devlink. Independent side: Debian's own
image, whose functions look at what vmklinux made."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from tests.vmklinux.conftest import code
from vmkernel_core._core import lib
from vmkernel_core.memory import load, load_bytes, store, store_bytes
from vmklinux.kobject import addressof
from vmklinux.linux import VMEMMAP

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def test_the_image_counts_one_cpu(linux: Linux) -> None:
    for mask in ("possible", "present", "online", "active"):
        address = linux.symbols[f"__cpu_{mask}_mask"]
        assert linux.call("__bitmap_weight", address, load(linux.symbols["nr_cpu_ids"], 4)) == 1
        assert linux.call("_find_first_bit", address, 64) == 0


def test_statistics_of_every_cpu_are_summed(linux: Linux) -> None:
    sums, place = linux.new("rtnl_link_stats64"), linux.call(linux.entry("__alloc_percpu"), 64, 8)
    stats = place + load(linux.symbols["__per_cpu_offset"], 8) & (1 << 64) - 1
    for number in range(4):  # struct pcpu_sw_netstats: rx_packets, rx_bytes, tx_packets, tx_bytes
        store(stats + 8 * number, 8, 10 + number)
    linux.call("dev_fetch_sw_netstats", sums, place)
    assert [sums.rx_packets, sums.rx_bytes, sums.tx_packets, sums.tx_bytes] == [10, 11, 12, 13]
    linux.call(linux.entry("free_percpu"), place)
    linux.free(sums)


def test_a_call_on_another_cpu_is_made_here_and_now(linux: Linux) -> None:
    call, counter = linux.new("__call_single_data"), linux.allocate(8)
    call.func, call.info = code(b"\x48\xff\x07"), counter  # incq (%rdi)
    assert linux.call(linux.entry("smp_call_function_single_async"), 0, call) == 0
    assert load(counter, 8) == 1
    single = linux.entry("smp_call_function_single")
    assert linux.call_int(single, 0, call.func, counter, 1) == 0
    assert linux.call_int(single, 1, call.func, counter, 1) == -errno.ENXIO, "there is no such CPU"
    assert load(counter, 8) == 2
    linux.free(call)
    linux.free(counter)


def test_mapped_pages_follow_one_another_and_are_the_pages(linux: Linux) -> None:
    runs = [lib.vmk_pages_alloc(0, 0) for _ in range(3)]
    order = [runs[2], runs[0], runs[1]]
    table, size = linux.allocate(24), linux.types.sizeof("page")
    for number, page in enumerate(order):
        store(table + 8 * number, 8, VMEMMAP + (page - linux.memory.base) // 4096 * size)
        store_bytes(page, os.urandom(4096))
    address = linux.call(linux.entry("vmap"), table, 3, 4, 0)
    assert load_bytes(address, 3 * 4096) == b"".join(load_bytes(page, 4096) for page in order)
    store_bytes(address + 4090, b"over the edge")
    assert load_bytes(order[0] + 4090, 6) + load_bytes(order[1], 7) == b"over the edge"
    linux.call(linux.entry("vunmap"), address)
    for page in (*runs, table):
        linux.free(page)


def test_the_images_devlink_finds_the_drivers_data_and_back(linux: Linux) -> None:
    ops, device = linux.new("devlink_ops"), linux.new("device")
    devlink = linux.call(linux.entry("devlink_alloc_ns"), ops, 100, linux.symbols["init_net"], device)
    private = linux.call("devlink_priv", devlink)
    assert load_bytes(private, 100) == bytes(100)
    assert linux.call("priv_to_devlink", private) == devlink
    assert linux.call("devlink_to_dev", devlink) == int(device)
    linux.call("devl_lock", devlink)
    linux.call("devl_unlock", devlink)
    linux.call(linux.entry("devlink_free"), devlink)
    assert lib.vmk_alloc_size(devlink) == 0
    linux.free(ops)
    linux.free(device)


def test_a_reporter_has_the_driver_recover(linux: Linux) -> None:
    ops, counter = linux.new("devlink_health_reporter_ops"), linux.allocate(8)
    ops.recover = code(b"\x48\xff\x06\xb8\xfb\xff\xff\xff")  # incq (%rsi); mov $-5,%eax
    create = linux.entry("devlink_health_reporter_create")
    reporter = linux.call(create, 0, ops, 0, 0x1234)
    assert linux.call("devlink_health_reporter_priv", reporter) == 0x1234
    assert linux.call_int(linux.entry("devlink_health_report"), reporter, 0, counter) == -5
    assert load(counter, 8) == 1
    linux.call(linux.entry("devlink_health_reporter_destroy"), reporter)
    for memory in (ops, counter):
        linux.free(memory)


def test_a_list_of_addresses_is_synchronised_by_the_image(linux: Linux) -> None:
    """__hw_addr_sync_dev frees what a device has unlearned through kfree_rcu."""
    heads = linux.new("netdev_hw_addr_list")
    heads.list.next = heads.list.prev = addressof(heads, "list")
    entry = linux.new("netdev_hw_addr")
    entry.list.next = entry.list.prev = addressof(heads, "list")
    heads.list.next = heads.list.prev = addressof(entry, "list")
    heads.count, entry.refcount, entry.sync_cnt = 1, 1, 1
    nothing = code(b"\x31\xc0")  # xor %eax,%eax
    assert linux.call_int("__hw_addr_sync_dev", heads, 0, nothing, nothing) == 0
    linux.call(linux.entry("rcu_barrier"))
    assert heads.count == 0
    assert lib.vmk_alloc_size(int(entry)) == 0
    linux.free(heads)
