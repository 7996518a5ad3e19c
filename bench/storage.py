"""``python -m bench.storage``: each storage controller of QEMU's through its drivers here, beside the bare controller
and an ordinary Linux guest.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.disk_guest import DiskGuestSide
from bench.disk_sides import DeviceSide, DiskFloorSide, DiskSample, Drive
from bench.native import compile_native, compile_program
from bench.worker import Worker
from vmkernel_core.errors import VmkError
from vmklinux import kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONTROLLERS = ("megasas-gen2", "mptsas1068", "pvscsi")
DRIVES: tuple[Drive, ...] = ("null", "ram")
#: Bytes of a transfer and how many are under way, in the cases.
SIZES, DEPTHS = (4096, 256 << 10), (1, 32)
#: What is aimed at: so much of the floor with 32 under way, and so many times what the guest does; of a driver in
#: Python, so much of what Linux's does here with 32 under way.
AIM_FLOOR, AIM_DEPTH, AIM_GUEST, AIM_NATIVE = 0.6, 32, 4.0, 0.8
#: A transfer at depth 1 takes so many times as long as one of many: fewer are measured. So does the guest's.
SLOWER, GUEST_SLOWER = 4, 4
#: Columns that the tables need.
WIDTH = 144


@dataclass(frozen=True)
class Case:
    """One kind of transfer on all sides: medians of the rounds. Ratios are the medians of each round's own.

    ``device`` is Linux's driver here, ``native`` the one in Python, None where there is none. ``guest`` is how many
    transfers a second the Linux guest did.
    """

    controller: str
    driver: str
    drive: Drive
    size: int
    depth: int
    write: bool
    device: DiskSample
    floor: DiskSample
    guest: float
    of_floor: float
    of_guest: float
    native: DiskSample | None
    of_linux: float | None


@dataclass(frozen=True)
class Settings:
    """``transfers`` in each run at depth 32; ``pinned``: driver and QEMU on one core; ``processor``: QEMU's helps."""

    kernel: str
    transfers: int
    rounds: int
    pinned: bool
    processor: bool


