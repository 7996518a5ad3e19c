"""What came of a demo: as data, as a table, and whether it is good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from vmkernel_core.console.traffic import Way
from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Sequence


#: QEMU's cards that damage frames by themselves (QEMU 7.2, hw/net/eepro100.c): a command of an 82558 and later with one
#: buffer is read as if it had two, and the second is what an earlier command left there, if it was one that configured.
#: e100.ko has 128 commands; the first of them configure, and are used for frames when their turn comes again.
_SECOND_BUFFER = (
    "QEMU's 82558 and later put more behind a frame in the place of a command that configured the card; "
    "--frames 100 ends before that"
)
_FLAWS = {
    device: _SECOND_BUFFER
    for device in (
        "i82550", "i82551", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801",
    )
}  # fmt: skip


class NotVerified(VmkError):
    """The demo ran, but frames were lost or damaged, or the module left something behind."""


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


class Result(msgspec.Struct, frozen=True):
    """What ``vmk demo --json`` prints."""

    platform: str
    device: str
    hcl: HclSays
    module_path: str
    kernel: str
    mac: str
    link_mbps: int
    tx: Way
    rx: Way
    mmio_per_frame: float
    seconds: Seconds
    leaks: int


def judge(result: Result) -> None:
    """Raise NotVerified unless every frame arrived byte for byte and nothing was left behind."""
    problems = [
        f"{way.frames - way.verified} of {way.frames} frames {where} were not verified"
        for way, where in ((result.tx, "out"), (result.rx, "in"))
        if way.verified != way.frames
    ]
    if result.leaks:
        problems.append(f"{result.hcl.module} left {result.leaks} things behind")
    if problems:
        flaw = _FLAWS.get(result.device) if result.tx.verified != result.tx.frames else None
        raise NotVerified(", ".join(problems), remedy=flaw or "vmk -v demo logs what happened")


def show(result: Result, leaks: Sequence[str]) -> None:
    """Print a table for people; ``leaks`` tells of each thing that was left behind."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=f"{result.device} on {result.platform}")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    seconds = msgspec.structs.asdict(result.seconds)
    rows: list[tuple[str, str]] = [
        ("HCL", _hcl(result.hcl)),
        ("module", result.module_path),
        ("kernel", result.kernel),
        ("MAC", result.mac),
        ("link", f"{result.link_mbps} Mb/s"),
        ("frames out", _way(result.tx)),
        ("frames in", _way(result.rx)),
        ("register accesses", f"{result.mmio_per_frame} per frame"),
        ("seconds", ", ".join(f"{part} {spent:.3f}" for part, spent in seconds.items())),
        ("leaks", "\n".join(leaks) or "none"),
    ]
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def _hcl(says: HclSays) -> str:
    if says.driver is None:
        return f"not on the list; {says.rung}: module {says.module}"
    return f"{says.driver}, by {says.rung}: module {says.module}"


def _way(way: Way) -> str:
    return f"{way.frames} sent, {way.bytes} bytes; {way.verified} arrived, every byte checked"
