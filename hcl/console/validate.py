"""``hcl validate``: the verdict on machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hcl.console.options import engine_option, site_options
from hcl.formats import FORMATS

if TYPE_CHECKING:
    from hcl.fleet import Terms
    from hcl.report import MachineReport
    from hcl.site import Site
    from hcl.verdict import Engine


@click.command()
@click.option(
    "--inventory", "files", metavar="FILE", type=click.Path(path_type=Path), multiple=True,
    help="An inventory; repeatable. Without one this machine is judged.",
)  # fmt: skip
@click.option("--kernel", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@engine_option
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
@click.option("--summary", "brief", is_flag=True, help="Leave the machines out: tell what they come to.")
@click.option("--dask", "cluster", metavar="ADDRESS", help="Have a Dask cluster judge them: tcp://HOST:8786.")
@site_options
@click.pass_context
def validate(
    context: click.Context,
    files: Sequence[Path],
    kernel: str | None,
    engine: Engine | None,
    profile: str,
    rules: Sequence[str],
    overrides: Sequence[str],
    form: str,
    brief: bool,
    cluster: str | None,
    site: Site,
) -> None:
    """Judge the devices of machines: do drivers fit them?

    An inventory is what lspci, lsusb, udevadm or umockdev-record print, a /sys tree, or JSON of our own; a directory
    or an archive (tar, zip) may hold thousands. Ends with 0 when every device fits, 1 when one is unsupported, 2 when
    of one it could not be told, 3 when an inventory could not be read; the others are judged all the same.
    """
    from hcl import formats
    from hcl.fleet import Terms, judged, sources
    from hcl.report import Profile
    from hcl.summary import Fleet
    from vmkernel_core.console.progress import Progress

    terms = Terms(kernel, Profile(profile), tuple(rules), tuple(overrides), site, engine)
    with Progress("machines judged", None) as progress:
        found = judged(terms, sources(files), cluster) if files else _this_machine(terms)
        fleet = Fleet(progress.over(found))
        for piece in formats.render(form, fleet, brief):
            click.echo(piece, nl=False)
    for failure in fleet.failures:
        remedy = f"; {failure.remedy}" if failure.remedy else ""
        click.echo(f"hcl: {failure.what} ({failure.where}){remedy}", err=True)
    context.exit(fleet.exit_code)


def _this_machine(terms: Terms) -> Iterator[MachineReport]:
    from hcl.readers.live import read_host

    yield terms.judge().machine(read_host())
