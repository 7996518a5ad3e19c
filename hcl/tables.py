"""TOML files that are one table, or made of tables of one kind: read with the line of each, and every mistake told."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from hcl.errors import RegistryError

Table = TypeVar("Table")
Problem: TypeAlias = Callable[[RegistryError], None]
"""Told of each mistake. It raises it, or keeps it, and then what is mistaken is left out."""


def refuse(error: RegistryError) -> None:
    """The Problem that raises the first mistake."""
    raise error


def text(path: Path, problem: Problem) -> str | None:
    """A file's text; None after a problem."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem(RegistryError(f"cannot read the registry: {error.strerror}", where=str(path)))
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem(RegistryError("not UTF-8", where=f"{path}:{line}", remedy="save it as UTF-8"))
        return None


def _document(path: Path, problem: Problem) -> tuple[str, dict[str, Any]] | None:
    """A file's text and what it says; None after a problem."""
    content = text(path, problem)
    if content is None:
        return None
    try:
        return content, tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at line (\d+),", str(error))
        line = int(found[1]) if found else len(content.splitlines())
        problem(RegistryError(f"not TOML: {error}", where=f"{path}:{line}"))
        return None


def read_one(path: Path, kind: type[Table], problem: Problem) -> tuple[str, Table] | None:
    """The table that a file is, with its ``file:line``; None after a problem."""
    found = _document(path, problem)
    if found is None:
        return None
    place = f"{path}:1"
    try:
        return place, msgspec.convert(found[1], kind)
    except msgspec.ValidationError as error:
        problem(RegistryError(str(error), where=place))
        return None


def read(
    path: Path, name: str, kind: type[Table], problem: Problem
) -> tuple[list[tuple[str, Table]], dict[str, Any] | None]:
    """The ``[[name]]`` tables with their ``file:line``, and what else the document says; None when it is damaged."""
    found = _document(path, problem)
    if found is None:
        return [], None
    content, document = found
    tables = document.pop(name, [])
    # The parser keeps no line numbers, so a table's place is that of its header.
    headers = [number for number, line in enumerate(content.split("\n"), 1) if line.startswith(f"[[{name}]]")]
    if not isinstance(tables, list) or len(headers) != len(tables):
        problem(
            RegistryError(
                f"the file must hold [[{name}]] tables",
                where=f"{path}:1",
                remedy=f"begin each of them with a line [[{name}]]",
            )
        )
        return [], None
    read_tables = []
    for line, table in zip(headers, tables, strict=True):
        try:
            read_tables.append((f"{path}:{line}", msgspec.convert(table, kind)))
        except msgspec.ValidationError as error:
            called = table.get("name") or table.get("ids") or table.get("module")
            problem(RegistryError(f"{name} {called!r}: {error}", where=f"{path}:{line}"))
    return read_tables, document


def read_only(path: Path, name: str, kind: type[Table], problem: Problem) -> list[tuple[str, Table]]:
    """The tables of a file that is to hold nothing else."""
    tables, rest = read(path, name, kind, problem)
    if rest:
        problem(
            RegistryError(
                f"the file must hold [[{name}]] tables and nothing else, not {', '.join(sorted(rest))}",
                where=f"{path}:1",
            )
        )
    return tables
