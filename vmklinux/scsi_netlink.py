"""Events of SCSI transports for listeners in user space (Linux drivers/scsi/scsi_netlink.c), of whom there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_variable
from vmklinux.netlink import kernel_socket

if TYPE_CHECKING:
    from vmklinux.linux import Linux

NETLINK_SCSITRANSPORT = 18  # include/uapi/linux/netlink.h


@linux_variable()
def scsi_nl_sock(linux: Linux) -> int:
    """The kernel's end of the netlink family of SCSI transports."""
    return int(kernel_socket(linux, NETLINK_SCSITRANSPORT, owner=0))
