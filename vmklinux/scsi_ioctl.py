"""Commands that programs send through a device's node (Linux drivers/scsi/scsi_ioctl.c): there are no nodes."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "scsi_ioctl.py",
    "Reached only from the ioctl function of an upper-level driver, for a node that a program opened; there are none.",
    "scsi_ioctl", "scsi_ioctl_block_when_processing_errors",
)  # fmt: skip
