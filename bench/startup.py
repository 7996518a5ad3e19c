"""How long it takes until something runs: the kernel image, the module, the first frame. Each in a new process."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

from bench.sides import PLACED
from vmkernel_core.errors import VmkError
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmklinux import kernels
from vmklinux.linux import Linux


def _boot_image(kernel: str | None, cache: Path) -> float:
    found = kernels.find(kernel)
    idle = IdleLoop(lambda _event: None, lambda: None)
    with MachineMemory(64 << 20) as memory:
        began = time.perf_counter()
        linux = Linux(found, memory, idle, cache)
        seconds = time.perf_counter() - began
        linux.close()
    return seconds


def image_seconds(kernel: str | None, rounds: int) -> dict[str, float]:
    """Seconds to boot the kernel image with an empty cache of prepared images (once), and with a filled one."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="bench-images-") as cache,
        ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh,
    ):
        cold, *cached = [fresh.submit(_boot_image, kernel, Path(cache)).result() for _ in range(1 + rounds)]
    return {"image_cold": cold, "image_cached": median(cached)}


def first_frame_seconds(kernel: str | None, rounds: int) -> dict[str, float]:
    """Seconds of each step from the start of a process to its first frame on the wire; medians.

    QEMU's e1000 plays auto-negotiation for 0.5 s, and the driver then looks every 2 s only: that wait is no work,
    so the steps are those without it; ``first_frame_negotiated`` is with it.
    """
    runs = [_first_frame(f"{PLACED.format('e1000')},autonegotiation=off", kernel) for _ in range(rounds)]
    steps = {step: median(run[step] for run in runs) for step in runs[0]}
    return steps | {"first_frame_negotiated": _first_frame(PLACED.format("e1000"), kernel)["first_frame"]}


def _first_frame(device: str, kernel: str | None) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.first_frame", device, *([kernel] if kernel else [])]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VmkError(f"no first frame: {done.stderr.strip()[-500:]}", where=" ".join(command))
    said = json.loads(done.stdout)
    times, boot = said["times"], said["boot"]
    return {
        "imports": times["imports"] - began,
        "platform": boot["platform"],
        "module_load": boot["load"],
        "probe": boot["probe"],
        "link": times["link"] - times["boot"],
        "first_frame": times["frame"] - began,
    }
