"""Which cores the parties run on: driver and QEMU, which wake each other, and the peer, which is outside."""

from __future__ import annotations

import os
from pathlib import Path

#: The cores this benchmark may use.
CORES = frozenset(os.sched_getaffinity(0))


def place(pid: int, pinned: bool) -> None:
    """Put all threads of a process on the first core (pinned) or on any."""
    cores = {min(CORES)} if pinned else CORES
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def place_peer(pinned: bool) -> None:
    """Put the calling thread out of the way of those that are pinned, if there is another core."""
    os.sched_setaffinity(0, (CORES - {min(CORES)} if pinned else CORES) or CORES)
