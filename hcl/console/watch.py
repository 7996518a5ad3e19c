"""``hcl watch``: the verdict on each device as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from hcl.console.options import engine_option, site_options

if TYPE_CHECKING:
    from hcl.site import Site
    from hcl.verdict import Engine


@click.command()
@click.option("--kernel", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@engine_option
@click.option(
    "--timeout", type=click.FloatRange(min=0), help="End when nothing came or went for so many seconds."
)
@click.option(
    "--json", "as_json", is_flag=True, help="A line of JSON for each: action, place, and the report."
)
@site_options
def watch(
    kernel: str | None, engine: Engine | None, timeout: float | None, as_json: bool, site: Site
) -> None:
    """Judge the PCI and USB devices of this machine as they come, until Ctrl-C."""
    from hcl.console import kernel as kernels
    from hcl.judging import Judge
    from hcl.readers import live
    from hcl.reading import installed

    judge = Judge(installed(site), *kernels.find(kernel), engine=engine)
    for change in live.watch(timeout):
        report = judge.device(change.device) if change.device else None
        if as_json:
            line = {"action": change.action, "place": change.place, "report": report}
            click.echo(msgspec.json.encode(line))
        elif report:
            click.echo(f"{change.place}: {report.ids} {report.status}: {report.reason}")
        else:
            click.echo(f"{change.place}: gone")
