"""Verdicts for people: a table a machine, and under it what does not fit, with its reason."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator

import msgspec
from rich.console import Console
from rich.table import Table

from hcl.report import MachineReport
from hcl.summary import Fleet, Summary
from hcl.verdict import Status

_STYLES = {
    Status.CERTIFIED: "green",
    Status.COMPATIBLE: "cyan",
    Status.UNSUPPORTED: "red",
    Status.UNKNOWN: "yellow",
    Status.SKIPPED: "dim",
}
#: Columns where no terminal says how many it has.
_WIDTH = 160


def render(fleet: Fleet, brief: bool) -> Iterator[str]:
    """One machine's table, where skipped devices are counted and not shown; of several a line each, and the summary."""
    alone: MachineReport | None = None
    for number, report in enumerate(fleet):
        if number == 0:
            alone = report
            continue
        if alone and not brief:
            yield _line(alone)
        alone = None
        if not brief:
            yield _line(report)
    if alone and not brief:
        yield _machine(alone)
    else:
        yield _summary(fleet.summary())


def _line(report: MachineReport) -> str:
    tainted = "; tainted" if report.tainted else ""
    return f"{_title(report)}: {_counts(report.counts)}{tainted}\n"


def _title(report: MachineReport) -> str:
    return f"{report.host} ({report.model})" if report.model else report.host


def _summary(summary: Summary) -> str:
    text, console = _console()
    console.print(f"{summary.machines} machines", style="bold")
    models = Table("model", "machines", "fit", "unsupported", "undetermined")
    for model in summary.models:
        models.add_row(model.model or "", *map(str, msgspec.structs.astuple(model)[1:]))
    devices = Table("ids", "name", "driver", "verdict", "devices", "machines")
    for one in summary.devices:
        devices.add_row(
            one.ids or "", one.name or "", one.driven_by, str(one.status), str(one.devices), str(one.machines),
            style=_STYLES[one.status],
        )  # fmt: skip
    console.print(models)
    if summary.devices:
        console.print(devices)
    console.print(_counts(summary.counts))
    return text.getvalue()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items() if number) or "no devices"


def _console() -> tuple[io.StringIO, Console]:
    """A console that prints into a text, as wide as the terminal that this will be shown on."""
    text = io.StringIO()
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _WIDTH
    return text, Console(file=text, force_terminal=terminal, width=width, markup=False, highlight=False)


def _machine(report: MachineReport) -> str:
    text, console = _console()
    console.print(f"{_title(report)}: {report.terms}", style="bold")
    table = Table()
    for column in ("device", "ids", "name", "verdict", "driver"):
        table.add_column(column, overflow="fold")
    judged = [device for device in report.devices if device.status is not Status.SKIPPED]
    for device in judged:
        table.add_row(
            device.place, device.ids or "", device.name or "", str(device.status), device.driven_by,
            style=_STYLES[device.status],
        )  # fmt: skip
    if judged:
        console.print(table)
    for device in judged:
        if device.status in (Status.UNSUPPORTED, Status.UNKNOWN):
            console.print(f"{device.place}: {device.status}: {device.reason}", soft_wrap=True)
    for sentence in report.notes:
        console.print(f"note: {sentence}")
    for sentence in report.tainted:
        console.print(f"tainted: {sentence}", style="red")
    console.print(_counts(report.counts))
    return text.getvalue()
