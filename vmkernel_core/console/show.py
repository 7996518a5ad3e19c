"""Results for people: a list as a table with a row for each, one thing as a table of its fields; or as JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Columns where there is no terminal that says how many it has.
_WIDTH = 200


def show(result: Any, as_json: bool, columns: Sequence[str] = ()) -> None:
    """Print a struct or a list of structs; ``columns`` are the fields that a table for people has, else all."""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=isinstance(result, list))
    if isinstance(result, list):
        if not result:
            return
        fields = columns or result[0].__struct_fields__
        for field in fields:
            table.add_column(_title(field), overflow="fold")
        for one in result:
            table.add_row(*(_text(getattr(one, field)) for field in fields))
    else:
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for field, value in msgspec.structs.asdict(result).items():
            table.add_row(_title(field), _text(value))
    width = None if sys.stdout.isatty() else _WIDTH
    Console(markup=False, highlight=False, width=width).print(table)


def _title(field: str) -> str:
    return field.replace("_", " ")


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(_text, value))
        case dict():
            return "\n".join(f"{key}: {_text(one)}" for key, one in value.items())
        case msgspec.Struct():
            return ", ".join(
                f"{_title(key)} {_text(one)}" for key, one in msgspec.structs.asdict(value).items()
            )
        case _:
            return str(value)
