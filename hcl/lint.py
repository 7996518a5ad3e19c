"""The linter of the registry: everything that is wrong, or of no use, in its files and in a site's overlays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from hcl import claims as module_claims
from hcl import tables, usb
from hcl.errors import RegistryError
from hcl.evidence import of_series
from hcl.ladder import Ladder
from hcl.overlay import Amendment, Overlay
from hcl.reading import DECLARATION, DRIVERS, IDS, read_list, read_overlay
from hcl.registry import Claim, Driver, Registry, Scope, ladder_of, problems
from hcl.site import Site, directory, folders, overlay_files
from hcl.tables import refuse

VERSION = 1
"""Of what ``hcl lint --json`` writes."""


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """The list cannot be used, or says what is wrong."""
    WARNING = "warning"
    """It says what is of no use, or not quite so."""
    NOTE = "note"
    """Worth knowing; nothing has to be done."""


class Rule(NamedTuple):
    """What the linter looks for."""

    severity: Severity
    meaning: str


RULES = {
    "damaged": Rule(Severity.ERROR, "a file, or a row of it, cannot be read"),
    "undeclared": Rule(Severity.ERROR, "a row names a driver or a module that no driver's table declares"),
    "no-ids": Rule(Severity.ERROR, "a driver, or a module of it, serves no device"),
    "no-code": Rule(Severity.ERROR, "a driver is to have code in Python, and its folder has none"),
    "conflict": Rule(Severity.ERROR, "two rows claim the same device, and nothing decides between them"),
    "unknown-module": Rule(Severity.ERROR, "a kernel that is here has no module of the name"),
    "not-claimed": Rule(
        Severity.ERROR, "the module of a kernel that is here does not claim the row's devices"
    ),
    "other-scope": Rule(Severity.WARNING, "the module claims them by something else than the row says"),
    "shadowed": Rule(Severity.WARNING, "a row can never win: nearer rows take all of its devices"),
    "outranked": Rule(Severity.NOTE, "a row can never win, since a driver of higher priority has the same"),
    "idle-priority": Rule(Severity.WARNING, "a driver's priority decides nothing"),
    "nothing-new": Rule(Severity.WARNING, "an overlay's entry says what the list says anyway"),
    "unknown-kernel": Rule(
        Severity.WARNING, "an overlay's entry means a kernel that the list does not cover"
    ),
    "no-kernel": Rule(Severity.NOTE, "no kernel of a series is here, so that its modules were not asked"),
}
"""By name."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found."""

    place: str
    """``file:line``, or two of them with `` and `` between."""
    severity: Severity
    rule: str
    text: str
    remedy: str = ""


class LintReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``hcl lint --json`` writes."""

    version: int = VERSION
    kernels: tuple[str, ...]
    """The releases whose modules were asked."""
    findings: tuple[Finding, ...]
    exit_code: int
    """1 when there is an error or a warning."""


class KernelClaims(Protocol):
    """A kernel's modules, as far as the linter asks of them."""

    release: str

    def patterns(self, module: str) -> Sequence[str] | None:
        """The patterns by which a module claims devices; None when the release has no such module."""

    def builds_in(self, module: str) -> bool:
        """Whether it is built in: then nothing tells what it claims."""


class Files(NamedTuple):
    """What is looked at."""

    drivers: Path
    """The directory with drivers' folders."""
    usb: Path
    overlays: tuple[Path, ...] = ()


def files_of(paths: Iterable[Path], site: Site) -> Files:
    """The files of these paths, directories being searched; what is missing is the shipped list's, and the overlays
    are the site's where no paths are given. A driver's folder, or a file there, stands for the list that it lies in.
    RegistryError when two are of one kind.
    """
    kinds: dict[str, list[Path]] = {"list": [], "entry": [], "device": []}
    given = list(paths)
    for path in given:
        inside = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if (found := _list_of(path)) and found not in kinds["list"]:
            kinds["list"].append(found)
        for each in inside:
            if each.name not in (DECLARATION, IDS):
                kinds[_kind(each)].append(each)
    for kind in _SHIPPED:
        if len(kinds[kind]) > 1:
            raise RegistryError(
                f"{kinds[kind][0]} is of the same kind", where=str(kinds[kind][1]), remedy="give one of them"
            )
    overlays = kinds["device"] if given else overlay_files((*folders(directory()), *site.overlays))
    drivers, of_usb = (kinds[kind][0] if kinds[kind] else shipped for kind, shipped in _SHIPPED.items())
    return Files(drivers, of_usb, tuple(overlays))


_SHIPPED = {"list": DRIVERS, "entry": usb.PATH}


def _list_of(path: Path) -> Path | None:
    """The directory of drivers' folders that a path is, or lies in."""
    if path.name in (DECLARATION, IDS):
        return path.parents[2]
    depths = (depth for depth in range(3) if any(path.glob("*/" * depth + DECLARATION)))
    depth = next(depths, None)
    return None if depth is None else [*path.parents[1::-1], path][depth]


