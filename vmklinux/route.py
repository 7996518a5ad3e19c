"""IP's view of the world (Linux net/ipv4, net/ipv6): this is no host on a network, so there are no addresses and routes.

Drivers ask for offloads of connections that somebody above them owns; here nobody does.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


class NoRoute:
    """The dst_entry that says so (ip6_null_entry, net/ipv6/route.c)."""

    def __init__(self, linux: Linux) -> None:
        """Make it; it lives as long as the kernel."""
        self.entry = linux.new("dst_entry")
        self.entry.error = -errno.ENETUNREACH


@linux_api()
def ip_route_output_flow(linux: Linux, net: Obj, flp4: Obj, sk: Obj) -> int:
    """Look up a route: -ENETUNREACH, since there are none."""
    return -errno.ENETUNREACH


@linux_api()
def ip6_route_output_flags(linux: Linux, net: Obj, sk: Obj, fl6: Obj, flags: int) -> int:
    """Look up a route: an entry that carries -ENETUNREACH, since there are none."""
    return int(linux.state(NoRoute).entry)


no_op("route.py", "The only dst_entry is the one for no route, which stays.", "dst_release")
no_op(
    "route.py",
    "There are no IP addresses and no neighbours whose changes could be told.",
    "register_inetaddr_notifier", "unregister_inetaddr_notifier", "register_inet6addr_notifier",
    "unregister_inet6addr_notifier", "register_netevent_notifier", "unregister_netevent_notifier",
)  # fmt: skip
no_op(
    "route.py",
    "Without addresses no device has an in_device, and without routes no neighbour is ever looked up or asked for.",
    "in_dev_finish_destroy", "neigh_destroy", "__neigh_event_send", "arp_send",
)  # fmt: skip
