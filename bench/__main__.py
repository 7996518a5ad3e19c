"""``python -m bench``: measures the library beside the floor and prints the ratio."""

from __future__ import annotations

import sys

import click
import msgspec
from rich.console import Console

from bench.cores import CORES
from bench.measure import measure
from bench.report import show
from vmkernel_core.errors import VmkError
from vmklinux import kernels

#: QEMU's cards, one of each family that a driver in Python knows.
DEVICES = ("e1000", "i82557b", "pcnet")


@click.command()
@click.argument("devices", nargs=-1)
@click.option("--kernel", "release", metavar="RELEASE", help="Kernel release or its beginning.")
@click.option(
    "--frames", default=25_600, show_default=True, type=click.IntRange(min=64), help="Frames in each run."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Runs of each case.")
@click.option("--accesses", default=2_000, show_default=True, type=click.IntRange(min=1), help="In each run.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(
    devices: tuple[str, ...], release: str | None, frames: int, rounds: int, accesses: int, as_json: bool
) -> None:
    """Measure frames on the DEVICES of QEMU with both engines, beside the bare rings of the same card.

    Without any, one of each family that a driver in Python knows. Register accesses and starting are those of an e1000.
    """
    try:
        kernel = kernels.find(release).release
        with Console(stderr=True).status("") as status:
            results = measure(kernel, devices or DEVICES, len(CORES), frames, rounds, accesses, status.update)
    except VmkError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2))
    else:
        show(results, Console())


if __name__ == "__main__":
    main()
