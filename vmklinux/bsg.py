"""Commands from user space to transports, by nodes in a file system (Linux block/bsg.c, bsg-lib.c): there are none."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "bsg.py",
    "No node leads to a transport's queue, so no job ever comes through it.",
    "bsg_setup_queue", "bsg_remove_queue", "bsg_job_done", "bsg_job_get", "bsg_job_put",
)  # fmt: skip
