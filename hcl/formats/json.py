"""Verdicts as JSON: one object, whose ``machines`` are MachineReports as ``hcl.report`` describes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from hcl.report import VERSION, MachineReport, counts_of, exit_code_of


def render(reports: Iterable[MachineReport]) -> Iterator[str]:
    """``{"version", "machines": [...], "counts", "exit_code"}``; a machine a line."""
    counts = counts_of(())
    yield f'{{"version": {VERSION}, "machines": ['
    comma = ""
    for report in reports:
        for status, number in report.counts.items():
            counts[status] += number
        yield f"{comma}\n{msgspec.json.encode(report).decode()}"
        comma = ","
    yield f'\n], "counts": {msgspec.json.encode(counts).decode()}, "exit_code": {exit_code_of(counts)}}}\n'
