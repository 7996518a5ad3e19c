"""Verdicts for people: a table a machine, and under it what does not fit, with its reason."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table

from hcl.report import MachineReport
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


def render(reports: Iterable[MachineReport]) -> Iterator[str]:
    """The tables. Skipped devices are counted, not shown."""
    for report in reports:
        yield _machine(report)


def _machine(report: MachineReport) -> str:
    text = io.StringIO()
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _WIDTH
    console = Console(file=text, force_terminal=terminal, width=width, markup=False, highlight=False)
    model = f" ({report.model})" if report.model else ""
    console.print(f"{report.host}{model}: Linux {report.kernel}, profile {report.profile}", style="bold")
    table = Table()
    for column in ("device", "ids", "name", "verdict", "driver"):
        table.add_column(column, overflow="fold")
    judged = [device for device in report.devices if device.status is not Status.SKIPPED]
    for device in judged:
        table.add_row(
            device.place, device.ids or "", device.name or "", str(device.status), device.module or "",
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
    console.print(
        ", ".join(f"{number} {status}" for status, number in report.counts.items() if number) or "no devices"
    )
    return text.getvalue()
