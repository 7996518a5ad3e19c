"""The commands ``vmk kernel fetch``, ``vmk kernel list`` and ``vmk kernel aliases``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from vmklinux.kernels import Kernel, Progress
    from vmklinux.kernels.modalias import Alias


@click.group()
def kernel() -> None:
    """Kernel packages: get them, and see which are here."""


@kernel.command()
@click.argument("release", required=False)
def fetch(release: str | None) -> None:
    """Get Debian's kernel RELEASE (or the newest that begins so, like 6.12) into the kernel cache.

    Nothing is installed and no root is needed. The cache is VMK_KERNELS, else
    vmklinux/kernels below XDG_CACHE_HOME or ~/.cache.
    """
    from vmklinux.kernels import fetch as fetch_kernel

    with _shown_progress() as progress:
        fetched = fetch_kernel(release, progress)
    click.echo(f"{fetched.release}  {fetched.path}")


@kernel.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: release, path, usable, reason of each.")
def list_kernels(as_json: bool) -> None:
    """Show the cached kernels and the host's own, newest first, and why one cannot be used."""
    from vmklinux.kernels import kernels

    known = kernels()
    if as_json:
        _print_json(known)
        return
    if not known:
        click.echo("no kernel here; run: vmk kernel fetch", err=True)
    width = max((len(each.release) for each in known), default=0)
    for each in known:
        state = "usable" if each.usable else f"unusable: {each.reason}"
        click.echo(f"{each.release:{width}}  {each.path}  {state}")


def _print_json(known: list[Kernel]) -> None:
    import json

    rows = [
        {"release": each.release, "path": str(each.path), "usable": each.usable, "reason": each.reason}
        for each in known
    ]
    click.echo(json.dumps(rows, indent=2))


@kernel.command()
@click.argument("device", metavar="PCI-ID|MODALIAS")
@click.option("--kernel", "release", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: pattern, module, builtin of each.")
def aliases(device: str, release: str | None, as_json: bool) -> None:
    """Show which network and storage modules of a kernel claim a device, the nearest first.

    The device is vendor:device in hexadecimal, like 10ec:8139, or a modalias as Linux has it in
    /sys/bus/*/devices/*/modalias.
    """
    from vmklinux.kernels import find

    found_kernel = find(release)
    found = _claiming(device, found_kernel)
    if as_json:
        import msgspec

        rows = [msgspec.structs.asdict(alias) for alias in found]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    if not found:
        click.echo(f"no module of {found_kernel.release} claims {device}", err=True)
    for alias in found:
        click.echo(f"{alias.module}{' (built in)' if alias.builtin else ''}  {alias.pattern}")


def _claiming(device: str, kernel: Kernel) -> list[Alias]:
    if ids := re.fullmatch(r"([0-9a-f]{4}):([0-9a-f]{4})", device, re.ASCII | re.IGNORECASE):
        return kernel.aliases.naming(int(ids[1], 16), int(ids[2], 16))
    if not re.match(r"[a-z0-9_-]+:[^:]", device, re.IGNORECASE):
        raise UsageError(f"{device!r} is neither a PCI id nor a modalias", remedy="write it like 10ec:8139")
    return kernel.aliases.matching(device)


@contextmanager
def _shown_progress() -> Iterator[Progress]:
    """Bars on a terminal, one line per step elsewhere; on standard error both."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def line(step: str, _done: float) -> None:
            if step not in told:
                told.add(step)
                click.echo(step, err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def bar(step: str, done: float) -> None:
            if step not in tasks:
                for task in tasks.values():
                    bars.update(task, completed=1.0)
                tasks[step] = bars.add_task(step, total=1.0)
            bars.update(tasks[step], completed=done)

        yield bar
        for task in tasks.values():
            bars.update(task, completed=1.0)
