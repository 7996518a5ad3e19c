"""The list as something to look things up in: its rows with names, a driver with all that is known of it, a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from hcl import names, native, usb
from hcl.evidence import Run, driver_in_words
from hcl.firmware import Firmware
from hcl.overlay import Amendment
from hcl.reading import DRIVERS
from hcl.registry import Claim, Registry
from hcl.verdict import Engine, Status

VERSION = 1
"""Of what ``hcl search --json`` and ``hcl show --json`` write."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the list."""

    bus: str
    """``pci`` or ``usb``."""
    ids: str
    """``vendor:device``; ``*`` is any."""
    subsystem: str | None = None
    device_class: str | None = None
    """Class code in which a device has to be equal; ``x`` is any digit."""
    name: str | None = None
    """Vendor and device, from the system's pci.ids or usb.ids."""
    driver: str | None = None
    """ESX driver."""
    modules: dict[str, str | None]
    """Linux module by kernel series, or release; None where none serves these devices."""
    status: dict[str, Status]
    """By the same."""
    native: Status | None = None
    """Of the driver in Python; None where it does not know these devices, or there is none."""
    overlay: bool = False
    """Whether a site laid it over the list."""
    source: str = ""
    """Where the row comes from."""
    place: str
    """``file:line``; of USB devices the module's entry."""
    limits: tuple[str, ...] = ()
    firmware: Firmware | None = None
    engine: Engine | None = None
    """The one that a site prefers."""


class ModuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a Linux module in an ESX driver's place."""

    status: Status
    evidence: str | None
    limits: tuple[str, ...]
    firmware: Firmware | None
    rows: dict[str, int]
    """How many rows it serves, by kernel series."""


class PythonFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the driver in Python of an ESX driver's name."""

    driver: str
    """It, and the version of this package, in words."""
    module_sha256: str
    """Over its sources, as certification runs tell it; "" where it is not here."""
    rows: int
    """How many rows' devices it knows."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What ``hcl show`` shows; what does not apply is empty."""

    version: int = VERSION
    kind: str
    """``driver``, ``device`` or ``run``."""
    title: str
    place: str | None = None
    releases: tuple[str, ...] = ()
    """ESX releases that are known to have had the driver."""
    engines: tuple[Engine, ...] = ()
    """What can drive a driver's devices, the preferred first."""
    priority: int = 0
    priority_reason: str = ""
    modules: dict[str, ModuleFacts] = {}
    python: PythonFacts | None = None
    """A driver's driver in Python."""
    items: tuple[Item, ...] = ()
    runs: tuple[Run, ...] = ()
    """Evidence that counts, the newest first."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What ``hcl search --json`` writes."""

    version: int = VERSION
    words: tuple[str, ...]
    items: tuple[Item, ...]


def items(registry: Registry) -> Iterator[Item]:
    """All rows, those of overlays first."""
    for overlay in registry.overlays:
        for amendment in map(Amendment.of, overlay.entries):
            yield _amendment(registry, amendment)
    for claim in registry.claims:
        yield _claim(registry, claim)
    for entry in registry.usb.entry:
        yield from _usb(registry, entry)


def search(registry: Registry, words: Sequence[str]) -> Iterator[Item]:
    """The rows in which each of the words stands: in ids, names, ESX driver or module; case does not matter."""
    wanted = [word.casefold() for word in words]
    for item in items(registry):
        text = " ".join(
            each
            for each in (item.ids, item.subsystem, item.name, item.driver, *item.modules.values())
            if each
        ).casefold()
        if all(word in text for word in wanted):
            yield item


def show(registry: Registry, what: str) -> Shown | None:
    """A driver by its name (``net/`` may be left out), a device by ``vendor:device``, or a run; else None."""
    for name in registry.drivers:
        if what in (name, name.partition("/")[2]):
            return _driver(registry, name)
    proven = registry.evidence.counting()
    for each in proven:
        if each.run.name == what:
            return Shown(kind="run", title=what, runs=(each.run,))
    ids = what.lower()
    found = tuple(item for item in items(registry) if item.ids == ids)
    runs = tuple(each.run for each in proven if f"{each.run.vendor}:{each.run.device}" == ids)
    if not found and not runs:
        return None
    called = _name(ids)
    return Shown(kind="device", title=f"{ids} {called}" if called else ids, items=found, runs=runs)


