"""Reads the registry's files, and a site's, and says, with file and line, what is wrong in them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hcl import tables
from hcl.errors import RegistryError
from hcl.evidence import Evidence
from hcl.ladder import Ids
from hcl.overlay import Entry, Overlay, Placed
from hcl.registry import Claim, Declaration, Driver, DriverName, Registry, Scope, Service
from hcl.site import KEYS, RELEASE, RUNS, Site, directory, folders, overlay_files
from hcl.tables import Problem, refuse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_COLUMNS = ("vendor", "device", "subvendor", "subdevice", "class", "class_mask", "source")
_NATIVE = "native"
_KERNEL_COLUMN = re.compile(r"linux-(\d+\.\d+)")
_SERVICE = re.compile(r"(?:(class|subsystem):)?([a-z0-9_]+)")
_HEX = re.compile(r"[0-9a-f]*")

HERE = Path(__file__).parent
DRIVERS = HERE.parent / "native_drivers"
"""The list that comes with this package: a folder for each driver, such as ``net/e1000``, with what is known of it. Of
these folders data is read, no code.
"""
DECLARATION, IDS = "driver.toml", "ids.tsv"
"""What the list has in a driver's folder; docs/hcl.md describes them."""
NO_SITE = Site()


@cache
def shipped() -> Registry:
    """The registry that comes with this package and nothing else, read at the first call."""
    return read(DRIVERS, Evidence([HERE / RUNS], [HERE / KEYS]))


def installed(site: Site = NO_SITE) -> Registry:
    """The registry that the tools use: the imported release, else the shipped one, and over it what the site's
    directory holds and what is given here. Read at the first call; RegistryError, BadRelease.
    """
    return _installed(directory(), site)


@cache
def _installed(where: str | None, site: Site) -> Registry:
    own_folders = folders(where)
    runs = [*(folder / RUNS for folder in (HERE, *own_folders)), *site.evidence]
    keys = [*(place for folder in (HERE, *own_folders) if (place := folder / KEYS).is_dir()), *site.keys]
    own = read_overlay([*own_folders, *site.overlays])
    overlays = [own] if own.entries else []
    imported = next((file for folder in own_folders if (file := folder / RELEASE).is_file()), None)
    if imported is None:
        return read(DRIVERS, Evidence(runs, keys), overlays)
    from hcl import release

    made = release.read(imported, Evidence((), keys).keys)
    return made.registry(Evidence(runs, keys, made.enclosed(imported)), overlays)


def trusted(folder: Path | None, keys: Iterable[Path]) -> tuple[Ed25519PublicKey, ...]:
    """The keys that a site's directory, there or not, and this package trust, and these. BadKey."""
    places = (place / KEYS for place in (HERE, folder) if place)
    return Evidence((), [*(place for place in places if place.is_dir()), *keys]).keys


def read(drivers: Path, evidence: Evidence | None = None, overlays: Iterable[Overlay] = ()) -> Registry:
    """A registry of drivers' folders, which lie below this one by class.

    Raises RegistryError, whose ``where`` is ``file:line``.
    """
    listed = read_list(drivers, refuse)
    return Registry(listed.drivers, listed.claims, listed.kernels, listed.places, evidence, overlays=overlays)


class Listed(NamedTuple):
    """What drivers' folders say."""

    drivers: dict[str, Driver]
    """By name."""
    places: dict[str, str]
    """The ``file:line`` of each."""
    claims: list[Claim]
    kernels: list[str]
    """The kernel series that they know."""


def read_list(drivers: Path, problem: Problem) -> Listed:
    """What drivers' folders say, but for what cannot be read."""
    listed = Listed({}, {}, [], [])
    for folder in sorted(
        {file.parent for name in (DECLARATION, IDS) for file in drivers.glob(f"*/*/{name}")}
    ):
        name = f"{folder.parent.name}/{folder.name}"
        if declared := read_driver(folder / DECLARATION, name, problem):
            listed.places[name], listed.drivers[name] = declared
        if not (folder / IDS).exists():
            continue
        claims, kernels = read_claims(folder / IDS, name, problem)
        if listed.kernels and kernels and kernels != listed.kernels:
            told, others = ", ".join(kernels), ", ".join(listed.kernels)
            problem(RegistryError(f"it tells of Linux {told}, others of {others}", where=f"{folder / IDS}:1"))
        elif declared:
            listed.kernels[:] = listed.kernels or kernels
            listed.claims.extend(claims)
    if not listed.drivers:
        problem(RegistryError("no driver's folder is there", where=str(drivers)))
    return listed


def read_driver(path: Path, name: str, problem: Problem) -> tuple[str, Driver] | None:
    """A driver's declaration, with its ``file:line``; None after a problem."""
    found = tables.read_one(path, Declaration, problem)
    if found is None:
        return None
    place, declaration = found
    try:
        msgspec.convert(name, DriverName)
        return place, Driver(name=name, **msgspec.structs.asdict(declaration))
    except msgspec.ValidationError as error:
        problem(RegistryError(f"the folder {name}: {error}", where=place))
        return None


def read_overlay(places: Iterable[Path], problem: Problem = refuse) -> Overlay:
    """The overlay of files, and directories of ``*.toml``."""
    return Overlay(
        Placed(entry, place)
        for path in overlay_files(tuple(places))
        for place, entry in tables.read_only(path, "device", Entry, problem)
    )


def read_claims(path: Path, driver: str, problem: Problem) -> tuple[list[Claim], list[str]]:
    """The claims of a driver's file, and the kernel series that it knows."""
    content = tables.text(path, problem)
    if content is None:
        return [], []
    lines = [
        (number, line)
        for number, line in enumerate(content.split("\n"), 1)
        if line and not line.startswith("#")
    ]
    number, header = lines[0] if lines else (1, "")
    names = header.split("\t")
    kernels = [found[1] for name in names if (found := _KERNEL_COLUMN.fullmatch(name))]
    wanted = {*_COLUMNS, *(f"linux-{series}" for series in kernels)}
    if not kernels or len(names) != len(set(names)) or set(names) - {_NATIVE} != wanted:
        problem(
            RegistryError(
                f"the first line must name the columns, not {header!r}",
                where=f"{path}:{number}",
                remedy=f"they are {', '.join(_COLUMNS)}, linux-X.Y for each kernel series, and perhaps {_NATIVE}",
            )
        )
        return [], []
    claims = []
    for number, line in lines[1:]:
        fields = line.split("\t")
        try:
            if len(fields) != len(names):
                raise ValueError(f"{len(fields)} columns where {len(names)} are named")
            claims.append(_claim(dict(zip(names, fields, strict=True)), driver, kernels, f"{path}:{number}"))
        except ValueError as error:
            problem(RegistryError(str(error), where=f"{path}:{number}"))
    return claims, kernels


def _claim(row: dict[str, str], driver: str, kernels: list[str], place: str) -> Claim:
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
    if row.get(_NATIVE, "-") not in ("-", _NATIVE):
        raise ValueError(f"{row[_NATIVE]!r} is neither {_NATIVE} nor -")
    return Claim(
        driver=driver,
        ids=ids,
        pci_class=pci_class,
        class_mask=class_mask,
        services={series: _service(row[f"linux-{series}"]) for series in kernels},
        source=row["source"],
        place=place,
        native=row.get(_NATIVE) == _NATIVE,
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
