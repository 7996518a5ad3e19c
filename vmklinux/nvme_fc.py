"""The initiator's side of NVMe over Fibre Channel (Linux drivers/nvme/host/fc.c): there is none here.

The module would bring the NVMe core, the block layer and fabrics with it. A driver that offers a port is refused and
goes on with SCSI alone, as it does where the transport has no memory.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

NOT_THERE = "Gives -EOPNOTSUPP: there is no NVMe over Fibre Channel; lpfc and qla2xxx go on with SCSI."


@linux_api(note=NOT_THERE)
def nvme_fc_register_localport(linux: Linux, pinfo: Obj, template: Obj, dev: Obj, portptr: int) -> int:
    """Refuse a driver's own port."""
    return -errno.EOPNOTSUPP


@linux_api(note=NOT_THERE)
def nvme_fc_register_remoteport(linux: Linux, localport: Obj, pinfo: Obj, portptr: int) -> int:
    """Refuse a port on the fabric."""
    return -errno.EOPNOTSUPP


no_op(
    "nvme_fc.py",
    "Takes a port that was registered, or a request that came through one; none ever is.",
    "nvme_fc_unregister_localport", "nvme_fc_unregister_remoteport", "nvme_fc_rescan_remoteport",
    "nvme_fc_set_remoteport_devloss", "nvme_fc_rcv_ls_req", "nvme_fc_io_getuuid",
)  # fmt: skip
