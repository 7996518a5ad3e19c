"""``hcl show``: a driver, a device or a certification run, with all that the list knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from hcl.console.options import site_options
from hcl.console.search import NOTHING, lines

if TYPE_CHECKING:
    from hcl.catalog import Item, ModuleFacts, Shown
    from hcl.evidence import Run
    from hcl.firmware import Firmware
    from hcl.site import Site


@click.command()
@click.argument("what", metavar="DRIVER|ID|RUN")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@site_options
@click.pass_context
def show(context: click.Context, what: str, as_json: bool, site: Site) -> None:
    """Show an ESX driver (net/e1000, or e1000), a device (8086:100e), or a certification run by its name.

    Ends with 1 when the list has no such.
    """
    from hcl import catalog
    from hcl.reading import installed

    found = catalog.show(installed(site), what)
    if found is None:
        click.echo(f"hcl: the list has no {what}; hcl search WORDS finds what it has", err=True)
        context.exit(NOTHING)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for line in _text(found):
        click.echo(line)


def _text(shown: Shown) -> Iterator[str]:
    yield shown.title
    if shown.kind == "driver":
        yield f"  declared in {shown.place}"
        if shown.releases:
            yield f"  in {', '.join(shown.releases)}"
        yield f"  engines: {', '.join(shown.engines)}"
        if shown.priority:
            yield f"  priority {shown.priority}: {shown.priority_reason}"
    for name, facts in shown.modules.items():
        yield from _module(name, facts)
    if shown.python:
        yield f"{shown.python.driver}: {shown.python.rows} rows"
        yield f"  SHA-256 of its code: {shown.python.module_sha256 or 'it is not here'}"
    if shown.items:
        yield f"rows ({len(shown.items)}):"
        yield from (f"  {line}" for line in lines(shown.items))
    for item in shown.items:
        yield from _facts(item)
    for run in shown.runs:
        yield from run_text(run)


def _module(name: str, facts: ModuleFacts) -> Iterator[str]:
    rows = ", ".join(f"{number} rows in {series}" for series, number in facts.rows.items())
    yield f"module {name}: {facts.status}; {rows}"
    if facts.evidence:
        yield f"  evidence: {facts.evidence}"
    for limit in facts.limits:
        yield f"  known limit: {limit}"
    if facts.firmware:
        yield f"  firmware wanted: {_firmware(facts.firmware)}"


def _facts(item: Item) -> Iterator[str]:
    if item.overlay and item.source:
        yield f"{item.ids} by {item.place}: {item.source}"
    for limit in item.limits:
        yield f"{item.ids} by {item.place}: known limit: {limit}"
    if item.firmware:
        yield f"{item.ids} by {item.place}: firmware wanted: {_firmware(item.firmware)}"
    if item.engine:
        yield f"{item.ids} by {item.place}: the engine {item.engine} is preferred"


def _firmware(firmware: Firmware) -> str:
    wanted = [f"{firmware.minimum} or later"] if firmware.minimum else []
    return ", ".join([*wanted, *([f"the file {firmware.file}"] if firmware.file else [])])


def run_text(run: Run) -> Iterator[str]:
    """A run for people."""
    word = "passed" if run.passed else "FAILED"
    yield f"run {run.name}: {word}"
    yield f"  {run.suite} suite {run.suite_version}, {run.driver}, on {run.counterpart}"
    yield f"  {run.started:%Y-%m-%d %H:%M} UTC, {run.seconds:.0f} s"
    for check in run.checks:
        figures = ", ".join(f"{value:g} {name}" for name, value in check.figures.items())
        told = "; ".join(each for each in (check.detail, figures) if each)
        yield f"  {'ok    ' if check.passed else 'FAILED'} {check.name}{f': {told}' if told else ''}"
