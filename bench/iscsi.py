"""``python -m bench.iscsi``: vmkiscsi beside iscsi-perf, libiscsi's own program in C, on the same target of tgt's."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.table import Table

from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.platform.model import ModelPlatform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmkernel_core.storage.device import StorageDevice

#: Bytes of a transfer, and how many are under way, in the cases; bytes of the unit, which is in memory.
SIZES, DEPTHS, UNIT = (4096, 64 << 10), (1, 32), 64 << 20
BLOCK = 512
#: What is aimed at with 32 under way: so much of the floor.
AIM, AIM_DEPTH = 0.6, 32
TARGET = "iqn.2026-01.bench:unit"
#: Seconds that tgt has to start.
LIMIT = 30.0
_SBIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_AVERAGE = re.compile(r"iops average (\d+)")


@dataclass(frozen=True)
class Case:
    """Reads of one size and depth, transfers a second: medians of the rounds; ``of_floor``: of each round's ratio."""

    size: int
    depth: int
    device: float
    floor: float
    of_floor: float


@contextmanager
def target() -> Iterator[str]:
    """tgt with one unit in memory; its portal. VmkError when it is not installed or does not start."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        portal = f"127.0.0.1:{found.getsockname()[1]}"
    unit = os.memfd_create("bench-unit")
    os.posix_fallocate(unit, 0, UNIT)
    with tempfile.TemporaryDirectory() as directory:
        environment = _SBIN | {"TGT_IPC_SOCKET": str(Path(directory) / "control")}

        def admin(*arguments: str) -> bool:
            command = ["tgtadm", "--lld", "iscsi", *arguments]
            return subprocess.run(command, capture_output=True, env=environment, check=False).returncode == 0

        try:
            daemon = subprocess.Popen(
                ["tgtd", "-f", "--iscsi", f"portal={portal}"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        except OSError as error:
            raise VmkError("tgtd cannot be started", remedy="apt-get install tgt") from error
        try:
            deadline = time.monotonic() + LIMIT
            while not admin("--mode", "system", "--op", "show"):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise VmkError("tgtd does not start")
            backing = f"/proc/{os.getpid()}/fd/{unit}"
            one = ("--tid", "1")
            if not (
                admin("--mode", "target", "--op", "new", *one, "--targetname", TARGET)
                and admin(
                    "--mode", "logicalunit", "--op", "new", *one, "--lun", "1", "--backing-store", backing
                )
                and admin("--mode", "target", "--op", "bind", *one, "--initiator-address", "ALL")
            ):
                raise VmkError("tgt does not take its unit")
            yield portal
        finally:
            daemon.kill()
            daemon.wait()
            os.close(unit)


def device_side(portal: str, cases: list[tuple[int, int]], seconds: float) -> list[float]:
    """Transfers a second of each case, through a StorageDevice."""
    with VMkernel(ModelPlatform([]), engine="native", memory=64 << 20) as host:
        host.load("vmkiscsi", [f"portal={portal}", f"target={TARGET}"])
        (device,) = host.storage.values()
        return [_read(device, size, depth, seconds) for size, depth in cases]


def _read(device: StorageDevice, size: int, depth: int, seconds: float) -> float:
    blocks = size // BLOCK
    with device.buffer(size * depth) as buffer:
        commands = [
            command
            for at in range(depth)
            for command in device.read_commands(at * blocks, blocks, buffer, at * size)
        ]
        waiting = deque(device.start(commands))
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            waiting.popleft().result(LIMIT)
            ended = 1
            while waiting and waiting[0].done:
                waiting.popleft().result()
                ended += 1
            first = done % depth
            again = [commands[(first + index) % depth] for index in range(ended)]
            waiting.extend(device.start(again))
            done += ended
        took = time.perf_counter() - began
        for request in waiting:
            request.result(LIMIT)
    return done / took


def floor_side(portal: str, size: int, depth: int, seconds: float) -> float:
    """The same by iscsi-perf. VmkError without it; TimedOut."""
    command = [
        "iscsi-perf", "-m", str(depth), "-b", str(size // BLOCK), "-t", str(max(1, round(seconds))),
        f"iscsi://{portal}/{TARGET}/1",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + LIMIT)
    except FileNotFoundError as error:
        raise VmkError("iscsi-perf is not here", remedy="apt-get install libiscsi-bin") from error
    except subprocess.TimeoutExpired as error:
        raise TimedOut("iscsi-perf does not end") from error
    averages = _AVERAGE.findall(done.stdout)
    if not averages:
        raise VmkError(f"iscsi-perf failed: {done.stdout.strip()} {done.stderr.strip()}")
    return float(averages[-1])


def measure(seconds: float, rounds: int) -> list[Case]:
    """Both sides in turn, so that whatever else the machine does hits both."""
    cases = [(size, depth) for size in SIZES for depth in DEPTHS]
    ours, floors = [], []
    with target() as portal:
        for _ in range(rounds):
            ours.append(device_side(portal, cases, seconds))
            floors.append([floor_side(portal, size, depth, seconds) for size, depth in cases])
    return [
        Case(
            size, depth,
            median(one[index] for one in ours), median(one[index] for one in floors),
            median(mine[index] / floor[index] for mine, floor in zip(ours, floors, strict=True)),
        )
        for index, (size, depth) in enumerate(cases)
    ]  # fmt: skip


@click.command()
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(min=1), help="Of each run.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of each case.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(seconds: float, rounds: int, as_json: bool) -> None:
    """Measure reads through vmkiscsi beside libiscsi's own program."""
    try:
        with Console(stderr=True).status("both sides, in turn"):
            cases = measure(seconds, rounds)
    except VmkError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(cases), indent=2))
        return
    table = Table(title="reads a second")
    for name in ("bytes", "under way", "vmkiscsi", "iscsi-perf", "ratio", "aim"):
        table.add_column(name, justify="right")
    for case in cases:
        aim = "" if case.depth != AIM_DEPTH else f"{AIM} {'met' if case.of_floor >= AIM else 'missed'}"
        table.add_row(
            str(case.size),
            str(case.depth),
            f"{case.device:.0f}",
            f"{case.floor:.0f}",
            f"{case.of_floor:.2f}",
            aim,
        )
    Console().print(table)


if __name__ == "__main__":
    main()
