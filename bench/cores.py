"""Which cores the parties run on: driver and QEMU, which wake each other, and the peer, which is outside."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: The cores this benchmark may use.
CORES = frozenset(os.sched_getaffinity(0))


def place(pid: int, pinned: bool) -> None:
    """Put all threads of a process on the first core, as VMkernel's ``core`` does (pinned), or on any."""
    cores, policy = ({min(CORES)}, os.SCHED_BATCH) if pinned else (CORES, os.SCHED_OTHER)
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(task.name), cores)
            os.sched_setscheduler(int(task.name), policy, os.sched_param(0))


def place_peer(pinned: bool) -> None:
    """Put the calling thread out of the way of those that are pinned, if there is another core."""
    os.sched_setaffinity(0, (CORES - {min(CORES)} if pinned else CORES) or CORES)
