"""What drivers tell over netlink (Linux net/netlink, net/core/rtnetlink.c, net/dcb): nobody listens and nobody asks."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: Families that there may be (include/uapi/linux/netlink.h: MAX_LINKS).
FAMILIES = 32


def kernel_socket(linux: Linux, family: int, owner: int) -> Obj:
    """The kernel's end of a netlink family, which has no other end."""
    socket = linux.new("sock", owner)
    socket.sk_protocol = family
    return socket


@linux_api(note="Nobody sends to it: its input function is never called.")
def __netlink_kernel_create(linux: Linux, net: Obj, unit: int, module: Obj, cfg: Obj) -> int:
    """Make the kernel's end of a netlink family; null for a family that cannot be."""
    return int(kernel_socket(linux, unit, lib.vmk_owner())) if 0 <= unit < FAMILIES else 0


@linux_api()
def netlink_kernel_release(linux: Linux, sk: Obj) -> None:
    """Close the kernel's end of a netlink family."""
    if sk:
        linux.free(sk)


@linux_api()
def netlink_broadcast(linux: Linux, ssk: Obj, skb: Obj, portid: int, group: int, allocation: int) -> int:
    """Send to a group's listeners: frees the message and gives -ESRCH, as Linux does where there are none."""
    linux.call(linux.entry("consume_skb"), skb)
    return -errno.ESRCH


@linux_api()
def netlink_broadcast_filtered(
    linux: Linux, ssk: Obj, skb: Obj, portid: int, group: int, allocation: int, filter: int, filter_data: int
) -> int:
    """Do the same for listeners that a function chooses."""
    return netlink_broadcast(linux, ssk, skb, portid, group, allocation)


@linux_api()
def netlink_unicast(linux: Linux, ssk: Obj, skb: Obj, portid: int, nonblock: int) -> int:
    """Send to one listener: frees the message and gives -ECONNREFUSED, as Linux does where nobody has the port."""
    linux.call(linux.entry("consume_skb"), skb)
    return -errno.ECONNREFUSED


no_op(
    "netlink.py",
    "Asks whether the sender of a message may do what it wants: there are no senders, and 0 means that they may not.",
    "netlink_capable",
)
no_op(
    "netlink.py",
    "Reached only when somebody asks over netlink for a device's bridge ports or forwarding table; nobody can.",
    "ndo_dflt_bridge_getlink", "ndo_dflt_fdb_add", "ndo_dflt_fdb_del", "ndo_dflt_fdb_dump", "dev_uc_add_excl",
    "dev_mc_add_excl", "dev_uc_del", "dev_mc_del",
)  # fmt: skip
no_op(
    "netlink.py",
    "Tells listeners of changed priorities and bandwidths; there are none.",
    "dcbnl_cee_notify", "dcbnl_ieee_notify",
)  # fmt: skip
