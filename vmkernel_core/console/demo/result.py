"""What came of a demo: as data, as a table, and whether it is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Sequence


_KEPT: Final = " (the driver keeps it, in Linux too)"


class NotVerified(VmkError):
    """The demo ran, but what it moved was lost or damaged, or the module left something behind."""


@dataclass(frozen=True, slots=True)
class Left:
    """A thing that the module left behind, in words. ``kept``: its driver never gives that back, in Linux either."""

    text: str
    kept: bool


class HclSays(msgspec.Struct, frozen=True):
    """The part of the HCL's verdict that tells which module was taken, and why.

    A device that the list does not name has no driver there; ``rung`` is "compatible" when a module claims it.
    """

    driver: str | None
    rung: str
    module: str | None


class Seconds(msgspec.Struct, frozen=True):
    """How long the kernel image, loading the module, probing the device and the traffic took."""

    image: float
    load: float
    probe: float
    traffic: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What ``vmk demo --json`` prints, of every kind of device; each kind says its own rows and problems."""

    # No ABC: a Struct has a metaclass of its own.

    platform: str
    device: str
    engine: str
    hcl: HclSays
    module_path: str
    kernel: str
    seconds: Seconds
    leaks: int

    def rows(self) -> list[tuple[str, str]]:
        """What the table for people shows of this kind of device, between the kernel and the seconds."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What was not verified, in words; nothing when all is good."""
        raise NotImplementedError

    def remedy(self) -> str:
        """What may help against the problems."""
        return "vmk -v demo logs what happened"


def judge(result: Result, left: Sequence[Left]) -> None:
    """Raise NotVerified unless all was verified, and nothing was left behind but what the driver always keeps."""
    problems = result.problems()
    if lost := [one for one in left if not one.kept]:
        problems.append(f"{result.hcl.module} left {len(lost)} things behind")
    if problems:
        raise NotVerified(", ".join(problems), remedy=result.remedy())


def show(result: Result, left: Sequence[Left]) -> None:
    """Print a table for people, with all that was left behind."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=f"{result.device} on {result.platform}")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    seconds = msgspec.structs.asdict(result.seconds)
    rows: list[tuple[str, str]] = [
        ("HCL", _hcl(result.hcl)),
        ("module", result.module_path),
        *([("kernel", result.kernel)] if result.kernel else [("engine", "a driver in Python, no kernel")]),
        *result.rows(),
        ("seconds", ", ".join(f"{part} {spent:.3f}" for part, spent in seconds.items())),
        ("leaks", "\n".join(f"{one.text}{_KEPT * one.kept}" for one in left) or "none"),
    ]
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def _hcl(says: HclSays) -> str:
    if says.driver is None:
        return f"not on the list; {says.rung}: module {says.module}"
    return f"{says.driver}, by {says.rung}: module {says.module}"
