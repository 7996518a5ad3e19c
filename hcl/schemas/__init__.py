"""The JSON Schemas (draft 2020-12) of what this package writes and reads, as files beside this one.

They are made of the types themselves: ``python -m hcl.schemas`` writes them anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hcl.catalog import Found, Shown
from hcl.evidence import Run
from hcl.explaining import Explanation
from hcl.inventory import Inventory
from hcl.lint import LintReport
from hcl.overlay import Entry
from hcl.registry import Declaration
from hcl.release import Release
from hcl.report import VERSION, MachineReport
from hcl.signing import Signature
from hcl.summary import Failure, Summary
from hcl.usb import Table
from hcl.verdict import Status

HERE = Path(__file__).parent


class Report(msgspec.Struct, frozen=True):
    """What ``hcl validate --format json`` writes."""

    version: int
    machines: tuple[MachineReport, ...]
    errors: tuple[Failure, ...]
    summary: Summary
    exit_code: int


class UsbFile(Table, frozen=True, forbid_unknown_fields=True):
    """``usb.toml``."""


class OverlayFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a site lays over the list."""

    device: tuple[Entry, ...]


class ReleaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``hcl export`` writes and ``hcl import`` takes."""

    release: Release
    signature: Signature


SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "report": Report,
    "inventory": Inventory,
    "run": Run,
    "driver": Declaration,
    "usb": UsbFile,
    "overlay": OverlayFile,
    "release": ReleaseFile,
    "lint": LintReport,
    "search": Found,
    "show": Shown,
    "explain": Explanation,
}
"""By the name of its file: the type that it describes."""


def schema(name: str) -> dict[str, Any]:
    """The schema of that name, made of the type."""
    made = msgspec.json.schema(SCHEMAS[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"hcl {name}, version {VERSION}",
        "description": f"Statuses are {', '.join(Status)}.",
        **made,
    }


def text(name: str) -> bytes:
    """The content of its file."""
    return msgspec.json.format(msgspec.json.encode(schema(name)), indent=2) + b"\n"
