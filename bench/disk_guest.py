"""The other way to use a storage driver: an ordinary Linux guest in QEMU (TCG), same kernel, modules and disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.disk_sides import BLOCK, DRIVE_SIZE, Drive, disk_devices, drive_arguments
from bench.guest import Guest
from bench.initramfs import initramfs
from vmkernel_core.errors import VmkError
from vmklinux import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Waits for the disk, has its queue do nothing but hand over, says "ready", then runs disk_loop for each line of its
#: arguments. Mid-layer and disk driver are modules there.
_SCRIPT = """tries=0
while [ ! -e /dev/sda ] && [ $tries -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
cd /sys/block/sda/queue
echo none >scheduler
echo 2 >nomerges
echo 0 >iostats
echo 0 >add_random
echo ready
while read arguments; do echo result $(disk_loop /dev/sda $arguments); done
"""


class DiskGuestSide(Guest):
    """A booted guest with a controller and its disk; a context manager."""

    def __init__(
        self, program: Path, controller: str, drive: Drive, kernel: str, modules: Sequence[str]
    ) -> None:
        """``program`` is disk_loop; ``modules`` are loaded in that order."""
        super().__init__()
        self._kernel = kernels.find(kernel)
        self._program, self._controller, self._drive, self._modules = program, controller, drive, modules

    def __enter__(self) -> DiskGuestSide:
        """Boot it and wait until its disk is there."""
        archive = initramfs(self._kernel, [*self._modules, "sd_mod"], _SCRIPT, [self._program])
        arguments = drive_arguments(self._drive, self._stack)
        for device in disk_devices(self._controller):
            arguments += ["-device", device]
        self.boot(self._kernel, archive, arguments)
        return self

    def run(self, size: int, depth: int, write: bool, count: int) -> float:
        """Transfers a second, of ``count`` of them with ``depth`` under way; VmkError when one fails."""
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        said = self.ask(f"{size} {depth} {int(write)} {count} {DRIVE_SIZE // BLOCK}").split()
        try:
            return float(said[1])
        except (IndexError, ValueError):
            raise VmkError("the Linux guest's disk failed", where=repr(b" ".join(said))) from None