def compare(
    native: Path,
    program: Path,
    controller: str,
    drive: Drive,
    settings: Settings,
    tell: Callable[[str], None],
) -> list[Case]:
    """Turn by turn, so that whatever else the machine does hits all. The first turn of each case warms up."""
    tell(f"{controller}, {drive}: booting")
    side = (controller, drive, settings.kernel, settings.processor)
    with (
        Worker(DiskFloorSide, native, controller, drive) as floor,
        Worker(DeviceSide, *side) as device,
        Worker(DeviceSide, *side, "native") as python,
    ):
        has_python = python.ask("engine") == "native"
        modules = device.ask("modules")
        with Worker(DiskGuestSide, program, controller, drive, settings.kernel, modules) as guest:
            cases = []
            for size in SIZES:
                for depth in DEPTHS:
                    for write in (False, True):
                        tell(f"{controller}, {drive}: {_name(size, depth, write)}")
                        count = max(depth, settings.transfers // (SLOWER if depth == 1 else 1))
                        turns = [
                            (
                                device.ask("run", size, depth, write, count, settings.pinned),
                                floor.ask("run", size, depth, write, count, settings.pinned),
                                guest.ask("run", size, depth, write, max(depth, count // GUEST_SLOWER)),
                                python.ask("run", size, depth, write, count, settings.pinned)
                                if has_python
                                else None,
                            )
                            for _ in range(1 + settings.rounds)
                        ][1:]
                        cases.append(_case(controller, modules[-1], drive, size, depth, write, turns))
    return cases


def _case(
    controller: str,
    driver: str,
    drive: Drive,
    size: int,
    depth: int,
    write: bool,
    turns: Sequence[tuple[DiskSample, DiskSample, float, DiskSample | None]],
) -> Case:
    devices, floors, guests, pythons = zip(*turns, strict=True)
    native = [python for python in pythons if python is not None]
    return Case(
        controller, driver, drive, size, depth, write, _medians(devices), _medians(floors), median(guests),
        median(device.per_second / floor.per_second for device, floor in zip(devices, floors, strict=True)),
        median(device.per_second / guest for device, guest in zip(devices, guests, strict=True)),
        _medians(native) if native else None,
        median(python.per_second / device.per_second for python, device in zip(native, devices, strict=True))
        if native else None,
    )  # fmt: skip


def _medians(samples: Sequence[DiskSample]) -> DiskSample:
    return DiskSample(*(median(getattr(one, field.name) for one in samples) for field in fields(DiskSample)))


def _name(size: int, depth: int, write: bool) -> str:
    return f"{'write' if write else 'read'} {size >> 10}x{depth}"


def _rate(per_second: float, size: int) -> str:
    """Commands a second of small transfers, MB/s of large ones."""
    return f"{per_second:,.0f}/s" if size == SIZES[0] else f"{per_second * size / 1e6:,.0f}MB"


def _aim(ratio: float, aim: float) -> str:
    """A ratio, in the colour that says whether it is as good as was aimed at; 0: at nothing."""
    return f"[{'green' if ratio >= aim else 'red'}]{ratio:.2f}[/]" if aim else f"{ratio:.2f}"


def show(cases: list[Case], console: Console) -> None:
    """Print a table for each controller and drive."""
    console.print(
        f"Aims: {AIM_FLOOR} of the floor at depth {AIM_DEPTH}, {AIM_GUEST:g} times the guest; a driver in Python: "
        f"{AIM_NATIVE} of Linux's at depth {AIM_DEPTH}. "
        "A transfer's register reads and writes; the us that a processor worked for it, here and in QEMU."
    )
    for controller, drive in dict.fromkeys((case.controller, case.drive) for case in cases):
        mine = [case for case in cases if (case.controller, case.drive) == (controller, drive)]
        table = Table(title=f"{controller}, {mine[0].driver}, drive {drive}", title_justify="left")
        table.add_column("KiB x depth", no_wrap=True)
        columns = ("Linux's", "Python's", "floor", "guest", "/floor", "/guest", "/Linux's", "MMIO", "us")
        for column in (*columns, "Python's us", "floor's us"):
            table.add_column(column, justify="right", no_wrap=True)
        for case in mine:
            python = case.native.per_second if case.native else None
            rates = (case.device.per_second, python, case.floor.per_second, case.guest)
            at_depth = case.depth == AIM_DEPTH
            table.add_row(
                _name(case.size, case.depth, case.write),
                *("" if rate is None else _rate(rate, case.size) for rate in rates),
                _aim(case.of_floor, AIM_FLOOR if at_depth else 0),
                _aim(case.of_guest, AIM_GUEST),
                "" if case.of_linux is None else _aim(case.of_linux, AIM_NATIVE if at_depth else 0),
                f"{case.device.reads:.2f}+{case.device.writes:.2f}",
                *(
                    f"{side.own_us:.1f}+{side.qemu_us:.1f}" if side else ""
                    for side in (case.device, case.native, case.floor)
                ),
            )
        console.print(table)


@click.command()
@click.argument("controllers", nargs=-1, type=click.Choice([*CONTROLLERS, "megasas"]))
@click.option("--kernel", "release", metavar="RELEASE", help="Kernel release or its beginning.")
@click.option("--drive", type=click.Choice(["null", "ram", "both"]), default="both", show_default=True)
@click.option(
    "--transfers",
    default=8_000,
    show_default=True,
    type=click.IntRange(min=64),
    help="In each run at depth 32.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of each case.")
@click.option("--unpinned", is_flag=True, help="Driver and QEMU on any core, not both on one.")
@click.option(
    "--processor", is_flag=True, help="QEMU's own processor does register accesses of the driver's."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(
    controllers: tuple[str, ...],
    release: str | None,
    drive: str,
    transfers: int,
    rounds: int,
    unpinned: bool,
    processor: bool,
    as_json: bool,
) -> None:
    """Compare the CONTROLLERS of QEMU; without any, the three that the aims are for."""
    cases = []
    try:
        kernel = kernels.find(release).release
        settings = Settings(kernel, transfers, rounds, not unpinned, processor)
        with tempfile.TemporaryDirectory(prefix="bench-native-") as directory:
            native = compile_native(Path(directory))
            program = compile_program(Path(directory), "disk_loop.c")
            with Console(stderr=True).status("") as status:
                for controller in controllers or CONTROLLERS:
                    for kind in DRIVES:
                        if drive in (kind, "both"):
                            cases += compare(native, program, controller, kind, settings, status.update)
    except VmkError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(cases), indent=2))
    else:
        console = Console()
        console.width = max(console.width, WIDTH)
        show(cases, console)


if __name__ == "__main__":
    main()