def _kind(path: Path) -> str:
    """By the tables that a file holds; of one that holds none, by its name."""
    lines = (tables.text(path, refuse) or "").splitlines()
    named = {"usb.toml": "entry"}.get(path.name, "device")
    return next((kind for kind in ("entry", "device") if f"[[{kind}]]" in lines), named)


def lint(files: Files, kernels: Sequence[KernelClaims]) -> list[Finding]:
    """All findings, in the order of their places."""
    return sorted(set(_found(files, kernels)), key=lambda each: (_order(each.place), each.rule, each.text))


def report(findings: Iterable[Finding], kernels: Iterable[KernelClaims]) -> LintReport:
    """The findings with what they come to."""
    kept = tuple(findings)
    return LintReport(
        kernels=tuple(kernel.release for kernel in kernels),
        findings=kept,
        exit_code=int(any(each.severity is not Severity.NOTE for each in kept)),
    )


def _order(place: str) -> tuple[str, int]:
    file, _, line = place.partition(" and ")[0].rpartition(":")
    return (file, int(line)) if line.isdecimal() else (place, 0)


def _finding(rule: str, place: str, text: str, remedy: str = "") -> Finding:
    return Finding(place=place, severity=RULES[rule].severity, rule=rule, text=text, remedy=remedy)


def _of(error: RegistryError) -> Finding:
    return _finding(error.rule, error.where, error.what, error.remedy)


def _found(files: Files, kernels: Sequence[KernelClaims]) -> Iterator[Finding]:
    errors: list[RegistryError] = []
    drivers, places, claims, series = read_list(files.drivers, errors.append)
    overlay = read_overlay(files.overlays, errors.append)
    table, entries = usb.read(files.usb, errors.append)
    # Of a file that cannot be read as a whole the others would seem to miss everything.
    whole = bool(drivers and claims)
    fitting = list(problems(drivers, places, claims, [overlay])) if whole else []
    yield from map(_of, errors)
    # Nor is it told of a driver that its row is in what could not be read.
    damaged = {error.where.rpartition("/")[0] for error in errors}
    yield from (
        _of(error)
        for error in fitting
        if error.rule != "no-ids" or error.where.rpartition("/")[0] not in damaged
    )
    yield from _native(files.drivers, drivers, places, claims)
    ladder = ladder_of(drivers, claims)
    yield from _shadowed(drivers, ladder)
    yield from _usb(entries, kernels)
    if whole:
        yield from _idle_priorities(drivers, places, ladder)
    if whole and not fitting:
        registry = Registry(drivers, claims, series, places, overlays=[overlay], usb=table)
        yield from _overlay(registry, overlay, kernels)
    for each in series:
        here = [kernel for kernel in kernels if of_series(kernel.release, each)]
        if not here:
            yield _finding(
                "no-kernel", str(files.drivers), f"no kernel {each} is here; its modules were not asked"
            )
        for kernel in here:
            yield from _modules(drivers, places, claims, each, kernel)


# ---- rows among themselves ----


def _shadowed(drivers: dict[str, Driver], ladder: Ladder[Claim]) -> Iterator[Finding]:
    for row, above in ladder.shadowed():
        same = [each for each in above if each.class_mask == row.class_mask]
        if same:
            winner = max(same, key=lambda each: drivers[each.driver].priority)
            text = f"{winner.driver} takes all devices of this row of {row.driver} by its priority ({winner.place})"
            yield _finding("outranked", row.place, text)
        else:
            rows = ", ".join(sorted(each.place for each in above))
            yield _finding(
                "shadowed", row.place, f"the rows {rows} take all devices of this row of {row.driver}"
            )


def _idle_priorities(
    drivers: dict[str, Driver], places: dict[str, str], ladder: Ladder[Claim]
) -> Iterator[Finding]:
    deciding = {row.driver for row in ladder.decided_by_priority()}
    for driver in drivers.values():
        if driver.priority and driver.name not in deciding:
            yield _finding(
                "idle-priority",
                places[driver.name],
                f"the priority {driver.priority} of {driver.name} decides between no rows",
                "remove it",
            )


# ---- drivers in Python ----


def _native(
    folder: Path, drivers: dict[str, Driver], places: dict[str, str], claims: Sequence[Claim]
) -> Iterator[Finding]:
    known = {claim.driver for claim in claims if claim.native}
    for name, driver in drivers.items():
        if "native" not in driver.engines:
            continue
        if not (folder / name / "__init__.py").exists():
            yield _finding("no-code", places[name], f"the folder of {name} has no driver in Python")
        elif not driver.software and name not in known:
            yield _finding("no-ids", places[name], f"the driver in Python of {name} knows no row's devices")


# ---- rows and what modules claim ----


