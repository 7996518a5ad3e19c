"""Reads the registry's two files and says, with file and line, what is wrong in them."""

from __future__ import annotations

import itertools
import re
import tomllib
from functools import cache
from pathlib import Path

import msgspec

from hcl.errors import RegistryError
from hcl.evidence import Evidence
from hcl.registry import Claim, Driver, Ids, Registry, Scope, Service

_COLUMNS = ("driver", "vendor", "device", "subvendor", "subdevice", "class", "class_mask", "source")
_KERNEL_COLUMN = re.compile(r"linux-(\d+\.\d+)")
_SERVICE = re.compile(r"(?:(class|subsystem):)?([a-z0-9_]+)")
_HEX = re.compile(r"[0-9a-f]*")


@cache
def shipped() -> Registry:
    """The registry that comes with this package, read at the first call."""
    here = Path(__file__).parent
    return read(here / "drivers.toml", here / "ids.tsv", Evidence([here / "runs"], [here / "keys"]))


def read(drivers: Path, ids: Path, evidence: Evidence | None = None) -> Registry:
    """A registry from a drivers file (TOML) and an ids file (TSV); their own comments describe them.

    Raises RegistryError, whose ``where`` is ``file:line``.
    """
    declared = _read_drivers(drivers)
    claims, kernels = _read_claims(ids)
    return Registry(declared, claims, kernels, str(drivers), evidence)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RegistryError(
            f"cannot read the registry: {error.strerror}", where=str(path), remedy="reinstall vmklinux"
        ) from error
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RegistryError("not UTF-8", where=f"{path}:{line}", remedy="save it as UTF-8") from error


def _read_drivers(path: Path) -> dict[str, Driver]:
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at line (\d+),", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        raise RegistryError(f"not TOML: {error}", where=f"{path}:{line}") from error
    tables = document.pop("driver", [])
    # The parser keeps no line numbers, so a driver's place is that of its header.
    headers = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith("[[driver]]")]
    if document or not isinstance(tables, list) or len(headers) != len(tables):
        raise RegistryError(
            "the file must hold [[driver]] tables and nothing else",
            where=f"{path}:1",
            remedy="begin each driver with a line [[driver]]",
        )
    drivers: dict[str, Driver] = {}
    for line, table in zip(headers, tables, strict=True):
        try:
            driver = msgspec.convert(table, Driver)
        except msgspec.ValidationError as error:
            raise RegistryError(f"driver {table.get('name')!r}: {error}", where=f"{path}:{line}") from error
        if driver.name in drivers:
            raise RegistryError(f"driver {driver.name!r} is declared twice", where=f"{path}:{line}")
        drivers[driver.name] = driver
    return drivers


def _read_claims(path: Path) -> tuple[list[Claim], list[str]]:
    lines = [
        (number, line)
        for number, line in enumerate(_text(path).split("\n"), 1)
        if line and not line.startswith("#")
    ]
    number, header = lines[0] if lines else (1, "")
    names = header.split("\t")
    kernels = [found[1] for name in names if (found := _KERNEL_COLUMN.fullmatch(name))]
    if not kernels or sorted(names) != sorted([*_COLUMNS, *(f"linux-{series}" for series in kernels)]):
        raise RegistryError(
            f"the first line must name the columns, not {header!r}",
            where=f"{path}:{number}",
            remedy=f"they are {', '.join(_COLUMNS)}, and linux-X.Y for each kernel series",
        )
    claims = []
    for number, line in lines[1:]:
        fields = line.split("\t")
        try:
            if len(fields) != len(names):
                raise ValueError(f"{len(fields)} columns where {len(names)} are named")
            claims.append(_claim(dict(zip(names, fields, strict=True)), kernels, f"{path}:{number}"))
        except ValueError as error:
            raise RegistryError(str(error), where=f"{path}:{number}") from error
    return claims, kernels


def _claim(row: dict[str, str], kernels: list[str], place: str) -> Claim:
    """One row's claim; ValueError says what is wrong with it."""
    device, subvendor, subdevice = (
        None if row[name] == "*" else _hexadecimal(row, name, 4)
        for name in ("device", "subvendor", "subdevice")
    )
    ids: Ids = (_hexadecimal(row, "vendor", 4), device, subvendor, subdevice)
    if any(wider is None and narrower is not None for wider, narrower in itertools.pairwise(ids)):
        raise ValueError(
            "an id follows a '*'; device, subvendor and subdevice narrow each other in this order"
        )
    pci_class = class_mask = 0
    if (row["class"], row["class_mask"]) != ("-", "-"):
        pci_class, class_mask = _hexadecimal(row, "class", 6), _hexadecimal(row, "class_mask", 6)
        if not class_mask or pci_class & ~class_mask:
            raise ValueError(f"class {row['class']} has bits outside its mask {row['class_mask']}")
    elif device is None:
        raise ValueError("a row for any device of a vendor must name a class")
    return Claim(
        driver=row["driver"],
        ids=ids,
        pci_class=pci_class,
        class_mask=class_mask,
        services={series: _service(row[f"linux-{series}"]) for series in kernels},
        source=row["source"],
        place=place,
    )


def _hexadecimal(row: dict[str, str], name: str, digits: int) -> int:
    text = row[name]
    if len(text) != digits or not _HEX.fullmatch(text):
        raise ValueError(f"{name} {text!r} is not {digits} lower-case hexadecimal digits")
    return int(text, 16)


@cache
def _service(text: str) -> Service | None:
    if text == "-":
        return None
    found = _SERVICE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} names no Linux module; write NAME, class:NAME, subsystem:NAME or -")
    return Service(found[2], Scope(found[1]) if found[1] else Scope.IDS)
