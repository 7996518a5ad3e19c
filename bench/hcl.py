"""``python -m bench.hcl``: a lookup, a verdict on one machine, and a fleet, each beside the least that it could cost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

import hcl
from hcl.inventory import Inventory, PciDevice
from hcl.reading import shipped

#: What is aimed at: microseconds a lookup, seconds for one machine and for 10,000 machines of 60 devices.
AIM_LOOKUP, AIM_ONE, AIM_FLEET = 20.0, 0.5, 60.0
DEVICES, KINDS, ROUNDS = 60, 400, 5
_VALIDATE = (sys.executable, "-m", "hcl.console.main", "validate", "--kernel", "6.1")


class Results(msgspec.Struct):
    """Each figure, and what it is beside: a dictionary's lookup, a bare interpreter, json.loads of the same files."""

    lookup_us: float
    lookup_floor_us: float
    one_seconds: float
    one_floor_seconds: float
    machines: int
    fleet_seconds: float
    fleet_floor_seconds: float


def write_fleet(directory: Path, machines: int) -> None:
    """Inventories of DEVICES devices each: of KINDS kinds, drawn from the list, most with subsystems of their own."""
    random = Random(1)  # the same each time
    kinds: list[dict[str, Any]] = []
    for claim in random.choices(shipped().claims, k=KINDS):
        kinds.append(
            {
                "vendor": f"{claim.ids[0]:04x}",
                "device": f"{claim.ids[1] or 0x1234:04x}",
                "subvendor": "1028",
                "subdevice": f"{random.randrange(1 << 16):04x}",
                "pci_class": random.choice(["020000", "010400", "060400", "030000", "0c0330"]),
            }
        )
    for number in range(machines):
        devices = tuple(
            PciDevice(address=f"0000:{slot:02x}:00.0", **random.choice(kinds)) for slot in range(DEVICES)
        )
        inventory = Inventory(host=f"n{number}", model=f"Model {number % 7}", devices=devices)
        (directory / f"n{number:06}.json").write_bytes(msgspec.json.encode(inventory))


def measure(machines: int) -> Results:
    """All figures; medians where a run is short."""
    ids = (0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)
    hcl.lookup(*ids)
    table = {ids: None}
    with tempfile.TemporaryDirectory(prefix="bench-hcl-") as name:
        fleet = Path(name)
        write_fleet(fleet, machines)
        files = sorted(fleet.iterdir())
        _validate(files[0])  # the kernel's alias index is made at the first call
        return Results(
            lookup_us=_each(lambda: hcl.lookup(*ids)),
            lookup_floor_us=_each(lambda: table[ids]),
            one_seconds=median(_seconds(lambda: _validate(files[0])) for _ in range(ROUNDS)),
            one_floor_seconds=median(
                _seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
                for _ in range(ROUNDS)
            ),
            machines=machines,
            fleet_seconds=_seconds(lambda: _validate(fleet, "--summary")),
            fleet_floor_seconds=_seconds(lambda: [json.loads(file.read_bytes()) for file in files]),
        )


def _validate(inventory: Path, *options: str) -> None:
    """Any verdict will do; no verdict will not."""
    done = subprocess.run(
        [*_VALIDATE, "--inventory", inventory, "--format", "json", *options], capture_output=True, check=False
    )
    if done.returncode > 2:
        raise hcl.HclError(done.stderr.decode().strip())


def _each(work: Callable[[], object], times: int = 10_000) -> float:
    return _seconds(lambda: [work() for _ in range(times)]) / times * 1e6


def _seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


@click.command()
@click.option(
    "--machines", default=10_000, show_default=True, type=click.IntRange(min=1), help="In the fleet."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(machines: int, as_json: bool) -> None:
    """Measure a lookup, the verdict on one machine, and that on a fleet."""
    results = measure(machines)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2))
        return
    table = Table("", "measured", "aim", "floor", "of what")
    r = results
    for row in (
        ("a lookup", r.lookup_us, AIM_LOOKUP, r.lookup_floor_us, "µs", "a dictionary's"),
        ("one machine, from process start", r.one_seconds, AIM_ONE, r.one_floor_seconds, "s", "a bare interpreter"),
        (
            f"{machines} machines of {DEVICES} devices", r.fleet_seconds, AIM_FLEET * machines / 10_000,
            r.fleet_floor_seconds, "s", "json.loads of their files",
        ),
    ):  # fmt: skip
        what, measured, aim, floor, unit, of_what = row
        table.add_row(what, *(f"{figure:.3g} {unit}" for figure in (measured, aim, floor)), of_what)
    Console().print(table)


if __name__ == "__main__":
    main()
