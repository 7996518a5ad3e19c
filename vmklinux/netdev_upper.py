"""Net devices on top of others (Linux net/core/dev.c): bonding and failover are the hypervisor's own affair here.

A device that would become part of another is refused; both stay what they are.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

_NET_XMIT_DROP = 1  # include/linux/netdevice.h
_REFUSED = "Always refused (-EOPNOTSUPP): the hypervisor combines uplinks itself."


@linux_api(partial=_REFUSED)
def netdev_master_upper_dev_link(
    linux: Linux, dev: Obj, upper_dev: Obj, upper_priv: int, upper_info: int, extack: Obj
) -> int:
    """Make a device part of another."""
    return -errno.EOPNOTSUPP


@linux_api(partial=_REFUSED)
def netdev_upper_dev_link(linux: Linux, dev: Obj, upper_dev: Obj, extack: Obj) -> int:
    """Put a device on top of another."""
    return -errno.EOPNOTSUPP


@linux_api(partial=_REFUSED)
def netdev_rx_handler_register(linux: Linux, dev: Obj, rx_handler: int, rx_handler_data: int) -> int:
    """Give another function what a device receives."""
    return -errno.EOPNOTSUPP


@linux_api(partial="Always refused (-EOPNOTSUPP): VLAN ids are set for the uplink, through Uplink.set_vlans.")
def vlan_vid_add(linux: Linux, dev: Obj, proto: int, vid: int) -> int:
    """Let a device receive a VLAN."""
    return -errno.EOPNOTSUPP


@linux_api(partial="Always refused (-EOPNOTSUPP): VLAN ids are set for the uplink, through Uplink.set_vlans.")
def vlan_vids_add_by_dev(linux: Linux, dev: Obj, by_dev: Obj) -> int:
    """Let a device receive the VLANs of another."""
    return -errno.EOPNOTSUPP


@linux_api(partial="The frame is dropped: a device sends what its uplink is given, nothing else.")
def __dev_queue_xmit(linux: Linux, skb: Obj, sb_dev: Obj) -> int:
    """Send a frame through another device."""
    linux.call(linux.entry("consume_skb"), skb)
    return _NET_XMIT_DROP


no_op(
    "netdev_upper.py",
    "Only devices on top of others count what they drop here: there is none.",
    "netdev_core_stats_alloc", "netdev_core_stats_inc",
)  # fmt: skip
no_op(
    "netdev_upper.py",
    "Nothing could be linked or registered, so there is nothing to undo, and nobody above to be told.",
    "netdev_upper_dev_unlink", "netdev_rx_handler_unregister", "netdev_lower_state_changed", "vlan_vid_del",
    "vlan_vids_del_by_dev", "vlan_uses_dev",
)  # fmt: skip
