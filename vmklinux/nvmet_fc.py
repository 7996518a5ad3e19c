"""The target's side of NVMe over Fibre Channel (Linux drivers/nvme/target/fc.c): there is none here."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api(note="Gives -EOPNOTSUPP: nothing here is an NVMe target; lpfc goes on without.")
def nvmet_fc_register_targetport(linux: Linux, pinfo: Obj, template: Obj, dev: Obj, portptr: int) -> int:
    """Refuse a driver's port."""
    return -errno.EOPNOTSUPP


no_op(
    "nvmet_fc.py",
    "Takes a port that was registered, or a request that came through one; none ever is.",
    "nvmet_fc_unregister_targetport", "nvmet_fc_invalidate_host", "nvmet_fc_rcv_ls_req", "nvmet_fc_rcv_fcp_req",
    "nvmet_fc_rcv_fcp_abort",
)  # fmt: skip
