"""What drivers of SCSI hosts use of the multi-queue block layer (Linux block/blk-mq.c, blk-mq-cpumap.c, blk-settings.c).

Requests and tags are in scsi_lib.c and blk_mq.c. A request_queue is there for its limits, which drivers set and read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.memory import store
from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


def map_queues(linux: Linux, qmap: Obj) -> None:
    """Spread the CPUs over the queues of a map, in turn."""
    for cpu in range(linux.cpus):
        store(qmap.mq_map + 4 * cpu, 4, qmap.queue_offset + cpu % (qmap.nr_queues or 1))


@linux_api(note="CPUs share no caches here: they are dealt to the queues in turn.")
def blk_mq_map_queues(linux: Linux, qmap: Obj) -> None:
    """Spread the CPUs over the queues of a map."""
    map_queues(linux, qmap)


@linux_api(
    "blk_mq_map_hw_queues", note="An interrupt may come on any CPU: they are dealt to the queues in turn."
)
def blk_mq_pci_map_queues(linux: Linux, qmap: Obj, pdev: int, offset: int) -> None:
    """Spread the CPUs over the queues of a map after the interrupts of a device."""
    map_queues(linux, qmap)


@linux_api(note="An interrupt may come on any CPU: they are dealt to the queues in turn.")
def blk_mq_virtio_map_queues(linux: Linux, qmap: Obj, vdev: int, first_vec: int) -> None:
    """The same for a virtio device."""
    map_queues(linux, qmap)


no_op(
    "blk_mq.py",
    "Of what transports send through queues of their own (bsg.py) there is nothing, neither to run nor to end.",
    "blk_mq_run_hw_queues",
    "blk_mq_end_request",
)
