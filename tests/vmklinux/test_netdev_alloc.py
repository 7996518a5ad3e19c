"""What a new net_device is to kernel code, on both kernels. Independent side: Debian's own image, whose functions keep
its list of addresses and look for its network namespace to tell of a change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vmkernel_core.memory import store_bytes
from vmklinux.kobject import Obj
from vmklinux.linux import Linux

OTHER = bytes.fromhex("0200000000aa")
LAN = 1  # NETDEV_HW_ADDR_T_LAN, include/linux/netdevice.h


@pytest.fixture
def netdev(linux: Linux) -> Iterator[Obj]:
    made = Obj(linux.types, "net_device", linux.call("alloc_etherdev_mqs", 0, 1, 1))
    yield made
    linux.call(linux.entry("free_netdev"), made)


def test_it_belongs_to_the_one_network_namespace(linux: Linux, netdev: Obj) -> None:
    assert int(netdev.nd_net.net) == linux.symbols["init_net"]


def test_it_gets_another_address_and_loses_it(linux: Linux, netdev: Obj, scratch: int) -> None:
    store_bytes(scratch, OTHER)
    linux.call(linux.entry("rtnl_lock"))
    try:
        assert linux.call_int("dev_addr_add", netdev, scratch, LAN) == 0
        assert netdev.dev_addrs.count == 2
        assert linux.call_int("dev_addr_del", netdev, scratch, LAN) == 0
        assert netdev.dev_addrs.count == 1
        assert linux.call_int("dev_addr_del", netdev, scratch, LAN) == -2, "it has gone"
    finally:
        linux.call(linux.entry("rtnl_unlock"))
