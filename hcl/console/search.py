"""``hcl search``: rows of the list by words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from hcl.console.options import site_options

if TYPE_CHECKING:
    from hcl.catalog import Item
    from hcl.site import Site

NOTHING = 1


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
@site_options
@click.pass_context
def search(context: click.Context, words: Sequence[str], as_json: bool, site: Site) -> None:
    """Find rows of the list in which all WORDS stand: ids, names, ESX driver or module.

    Ends with 1 when there is none.
    """
    from hcl import catalog
    from hcl.reading import installed

    found = tuple(catalog.search(installed(site), words))
    if as_json:
        click.echo(msgspec.json.encode(catalog.Found(words=tuple(words), items=found)))
    else:
        for line in lines(found):
            click.echo(line)
    context.exit(0 if found else NOTHING)


def lines(items: Iterable[Item]) -> list[str]:
    """A line a row, in columns."""
    rows = [
        (
            each.ids,
            each.subsystem or "",
            each.device_class or "",
            each.driver or ("overlay" if each.overlay else each.bus),
            _by_kernel(each.modules),
            " ".join([_by_kernel(each.status), *([f"native:{each.native}"] if each.native else [])]),
            each.name or "",
        )
        for each in items
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[6]]).rstrip()
        for row in rows
    ]


def _by_kernel(values: Mapping[str, str | None]) -> str:
    """One word where all kernels have the same."""
    if len(set(values.values())) <= 1:
        return next(iter(values.values()), None) or "-"
    return " ".join(f"{kernel}:{value or '-'}" for kernel, value in values.items())