def _driver(registry: Registry, name: str) -> Shown:
    driver = registry.drivers[name]
    rows = tuple(_claim(registry, claim) for claim in registry.claims if claim.driver == name)
    laid = tuple(item for item in items(registry) if item.overlay and item.driver == name)
    pairs = {item.ids for item in rows}
    ours = {"linux": set(driver.modules), "native": {native.driver_name(name)}}
    return Shown(
        kind="driver",
        title=name,
        place=registry.places[name],
        releases=driver.releases,
        engines=driver.engines,
        priority=driver.priority,
        priority_reason=driver.priority_reason,
        modules={
            module: ModuleFacts(
                status=support.status,
                evidence=support.evidence,
                limits=support.limits,
                firmware=support.firmware,
                rows={
                    series: sum(item.modules[series] == module for item in rows)
                    for series in registry.kernels
                },
            )
            for module, support in driver.modules.items()
        },
        python=_python(name, rows) if "native" in driver.engines else None,
        items=(*laid, *rows),
        runs=tuple(
            each.run
            for each in registry.evidence.counting()
            if each.run.module in ours[each.run.engine] and f"{each.run.vendor}:{each.run.device}" in pairs
        ),
    )


def _python(name: str, rows: Sequence[Item]) -> PythonFacts:
    return PythonFacts(
        driver=driver_in_words("native", native.driver_name(name), native.version()),
        module_sha256=native.sources_sha256(DRIVERS / name),
        rows=sum(row.native is not None for row in rows),
    )


def _claim(registry: Registry, claim: Claim) -> Item:
    vendor, device, subvendor, subdevice = claim.ids
    return Item(
        bus="pci",
        ids=_pair(vendor, device),
        subsystem=None if subvendor is None else _pair(subvendor, subdevice),
        device_class=_digits(claim.pci_class, claim.class_mask),
        name=_name(_pair(vendor, device)),
        driver=claim.driver,
        modules={series: service.module if service else None for series, service in claim.services.items()},
        status={
            series: registry.standing(
                (vendor, device), claim.driver, service.module if service else None, series
            ).status
            for series, service in claim.services.items()
        },
        native=registry.python_standing(vendor, device, claim.driver, claim.place).status
        if claim.native
        else None,
        source=claim.source,
        place=claim.place,
    )


def _amendment(registry: Registry, amendment: Amendment) -> Item:
    entry = amendment.entry
    vendor, device, subvendor, subdevice = amendment.ids
    kernels = entry.kernels or registry.kernels
    return Item(
        bus="pci",
        ids=_pair(vendor, device),
        subsystem=None if subvendor is None else _pair(subvendor, subdevice),
        device_class=_digits(amendment.pci_class, amendment.class_mask),
        name=_name(_pair(vendor, device)),
        driver=entry.driver,
        modules=dict.fromkeys(kernels, entry.module),
        status=dict.fromkeys(kernels, entry.status) if entry.status else {},
        overlay=True,
        source=entry.reason,
        place=amendment.place,
        limits=entry.limits,
        firmware=entry.firmware,
        engine=entry.engine,
    )


def _usb(registry: Registry, entry: usb.Entry) -> Iterator[Item]:
    stands = registry.usb
    for ids, code in (*((ids, None) for ids in entry.ids), *(("*:*", code) for code in entry.classes)):
        yield Item(
            bus="usb",
            ids=ids,
            device_class=code.ljust(6, "x") if code else None,
            name=names.usb_name(*(int(each, 16) for each in ids.split(":"))) if code is None else None,
            modules=dict.fromkeys(registry.kernels, entry.module),
            status=dict.fromkeys(registry.kernels, stands.status),
            place="usb.toml",
            limits=(stands.reason,),
        )


def _pair(first: int, second: int | None) -> str:
    return f"{first:04x}:{'*' if second is None else f'{second:04x}'}"


def _digits(pci_class: int, mask: int) -> str | None:
    if not mask:
        return None
    digits = zip(f"{pci_class:06x}", f"{mask:06x}", strict=True)
    return "".join("x" if wild == "0" else digit for digit, wild in digits)


def _name(pair: str) -> str | None:
    vendor, _, device = pair.partition(":")
    try:
        return names.device_name(int(vendor, 16), int(device, 16))
    except ValueError:
        return None
