"""Commands from user space to transports, by nodes in a file system (Linux block/bsg.c, bsg-lib.c): there are none.

A transport gets its queue all the same, since it sets limits on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.api import linux_api, no_op
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@linux_api(note="No node leads to the queue, so no job ever comes through it.")
def bsg_setup_queue(linux: Linux, dev: Obj, name: int, *rest: int | Obj) -> int:
    """Make a transport's queue; 6.12 tells its limits as the first of the rest."""
    queue = linux.new("request_queue", lib.vmk_owner())
    limits = rest[0]
    if isinstance(limits, Obj) and limits:
        store_bytes(int(queue.limits), load_bytes(int(limits), linux.types.sizeof("queue_limits")))
    return int(queue)


@linux_api()
def bsg_remove_queue(linux: Linux, q: Obj) -> None:
    """Free a transport's queue."""
    if q:
        linux.free(q)


no_op(
    "bsg.py",
    "No node leads to a transport's queue, so no job ever comes through it.",
    "bsg_job_done", "bsg_job_get", "bsg_job_put",
)  # fmt: skip
