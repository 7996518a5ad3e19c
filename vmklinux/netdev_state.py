"""What drivers tell of a net_device: its carrier, its queues (Linux net/sched/sch_generic.c, net/core/dev.c)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from vmkernel_core.memory import load, store_bytes
from vmklinux.api import linux_api, no_op
from vmklinux.netdevice import NetDevices

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

NETDEV_RSS_KEY_LEN = 52  # include/linux/netdevice.h


def _carrier(linux: Linux, dev: Obj, up: bool) -> None:
    device = linux.state(NetDevices).of(dev)
    if device is None:
        mask = 1 << linux.types.enumerator("__LINK_STATE_NOCARRIER")
        dev.state = dev.state & ~mask if up else dev.state | mask
    elif device.has_state("__LINK_STATE_NOCARRIER") == up:
        device.set_state("__LINK_STATE_NOCARRIER", not up)
        if device.uplink:
            device.uplink.post("link-up" if up else "link-down")


@linux_api(note="A net_device lives until its driver takes it away: no reference is counted.")
def dev_get_by_name(linux: Linux, net: Obj, name: int) -> int:
    """The registered device of that name; 0 for none."""
    wanted, devices = linux.string(name), linux.state(NetDevices).registered.values()
    return next((int(device.obj) for device in devices if device.linux_name == wanted), 0)


@linux_api()
def netif_carrier_on(linux: Linux, dev: Obj) -> None:
    """The driver sees a link."""
    _carrier(linux, dev, True)


@linux_api()
def netif_carrier_off(linux: Linux, dev: Obj) -> None:
    """The driver sees no link."""
    _carrier(linux, dev, False)


def _all_queues(linux: Linux, dev: Obj, stopped: bool) -> None:
    mask = 1 << linux.types.enumerator("__QUEUE_STATE_DRV_XOFF")
    for number in range(dev.num_tx_queues):
        queue = dev._tx[number]
        queue.state = queue.state | mask if stopped else queue.state & ~mask


@linux_api()
def netif_device_detach(linux: Linux, dev: Obj) -> None:
    """The device cannot be used for now."""
    mask = 1 << linux.types.enumerator("__LINK_STATE_PRESENT")
    if dev.state & mask:
        dev.state &= ~mask
        _all_queues(linux, dev, True)


@linux_api()
def netif_device_attach(linux: Linux, dev: Obj) -> None:
    """The device can be used again."""
    mask = 1 << linux.types.enumerator("__LINK_STATE_PRESENT")
    if not dev.state & mask:
        dev.state |= mask
        _all_queues(linux, dev, False)
        for number in range(dev.num_tx_queues):
            linux.call(linux.entry("netif_schedule_queue"), dev._tx[number])


@linux_api()
def netif_set_real_num_tx_queues(linux: Linux, dev: Obj, txq: int) -> int:
    """Tell how many transmit queues are in use."""
    if not 1 <= txq <= dev.num_tx_queues:
        return -errno.EINVAL
    dev.real_num_tx_queues = txq
    return 0


@linux_api()
def netif_set_real_num_rx_queues(linux: Linux, dev: Obj, rxq: int) -> int:
    """Tell how many receive queues are in use."""
    if not 1 <= rxq <= dev.num_rx_queues:
        return -errno.EINVAL
    dev.real_num_rx_queues = rxq
    return 0


@linux_api()
def netif_set_real_num_queues(linux: Linux, dev: Obj, txq: int, rxq: int) -> int:
    """Tell how many queues of both kinds are in use; both or neither is changed."""
    if not (1 <= txq <= dev.num_tx_queues and 1 <= rxq <= dev.num_rx_queues):
        return -errno.EINVAL
    dev.real_num_tx_queues, dev.real_num_rx_queues = txq, rxq
    return 0


@linux_api(note="Every CPU counts as a core of its own.")
def netif_get_num_default_rss_queues(linux: Linux) -> int:
    """How many queues a driver shall use by default: the cores, half of them when there are more than two."""
    cores = max(load(linux.symbols["__num_online_cpus"], 4), 1)
    return (cores + 1) // 2 if cores > 2 else cores


class RssKey:
    """The key with which devices hash flows, the same for all of them as long as the kernel runs."""

    def __init__(self, linux: Linux) -> None:
        """Draw it."""
        self.key = os.urandom(NETDEV_RSS_KEY_LEN)


@linux_api()
def netdev_rss_key_fill(linux: Linux, buffer: int, len: int) -> None:
    """Write the first bytes of the flow hash's key."""
    store_bytes(buffer, linux.state(RssKey).key[:len])


@linux_api()
def dev_trans_start(linux: Linux, dev: Obj) -> int:
    """When a frame was last given to any transmit queue, in jiffies."""
    return max(int(dev._tx[number].trans_start) for number in range(dev.num_tx_queues))


no_op(
    "netdev_state.py",
    "One CPU runs all kernel code: which of them a transmit queue is for makes no difference.",
    "netif_set_xps_queue", "__netif_set_xps_queue",
)  # fmt: skip
no_op(
    "netdev_state.py",
    "Polling runs in the softirq of whoever delivers; threaded NAPI would be one more world for the same CPU.",
    "dev_set_threaded",
)  # fmt: skip
