"""The command ``vmk module check``: what modules need, and who would serve it, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmkernel_core.errors import UsageError, VmkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmklinux.kernels import Kernel
    from vmklinux.resolve import Report, Survey

#: What --all takes, and the directories of a kernel's modules that have such drivers.
FAMILIES = {
    "net": ("drivers/net/ethernet",),
    "scsi": ("drivers/scsi", "drivers/message/fusion"),
}


class SomethingMissing(VmkError):
    """A module, or one that it depends on, needs symbols that nothing serves; or it could not be read."""


@click.group()
def module() -> None:
    """Linux modules: see what they need and what serves it."""


@module.command()
@click.argument("names", metavar="[NAME|PATH]...", nargs=-1)
@click.option(
    "--all", "family", type=click.Choice(list(FAMILIES)), help="Every Ethernet (net) or SCSI (scsi) driver."
)
@click.option("--kernel", "release", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: for each module its counts and lists, and totals."
)
def check(names: Sequence[str], family: str | None, release: str | None, as_json: bool) -> None:
    """Link modules without running them, and count who serves the symbols that they import.

    A module is named as modprobe knows it, or by the path of its file. It counts as resolved when neither it nor a
    module that it depends on lacks a symbol. Ends with 1 when one is not resolved or cannot be read; the other
    modules are reported all the same.
    """
    if bool(names) == bool(family):
        raise UsageError("vmk module check wants names, or --all", remedy="vmk module check e1000")
    from vmklinux import kernels

    kernel = kernels.find(release)
    wanted = (
        list(names)
        if family is None
        else [str(path) for directory in FAMILIES[family] for path in kernel.modules_under(directory)]
    )
    from vmklinux.resolve import survey

    reports, errors = _check_all(wanted, kernel)
    found = survey(reports, len(wanted))
    if as_json:
        _print_json(found)
    elif reports:
        _print_table(found, kernel)
    for error in errors:
        click.echo(f"vmk: {error}", err=True)
    _judge(reports, errors)


def _check_all(wanted: Sequence[str], kernel: Kernel) -> tuple[list[Report], list[VmkError]]:
    from vmkernel_core.console.progress import Progress
    from vmklinux.image import prepare
    from vmklinux.kernels import image_dir
    from vmklinux.resolve import check as check_module

    image = prepare(kernel, image_dir())
    reports: list[Report] = []
    errors: list[VmkError] = []
    with Progress("modules", len(wanted)) as progress:
        for number, name in enumerate(wanted):
            progress.at(number)
            try:
                reports.append(check_module(_file(name, kernel), kernel, image))
            except VmkError as error:
                errors.append(error)
    return reports, errors


def _file(name: str, kernel: Kernel) -> Path:
    return Path(name) if "/" in name or ".ko" in name else kernel.find_module(name)


def _judge(reports: Sequence[Report], errors: Sequence[VmkError]) -> None:
    lacking = sum(not report.resolved for report in reports)
    problems = []
    if lacking:
        problems.append(
            f"{lacking} of {len(reports) + len(errors)} modules need symbols that nothing here serves"
        )
    if errors:
        problems.append(f"{len(errors)} could not be checked")
    if problems:
        raise SomethingMissing(", ".join(problems))


def _print_json(found: Survey) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))


def _print_table(found: Survey, kernel: Kernel) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    table = Table(title=f"Imported symbols by who serves them, kernel {kernel.release}")
    table.add_column("module")
    for column in ("imports", "vmklinux", "image", "modules", "unresolved", "sensitive"):
        table.add_column(column, justify="right")
    for report in found.modules:
        counts = (
            report.imports, report.vmklinux, report.image, report.modules,
            len(report.unresolved), len(report.sensitive),
        )  # fmt: skip
        table.add_row(report.module, *map(str, counts))
    console.print(table)
    for report in found.modules:
        for name, lacking in ((report.module, report.unresolved), *report.dependencies.items()):
            if lacking:
                needs = "" if name == report.module else f" needs {name}, which has"
                console.print(f"{report.module}{needs} unresolved: {', '.join(lacking)}")
    totals = found.totals
    console.print(
        f"resolved with all they depend on: {totals.resolved} of {totals.total} modules, {totals.percent} %"
    )
