"""What drivers tell over netlink (Linux net/netlink, net/core/rtnetlink.c, net/dcb): nobody listens and nobody asks."""

from __future__ import annotations

from vmklinux.api import no_op

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
