"""What ends with the driver's hold on a device, and devices without a bus. Independent side: Debian's own
alloc_etherdev_mqs and ether_setup, which fill in what vmklinux allocates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vmklinux.conftest import objects
from vmkernel_core._core import lib
from vmkernel_core.memory import load, store, store_bytes
from vmklinux.device import device_initialize
from vmklinux.devres import Devres
from vmklinux.kobject import Obj, addressof
from vmklinux.netdevice import NetDevices

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def test_a_managed_net_device_is_unregistered_and_freed(linux: Linux) -> None:
    before = objects()
    device, ops, pattern = linux.new("device"), linux.new("net_device_ops"), linux.new_string("port%d")
    device_initialize(linux, device)
    address = linux.call(linux.entry("devm_alloc_etherdev_mqs"), device, 64, 1, 1)
    netdev = Obj(linux.types, "net_device", address)
    assert (netdev.mtu, netdev.addr_len) == (1500, 6), "ether_setup of the image has run"
    netdev.netdev_ops, netdev.dev.parent = ops, device
    assert linux.call_int(linux.entry("dev_alloc_name"), netdev, pattern) == 0
    assert netdev.name.text() == "port0"
    assert linux.call_int(linux.entry("devm_register_netdev"), device, netdev) == 0
    assert list(linux.state(NetDevices).registered) == [address]
    store_bytes(pattern, b"lan\0")
    assert linux.call_int(linux.entry("dev_alloc_name"), netdev, pattern) == 0
    assert netdev.name.text() == "lan"
    assert linux.state(Devres).release_all(device) == 2
    assert not linux.state(NetDevices).registered
    for memory in (device, ops, pattern):
        linux.free(memory)
    assert objects() == before


def test_managed_dma_memory_can_be_freed_early_or_late(linux: Linux, scratch: int) -> None:
    device = linux.new("device")
    device_initialize(linux, device)
    places = []
    for _ in range(2):
        places.append(linux.call(linux.entry("dmam_alloc_attrs"), device, 5000, scratch, 0, 0))
        assert load(scratch, 8) == places[-1] - linux.memory.base, "a DMA address is an offset into memory"
        store(places[-1] + 4992, 8, 1)
    linux.call(linux.entry("dmam_free_coherent"), device, 5000, places[1], load(scratch, 8))
    assert [bool(lib.vmk_alloc_size(place)) for place in places] == [True, False]
    assert linux.state(Devres).release_all(device) == 1
    assert not any(map(lib.vmk_alloc_size, places))
    assert lib.linux_dma_end(int(device)) == 0
    linux.free(device)


def test_a_platform_device_has_a_name_and_an_end(linux: Linux) -> None:
    before = objects()
    info, name = linux.new("platform_device_info"), linux.new_string("board")
    info.name, info.id = name, 3
    address = linux.call(linux.entry("platform_device_register_full"), info)
    device = Obj(linux.types, "platform_device", address)
    assert linux.string(device.dev.kobj.name) == "board.3"
    assert addressof(device, "dev") > address
    linux.call(linux.entry("platform_device_unregister"), device)
    linux.free(info)
    linux.free(name)
    assert objects() == before
