"""The results as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from bench.measure import Results, Traffic

#: What is aimed at: Linux's driver's share of the floor, that of the driver in Python of Linux's, and seconds.
AIM_RATIO, AIM_NATIVE = 0.5, 0.7
AIM_SECONDS = {"module_load": 0.3, "first_frame": 1.5}

_SECONDS = {
    "image_cold": "kernel image, first time",
    "image_cached": "kernel image, cached",
    "imports": "Python and its imports",
    "platform": "QEMU",
    "module_load": "module load",
    "probe": "probe",
    "link": "open until link up",
    "first_frame": "process start until the first frame",
    "first_frame_negotiated": "the same, with auto-negotiation",
}


def show(results: Results, console: Console) -> None:
    """Print the tables."""
    console.print(
        f"Modules of {results.kernel} on QEMU's cards, {results.cores} cores; batches of 64, "
        f"{results.frames} frames a run, medians of {results.rounds}"
    )
    for device in dict.fromkeys(case.device for case in results.traffic):
        cases = [case for case in results.traffic if case.device == device]
        console.print(_linux(device, cases), _native(device, cases))
    console.print(_access(results), _startup(results))


def _aim(text: str, reached: bool) -> str:
    return f"[green]{text}[/]" if reached else f"[red]{text}[/]"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _linux(device: str, cases: list[Traffic]) -> Table:
    table = _table(
        f"{device}: frames through Linux's driver (aim: {AIM_RATIO} of the floor)", "", "uplink/s", "floor/s", "ratio",
        "MMIO/frame", "irq/batch", "sleeps/batch",
    )  # fmt: skip
    for case in cases:
        table.add_row(*_case(case))
    return table


def _native(device: str, cases: list[Traffic]) -> Table:
    table = _table(
        f"{device}: the same through the driver in Python (aim: {AIM_NATIVE} of Linux's)", "",
        "uplink/s", "of Linux's", "of the floor", "MMIO/frame", "irq/batch", "sleeps/batch",
    )  # fmt: skip
    for case in cases:
        native = case.native
        table.add_row(
            _name(case),
            f"{native.frames_per_second:,.0f}",
            _aim(f"{case.native_ratio:.2f}", case.native_ratio >= AIM_NATIVE),
            f"{native.frames_per_second / case.floor.frames_per_second:.2f}",
            f"{native.reads_per_frame + native.writes_per_frame:.3f}",
            f"{native.interrupts_per_batch:.2f}",
            f"{native.switches_per_batch:.1f}",
        )
    return table


def _name(case: Traffic) -> str:
    return f"{case.direction} {case.size} B, {'one core' if case.pinned else 'unpinned'}"


def _case(case: Traffic) -> tuple[str, ...]:
    uplink = case.uplink
    return (
        _name(case),
        f"{uplink.frames_per_second:,.0f}",
        f"{case.floor.frames_per_second:,.0f}",
        _aim(f"{case.ratio:.2f}", case.ratio >= AIM_RATIO),
        f"{uplink.reads_per_frame + uplink.writes_per_frame:.3f}",
        f"{uplink.interrupts_per_batch:.2f}",
        f"{uplink.switches_per_batch:.1f}",
    )


def _access(results: Results) -> Table:
    table = _table("Register access of an e1000, ns", "", "one core", "unpinned")
    for kind, one_core in results.access_ns["pinned"].items():
        table.add_row(kind, f"{one_core:,.0f}", f"{results.access_ns['unpinned'][kind]:,.0f}")
    return table


def _startup(results: Results) -> Table:
    table = _table("Start, seconds", "", "seconds", "aim")
    for key, seconds in results.seconds.items():
        aim = AIM_SECONDS.get(key)
        text = f"{seconds:.3f}"
        table.add_row(_SECONDS[key], _aim(text, seconds < aim) if aim else text, f"{aim:g}" if aim else "")
    return table
