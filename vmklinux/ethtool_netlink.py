"""ethtool's requests by netlink (Linux net/ethtool): cable tests, whose answers are messages."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api(note="There is no netlink to ask for one, or to take its result: -EOPNOTSUPP.")
def ethnl_cable_test_alloc(linux: Linux, phydev: Obj, cmd: int) -> int:
    """Begin the message that a cable test answers with."""
    return -errno.EOPNOTSUPP


no_op(
    "ethtool_netlink.py",
    "No cable test begins, since ethnl_cable_test_alloc refuses.",
    "ethnl_cable_test_finished", "ethnl_cable_test_free", "ethnl_cable_test_result", "ethnl_cable_test_fault_length",
    "ethnl_cable_test_amplitude", "ethnl_cable_test_pulse", "ethnl_cable_test_step",
)  # fmt: skip
