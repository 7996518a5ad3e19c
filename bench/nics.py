"""``python -m bench.nics``: each network card of QEMU's through its driver here, and in an ordinary Linux guest."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.guest import GuestSide
from bench.native import compile_native
from bench.sides import BATCH, UplinkSide
from bench.worker import Worker
from vmkernel_core.errors import VmkError
from vmklinux import kernels

#: QEMU's devices, as tests/e2e runs them.
DEVICES = (
    "e1000", "e1000-82544gc", "e1000-82545em", "e1000e", "i82551", "i82557b", "i82559er", "pcnet", "rtl8139",
    "virtio-net-pci", "vmxnet3",
)  # fmt: skip
#: What is aimed at: so many times what the guest does.
AIM = 1.5
SIZE = 64


@dataclass(frozen=True)
class Card:
    """Frames a second sent by both, medians of the rounds; ``ratio`` is the median of each round's own."""

    device: str
    modules: list[str]
    uplink: float
    guest: float
    ratio: float


def compare(native: Path, kernel: str, device: str, frames: int, rounds: int) -> Card:
    """Turn by turn, so that whatever else the machine does hits both. The first turn of each warms up."""
    placed = f"{device},netdev=wire0,addr=5"
    with Worker(UplinkSide, native, kernel, placed) as uplink:
        modules = uplink.ask("modules")
        with Worker(GuestSide, native, kernel, placed, modules) as guest:
            pairs = [
                (uplink.ask("tx", frames, SIZE, False).frames_per_second, guest.ask("tx", frames, SIZE))
                for _ in range(1 + rounds)
            ][1:]
    ours, theirs = (median(pair[side] for pair in pairs) for side in (0, 1))
    return Card(device, modules, ours, theirs, median(mine / its for mine, its in pairs))


def show(cards: list[Card], console: Console) -> None:
    """Print the table."""
    table = Table(title=f"tx, {SIZE} bytes (aim: more than {AIM} of the guest's best)", title_justify="left")
    for column in ("device", "driver", "uplink/s", "guest/s", "ratio"):
        table.add_column(column, justify="left" if column in ("device", "driver") else "right")
    for card in cards:
        colour = "green" if card.ratio > AIM else "red"
        table.add_row(
            card.device,
            card.modules[-1],
            f"{card.uplink:,.0f}",
            f"{card.guest:,.0f}",
            f"[{colour}]{card.ratio:.2f}[/]",
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
