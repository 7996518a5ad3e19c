"""``hcl explain``: why a device gets its verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from hcl.console.options import engine_option, site_options

if TYPE_CHECKING:
    from hcl.explaining import Explanation
    from hcl.site import Site
    from hcl.verdict import Engine

_PAIR = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_CLASS = re.compile(r"[0-9a-f]{4}([0-9a-f]{2})?")


def _of_form(pattern: re.Pattern[str], example: str) -> Callable[..., str | None]:
    """A click callback that takes hexadecimal digits of a form."""

    def check(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        if not pattern.fullmatch(value.lower()):
            raise click.BadParameter(f"{value!r} is not of the form {example}")
        return value.lower()

    return check


@click.command()
@click.argument("device", metavar="PCI-ID", callback=_of_form(_PAIR, "8086:100e"))
@click.argument("subsystem", metavar="[SUBSYSTEM]", required=False, callback=_of_form(_PAIR, "1af4:1100"))
@click.option(
    "--class", "pci_class", metavar="CLASS", callback=_of_form(_CLASS, "0200 or 020000"),
    help="Its class code, four or six hexadecimal digits.",
)  # fmt: skip
@click.option("--kernel", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@site_options
def explain(
    device: str,
    subsystem: str | None,
    pci_class: str | None,
    kernel: str | None,
    engine: Engine | None,
    as_json: bool,
    site: Site,
) -> None:
    """Tell why a device gets its verdict: which rule, what else stood there, and what proves it.

    PCI-ID is vendor:device, SUBSYSTEM subvendor:subdevice, as lspci -nn prints them.
    """
    from hcl.console import kernel as kernels
    from hcl.explaining import explain as explanation_of
    from hcl.inventory import PciDevice
    from hcl.judging import Judge
    from hcl.reading import installed

    vendor, product = device.split(":")
    subvendor, subdevice = subsystem.split(":") if subsystem else (None, None)
    found = explanation_of(
        Judge(installed(site), *kernels.find(kernel), engine=engine),
        PciDevice(
            address="0000:00:00.0", vendor=vendor, device=product, subvendor=subvendor, subdevice=subdevice,
            pci_class=pci_class,
        ),
    )  # fmt: skip
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for line in _text(found):
        click.echo(line)


def _text(found: Explanation) -> Iterator[str]:
    from hcl.console.show import run_text

    report = found.report
    yield f"{report.ids} {report.name or ''}".rstrip()
    kernel = "" if report.engine == "native" else f", for Linux {found.kernel}"
    yield f"{report.status}{kernel}: {report.driven_by or 'no module'}"
    for part in ("hardware", "driver", "firmware"):
        judgement = getattr(report, part)
        yield f"  {part}: {judgement.status}: {judgement.reason}"
    for sentence in found.untold:
        yield f"note: {sentence}"
    yield "the ladder:"
    for number, step in enumerate(found.steps, 1):
        yield f"  {number}. {step.asked}: {'' if step.rows else 'no row'}".rstrip()
        for row in step.rows:
            served = f", served by {row.module}" if row.module else ""
            yield f"     {row.driver or 'entry'} ({row.place}){served}: {row.outcome}"
    if found.claims is None:
        yield f"the modules of Linux {found.kernel} are not here, and were not asked"
    else:
        yield f"modules of Linux {found.kernel} that claim it: {', '.join(found.claims) or 'none'}"
    for run in found.runs:
        yield from run_text(run)
    if not found.runs:
        yield "no certification run counts for this device"
