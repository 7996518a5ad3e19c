"""``hcl validate``: the verdict on machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hcl.formats import FORMATS

if TYPE_CHECKING:
    from hcl.inventory import Inventory


@click.command()
@click.option(
    "--inventory", "files", metavar="FILE", type=click.Path(path_type=Path), multiple=True,
    help="An inventory; repeatable. Without one this machine is judged.",
)  # fmt: skip
@click.option("--kernel", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@click.option(
    "--profile", type=click.Choice(["default", "strict"]), default="default", show_default=True,
    help="What fits: what is certified or compatible, or only what is certified.",
)  # fmt: skip
@click.option(
    "--exclude", "rules", metavar="RULE", multiple=True,
    help="Leave devices out: VENDOR:DEVICE, class=0300, bus=usb, place=0000:00:1f.*; repeatable.",
)  # fmt: skip
@click.option(
    "--override", "overrides", metavar="DEVICE=MODULE", multiple=True,
    help="Judge as if this module were chosen for a PCI address or VENDOR:DEVICE; taints the report.",
)  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.pass_context
def validate(
    context: click.Context,
    files: Sequence[Path],
    kernel: str | None,
    profile: str,
    rules: Sequence[str],
    overrides: Sequence[str],
    form: str,
) -> None:
    """Judge the devices of machines: do drivers fit them?

    Ends with 0 when every device fits, 1 when one is unsupported, 2 when of one it could not be told.
    """
    from hcl import formats
    from hcl.console import kernel as kernels
    from hcl.judging import Judge
    from hcl.readers import read
    from hcl.reading import shipped
    from hcl.report import FITS, MachineReport, Profile
    from hcl.rules import Exclusion, parse_overrides

    release, modules = kernels.find(kernel)
    judge = Judge(
        shipped(),
        release,
        modules,
        profile=Profile(profile),
        exclusions=[Exclusion.parse(rule) for rule in rules],
        overrides=parse_overrides(overrides),
    )
    code = FITS

    def reports() -> Iterator[MachineReport]:
        nonlocal code
        for inventory in map(read, files) if files else [live_inventory()]:
            report = judge.machine(inventory)
            code = max(code, report.exit_code)
            yield report

    _print(formats.render(form, reports()))
    context.exit(code)


def live_inventory() -> Inventory:
    """This machine's."""
    from hcl.readers.live import read_host

    return read_host()


def _print(pieces: Iterable[str]) -> None:
    for piece in pieces:
        click.echo(piece, nl=False)
