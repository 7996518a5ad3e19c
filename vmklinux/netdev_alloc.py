"""Making and freeing a net_device with its queues (Linux net/core/dev.c, lib/dynamic_queue_limits.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import store_bytes
from vmklinux.api import linux_api
from vmklinux.devres import Devres
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_add_tail, list_init
from vmklinux.netdevice import NetDevices

if TYPE_CHECKING:
    from vmklinux.linux import Linux

ALIGN = 32  # NETDEV_ALIGN, include/linux/netdevice.h
TX_QUEUE_LEN = 1000  # DEFAULT_TX_QUEUE_LEN, include/net/sch_generic.h
GSO_MAX_SIZE, GSO_MAX_SEGS = 65536, 65535  # include/linux/netdevice.h

_LISTS = (
    "uc.list", "mc.list", "dev_addrs.list", "napi_list", "unreg_list", "close_list", "dev_list", "link_watch_list",
    "ptype_all", "ptype_specific", "adj_list.upper", "adj_list.lower", "net_notifier_list",
)  # fmt: skip


def _array(linux: Linux, kind: str, count: int, owner: int) -> tuple[int, int]:
    size = linux.types.sizeof(kind)
    return linux.allocate(size * count, owner), size


@linux_api(partial="Traffic classes, XPS and the per-CPU reference count are not set up.")
def alloc_netdev_mqs(
    linux: Linux, sizeof_priv: int, name: int, name_assign_type: int, setup: int, txqs: int, rxqs: int
) -> int:
    """Allocate a net_device with its queues and private area, and let ``setup`` fill it in."""
    types, owner = linux.types, lib.vmk_owner()
    net_device = types.struct("net_device")
    size = (
        types.offsetof("net_device", "priv")
        if "priv" in net_device.fields
        else -(-net_device.size // ALIGN) * ALIGN
    )
    dev = Obj(types, "net_device", linux.allocate(size + sizeof_priv, owner))
    address = linux.new("netdev_hw_addr", owner)
    tx, tx_size = _array(linux, "netdev_queue", txqs, owner)
    rx, rx_size = _array(linux, "netdev_rx_queue", rxqs, owner)
    memory = linux.state(NetDevices).memory[int(dev)] = [int(address), tx, rx]
    for path in _LISTS:
        if path.partition(".")[0] in net_device.fields:
            list_init(linux, addressof(dev, path))
    if "ethtool" in net_device.fields:
        dev.ethtool = linux.new("ethtool_netdev_state", owner)
        memory.append(int(dev.ethtool))
    list_add_tail(linux, addressof(address, "list"), addressof(dev, "dev_addrs.list"))
    dev.dev_addrs.count = 1
    dev.dev_addr = addressof(address, "addr")
    dev._tx, dev._rx = tx, rx
    dev.num_tx_queues = dev.real_num_tx_queues = txqs
    dev.num_rx_queues = dev.real_num_rx_queues = rxqs
    dev.nd_net.net = linux.symbols["init_net"]
    dev.gso_max_size, dev.gso_max_segs = GSO_MAX_SIZE, GSO_MAX_SEGS
    for number in range(rxqs):
        Obj(types, "netdev_rx_queue", rx + number * rx_size).dev = dev
    for number in range(txqs):
        queue = Obj(types, "netdev_queue", tx + number * tx_size)
        queue.dev, queue.xmit_lock_owner = dev, -1
        linux.call("dql_init", addressof(queue, "dql"), linux.hz)
        # As if an operator had set byte_queue_limits/limit_min: the hypervisor does its own queueing.
        queue.dql.min_limit = queue.dql.max_limit
        dql_reset(linux, queue.dql)
    linux.call(setup, dev)
    dev.tx_queue_len = dev.tx_queue_len or TX_QUEUE_LEN
    store_bytes(addressof(dev, "name"), linux.string(name).encode() + b"\0")
    dev.name_assign_type = name_assign_type
    return int(dev)


_DQL_COUNTERS = (
    "num_queued", "num_completed", "last_obj_cnt", "prev_ovlimit", "prev_num_queued", "prev_last_obj_cnt",
    "slack_start_time",
)  # fmt: skip


@linux_api(note="The limit restarts at its minimum, not at 0: Linux's first frame would stop the queue.")
def dql_reset(linux: Linux, dql: Obj) -> None:
    """Forget what byte-queue limits learned."""
    for counter in _DQL_COUNTERS:
        setattr(dql, counter, 0)
    dql.lowest_slack = 0xFFFF_FFFF
    dql.limit = dql.adj_limit = dql.min_limit


@linux_api()
def free_netdev(linux: Linux, dev: Obj) -> None:
    """Free a net_device and what belongs to it."""
    head = addressof(dev, "napi_list")
    while (entry := int(dev.napi_list.next)) != head:
        linux.call(linux.entry("__netif_napi_del"), entry - linux.types.offsetof("napi_struct", "dev_list"))
    for address in linux.state(NetDevices).memory.pop(int(dev), []):
        linux.free(address)
    linux.free(dev)


@linux_api()
def devm_alloc_etherdev_mqs(linux: Linux, dev: Obj, sizeof_priv: int, txqs: int, rxqs: int) -> int:
    """Allocate an Ethernet device that is freed when the driver lets go of the hardware."""
    address = linux.call("alloc_etherdev_mqs", sizeof_priv, txqs, rxqs)
    if address:
        netdev = Obj(linux.types, "net_device", address)
        # With a key, so that it is not called for a dead driver: its memory is taken back as it is.
        linux.state(Devres).action(dev, lambda: free_netdev(linux, netdev), (address, 0))
    return address
