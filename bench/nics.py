"""``python -m bench.nics``: each network card of QEMU's through its drivers here, and in an ordinary Linux guest."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.guest import GuestSide
from bench.native import compile_native
from bench.sides import BATCH, PLACED, UplinkSide
from bench.worker import Worker
from vmkernel_core.errors import VmkError
from vmklinux import kernels

#: QEMU's devices, as tests/e2e runs them, but for the i82551: its Linux driver wants a file of firmware.
DEVICES = (
    "e1000", "e1000-82544gc", "e1000-82545em", "e1000e", "i82557b", "i82559er", "pcnet", "rtl8139",
    "virtio-net-pci", "vmxnet3",
)  # fmt: skip
#: What is aimed at: so many times what the guest does; and of a driver in Python, so much of what Linux's does here.
AIM, AIM_NATIVE = 1.5, 0.7
SIZE = 64


@dataclass(frozen=True)
class Card:
    """Frames a second sent by all, medians of the rounds; both ratios are medians of each round's own.

    ``uplink`` is Linux's driver here, ``native`` the one in Python, None where there is none.
    """

    device: str
    modules: list[str]
    uplink: float
    guest: float
    ratio: float
    native: float | None
    native_ratio: float | None


def compare(native: Path, kernel: str, device: str, frames: int, rounds: int) -> Card:
    """Turn by turn, so that whatever else the machine does hits both. The first turn of each warms up."""
    placed = PLACED.format(device)
    with ExitStack() as stack:
        uplink = stack.enter_context(Worker(UplinkSide, native, kernel, placed))
        modules = uplink.ask("modules")
        guest = stack.enter_context(Worker(GuestSide, native, kernel, placed, modules))
        python = stack.enter_context(Worker(UplinkSide, native, kernel, placed, "native"))
        has_python = python.ask("engine") == "native"
        turns = [
            (
                uplink.ask("tx", frames, SIZE, False).frames_per_second,
                guest.ask("tx", frames, SIZE),
                python.ask("tx", frames, SIZE, False).frames_per_second if has_python else 0.0,
            )
            for _ in range(1 + rounds)
        ][1:]
    ours, theirs, pythons = (median(turn[side] for turn in turns) for side in range(3))
    ratio, of_linux = median(turn[0] / turn[1] for turn in turns), median(turn[2] / turn[0] for turn in turns)
    return Card(
        device,
        modules,
        ours,
        theirs,
        ratio,
        pythons if has_python else None,
        of_linux if has_python else None,
    )


def show(cards: list[Card], console: Console) -> None:
    """Print the table."""
    table = Table(
        title=f"tx, {SIZE} bytes (aims: {AIM} of the guest's best; Python {AIM_NATIVE} of Linux's)",
        title_justify="left",
    )
    for column in ("device", "driver", "uplink/s", "guest/s", "ratio", "Python/s", "of Linux's"):
        table.add_column(column, justify="left" if column in ("device", "driver") else "right")
    for card in cards:
        colour = "green" if card.ratio > AIM else "red"
        python = ("", "")
        if card.native is not None and card.native_ratio is not None:
            reached = "green" if card.native_ratio >= AIM_NATIVE else "red"
            python = f"{card.native:,.0f}", f"[{reached}]{card.native_ratio:.2f}[/]"
        table.add_row(
            card.device,
            card.modules[-1],
            f"{card.uplink:,.0f}",
            f"{card.guest:,.0f}",
            f"[{colour}]{card.ratio:.2f}[/]",
            *python,
        )
    console.print(table)


@click.command()
@click.argument("devices", nargs=-1)
@click.option("--kernel", "release", metavar="RELEASE", help="Kernel release or its beginning.")
@click.option(
    "--frames", default=19_200, show_default=True, type=click.IntRange(min=64), help="Frames in each run."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of each card.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(devices: tuple[str, ...], release: str | None, frames: int, rounds: int, as_json: bool) -> None:
    """Compare the DEVICES of QEMU, all network cards without any."""
    cards = []
    try:
        kernel = kernels.find(release).release
        with tempfile.TemporaryDirectory(prefix="bench-native-") as directory:
            native = compile_native(Path(directory))
            for device in devices or DEVICES:
                with Console(stderr=True).status(device):
                    cards.append(compare(native, kernel, device, frames - frames % BATCH, rounds))
    except VmkError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(cards), indent=2))
    else:
        show(cards, Console())


if __name__ == "__main__":
    main()