def _modules(
    drivers: dict[str, Driver],
    places: dict[str, str],
    claims: Sequence[Claim],
    series: str,
    kernel: KernelClaims,
) -> Iterator[Finding]:
    for driver in drivers.values():
        for module in driver.modules:
            if kernel.patterns(module) is None and _wanted(driver, module, claims, series):
                text = f"Linux {kernel.release} has no module {module}, which serves {driver.name}"
                yield _finding("unknown-module", places[driver.name], text)
    for claim in claims:
        service = claim.services[series]
        patterns = kernel.patterns(service.module) if service else None
        if service is None or patterns is None or kernel.builds_in(service.module):
            continue
        scope = module_claims.scope(patterns, claim)
        what = f"{service.module} of Linux {kernel.release}"
        if scope is None:
            yield _finding("not-claimed", claim.place, f"{what} claims none of the devices of this row")
        elif scope is not service.scope:
            prefix = "" if scope is Scope.IDS else f"{scope}:"
            yield _finding(
                "other-scope",
                claim.place,
                f"{what} knows the devices of this row by {_SCOPES[scope]}",
                f"write {prefix}{service.module}",
            )


_SCOPES = {
    Scope.IDS: "their ids",
    Scope.CLASS: "vendor and class only",
    Scope.SUBSYSTEM: "some of their subsystems only",
}


def _wanted(driver: Driver, module: str, claims: Sequence[Claim], series: str) -> bool:
    """Whether the module serves anything in that series."""
    return driver.software or any(
        claim.driver == driver.name and (service := claim.services[series]) and service.module == module
        for claim in claims
    )


# ---- overlays ----


def _overlay(registry: Registry, overlay: Overlay, kernels: Sequence[KernelClaims]) -> Iterator[Finding]:
    for amendment in map(Amendment.of, overlay.entries):
        entry = amendment.entry
        for each in entry.kernels:
            if not any(of_series(each, series) for series in registry.kernels):
                text = f"the list does not cover Linux {each}; it covers {', '.join(registry.kernels)}"
                yield _finding("unknown-kernel", amendment.place, text)
        if _says_nothing_new(registry, amendment):
            yield _finding(
                "nothing-new", amendment.place, f"the list says the same of {entry.ids}", "remove it"
            )
        for kernel in kernels:
            if entry.module and amendment.holds_for(kernel.release):
                yield from _given(amendment, entry.module, kernel)


def _given(amendment: Amendment, module: str, kernel: KernelClaims) -> Iterator[Finding]:
    patterns = kernel.patterns(module)
    if patterns is None:
        text = f"Linux {kernel.release} has no module {module}"
        yield _finding("unknown-module", amendment.place, text)
    elif not kernel.builds_in(module) and module_claims.scope(patterns, amendment) is None:
        text = f"{module} of Linux {kernel.release} claims none of the devices of this entry"
        yield _finding("not-claimed", amendment.place, text)


def _says_nothing_new(registry: Registry, amendment: Amendment) -> bool:
    entry = amendment.entry
    if entry.limits or entry.firmware or entry.status or entry.engine:
        return False
    rows = registry.ladder.rows(amendment.ids)
    return any(
        row.class_mask == amendment.class_mask
        and row.pci_class == amendment.pci_class
        and entry.driver in (None, row.driver)
        and all(
            service is not None and entry.module in (None, service.module)
            for series, service in row.services.items()
            if amendment.holds_for(series)
        )
        for row in rows
    )


# ---- USB ----


def _usb(entries: Sequence[tuple[str, usb.Entry]], kernels: Sequence[KernelClaims]) -> Iterator[Finding]:
    ids: dict[str, str] = {}
    classes: dict[str, str] = {}
    for place, entry in entries:
        for each in entry.ids:
            if each in ids:
                yield _finding(
                    "conflict", f"{ids[each]} and {place}", f"two entries claim the USB device {each}"
                )
            ids.setdefault(each, place)
        for each in entry.classes:
            for other, where in classes.items():
                if each.startswith(other) or other.startswith(each):
                    text = f"two entries claim USB interfaces of class {max(each, other, key=len)}"
                    yield _finding("conflict", f"{where} and {place}", text)
            classes.setdefault(each, place)
        if not entry.ids and not entry.classes:
            yield _finding("no-ids", place, f"the entry of {entry.module} claims no USB device")
        for kernel in kernels:
            yield from _usb_module(place, entry, kernel)


def _usb_module(place: str, entry: usb.Entry, kernel: KernelClaims) -> Iterator[Finding]:
    patterns = kernel.patterns(entry.module)
    if patterns is None:
        text = f"Linux {kernel.release} has no module {entry.module}"
        yield _finding("unknown-module", place, text)
        return
    for each in entry.ids if patterns else ():
        vendor, product = each.upper().split(":")
        if not any(pattern.startswith(f"usb:v{vendor}p{product}") for pattern in patterns):
            text = f"{entry.module} of Linux {kernel.release} does not claim the USB device {each}"
            yield _finding("not-claimed", place, text)
