"""``hcl lint``: what is wrong, or of no use, in the registry's files and in overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from hcl.console.options import site_options

if TYPE_CHECKING:
    from hcl.site import Site


@click.command()
@click.argument("paths", metavar="[FILES]...", type=click.Path(path_type=Path, exists=True), nargs=-1)
@click.option("--notes", is_flag=True, help="Show what is worth knowing, too.")
@click.option("--json", "as_json", is_flag=True, help="All findings as JSON.")
@site_options
@click.pass_context
def lint(context: click.Context, paths: Sequence[Path], notes: bool, as_json: bool, site: Site) -> None:
    """Look for what is wrong, or of no use, in the registry's files.

    FILES are drivers' folders (or a directory of them), usb.toml or overlays, told apart by what they hold; of what is
    not given the shipped one is taken, and its findings are left out. Without FILES it is the shipped list with the
    site's overlays. The modules of all kernels that are here are asked what they claim. Ends with 1 when there is an
    error or a warning.
    """
    from hcl.console.kernel import here
    from hcl.lint import Severity, files_of, report
    from hcl.lint import lint as findings_of

    kernels = here()
    asked = [path.absolute() for path in paths]
    findings = [
        each
        for each in findings_of(files_of(asked, site), kernels)
        if not asked or any(_below(place, path) for place in each.place.split(" and ") for path in asked)
    ]
    told = report(findings, kernels)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        context.exit(told.exit_code)
    for each in told.findings:
        if notes or each.severity is not Severity.NOTE:
            remedy = f"; {each.remedy}" if each.remedy else ""
            click.echo(f"{each.place}: {each.severity}: {each.text}{remedy} [{each.rule}]")
    counts = [(sum(each.severity is one for each in told.findings), one) for one in Severity]
    summary = ", ".join(f"{number} {one}s" for number, one in counts)
    hint = "" if notes or not counts[-1][0] else "; --notes shows the notes"
    click.echo(f"{summary}; kernels asked: {', '.join(told.kernels) or 'none is here'}{hint}")
    context.exit(told.exit_code)


def _below(place: str, path: Path) -> bool:
    """Whether a ``file:line`` is of a path, or of what lies in it."""
    return place.startswith((f"{path}:", f"{path}/"))
