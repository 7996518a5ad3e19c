"""Verdicts as JSON: one object, whose ``machines`` are MachineReports as ``hcl.report`` describes them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hcl.report import VERSION
from hcl.summary import Fleet


def render(fleet: Fleet, brief: bool) -> Iterator[str]:
    """``{"version", "machines": [...], "errors": [...], "summary", "exit_code"}``; a machine a line."""
    yield f'{{"version": {VERSION}, "machines": ['
    comma = ""
    for report in fleet:
        if not brief:
            yield f"{comma}\n{msgspec.json.encode(report).decode()}"
            comma = ","
    end = {"errors": fleet.failures, "summary": fleet.summary(), "exit_code": fleet.exit_code}
    yield f"\n], {msgspec.json.encode(end).decode()[1:]}\n"
