"""Restarting the machine (Linux kernel/reboot.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.errors import VmkError
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@linux_api(note="The driver that asks for it is stopped; the hypervisor goes on.")
def emergency_restart(linux: Linux) -> None:
    """Stop the driver that sees no other way than a restart."""
    raise VmkError("the driver wants the machine restarted at once", remedy="load the module again")
