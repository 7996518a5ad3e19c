"""The registry in memory: ESX drivers, the PCI ids they claim, and the ladder that finds a device there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from hcl import native
from hcl.errors import BadIds, RegistryError, UnknownKernel
from hcl.evidence import Evidence, of_series
from hcl.firmware import Firmware
from hcl.ladder import Ids, Ladder, rung_of
from hcl.overlay import Amendment, Overlay, Standing, amend, prefer, serves
from hcl.unlisted import Answer, Claimants, Obstacle, ask, no_obstacle
from hcl.verdict import RUNG_NAMES, Engine, Loser, Proof, Rung, Status, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from hcl.evidence import Run
    from hcl.usb import Table


DriverName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(net|block|scsi)/[a-z0-9][a-z0-9_.-]*\Z")]
"""Class of device and name, as ESX 3 put them: ``net/e1000``."""


class Support(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How well one Linux module is proven in an ESX driver's place."""

    status: Status
    evidence: str | None = None
    limits: tuple[str, ...] = ()
    """What is known not to work, a sentence each."""
    firmware: Firmware | None = None
    """Firmware that is wanted."""

    def __post_init__(self) -> None:
        """Refuse a claim of success that rests on nothing, and statuses that only a look at a device gives."""
        if self.status in (Status.CERTIFIED, Status.SKIPPED):
            raise ValueError(
                f"the status '{self.status}' is not declared: certification runs, or rules, give it"
            )
        if self.status is Status.COMPATIBLE and not self.evidence:
            raise ValueError(f"the status '{self.status}' needs its evidence")


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a driver's folder says of it (``driver.toml``): the Linux modules that serve its devices today, and more."""

    modules: Annotated[dict[str, Support], msgspec.Meta(min_length=1)]
    """By Linux module name, without ``.ko``."""
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Decides between rows that name a device equally well; the higher number wins."""
    priority_reason: str = ""
    software: bool = False
    """True for a driver that claims no PCI device."""
    releases: tuple[str, ...] = ()
    """ESX releases that are known to have had it."""
    engines: Annotated[tuple[Engine, ...], msgspec.Meta(min_length=1)] = ("linux",)
    """What can drive its devices, the preferred first: Linux's modules, a driver of ours in Python."""

    def __post_init__(self) -> None:
        """Refuse a priority without its reason, and an engine that is named twice."""
        if len(set(self.engines)) < len(self.engines):
            raise ValueError("an engine is named twice")
        if bool(self.priority) != bool(self.priority_reason):
            raise ValueError("priority and priority_reason go together")


class Driver(Declaration, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An ESX driver."""

    name: DriverName

    @property
    def device_class(self) -> str:
        """``net``, ``block`` or ``scsi``."""
        return self.name.partition("/")[0]


class Scope(StrEnum):
    """By what a Linux module recognises the devices of a row."""

    IDS = "ids"
    CLASS = "class"
    SUBSYSTEM = "subsystem"


class Service(msgspec.Struct, frozen=True):
    """The Linux module that serves a row's devices."""

    module: str
    scope: Scope

    def __str__(self) -> str:
        """The module, with what limits its claim."""
        return self.module + _LIMITS[self.scope]


_LIMITS = {
    Scope.IDS: "",
    Scope.CLASS: " (which knows it by vendor and class only)",
    Scope.SUBSYSTEM: " (which knows some of its subsystems only)",
}


class Claim(msgspec.Struct, frozen=True):
    """One row: devices that an ESX driver claimed."""

    driver: str
    ids: Ids
    pci_class: int
    class_mask: int
    """A device's class must equal ``pci_class`` in these bits; 0: any class."""
    services: dict[str, Service | None]
    """By kernel series; None where no module serves these devices."""
    source: str
    """Where the claim comes from."""
    place: str
    """``file:line``."""
    native: bool = False
    """Whether our driver in Python knows these devices."""

    @property
    def rung(self) -> Rung:
        """The rung of the ladder at which this row matches."""
        return rung_of(self.ids)


class Registry:
    """Drivers and claims, indexed once, and what sites lay over them; the order of none ever matters.

    Raises RegistryError, the first of ``problems``.
    """

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        claims: Iterable[Claim],
        kernels: Sequence[str],
        places: Mapping[str, str],
        evidence: Evidence | None = None,
        *,
        overlays: Iterable[Overlay] = (),
        usb: Table | None = None,
    ) -> None:
        """Index the claims. ``places`` are the drivers' ``file:line``; ``kernels`` are kernel series.

        Of the overlays the first has the last word. ``usb`` is the table of USB devices, where it is not the package's.
        """
        self.drivers = dict(drivers)
        self.places = dict(places)
        self.evidence = evidence or Evidence()
        self.claims = tuple(claims)
        self.kernels = tuple(kernels)
        self.overlays = tuple(overlays)
        self._usb = usb
        for error in problems(self.drivers, self.places, self.claims, self.overlays):
            raise error
        self.ladder = ladder_of(self.drivers, self.claims)
        self._kept: dict[tuple[int, int, Engine, str, str], Standing | None] = {}
        self._pairs = {claim.ids[:2] for claim in self.claims}

    @property
    def usb(self) -> Table:
        """The table of USB devices. RegistryError when it is damaged."""
        from hcl.usb import table

        return self._usb or table()

    def lookup(
        self,
        vendor: int,
        device: int,
        subvendor: int,
        subdevice: int,
        pci_class: int,
        *,
        kernel: str = "6.1",
        claimants: Claimants | None = None,
        obstacle: Obstacle = no_obstacle,
        engine: Engine | None = None,
    ) -> Verdict:
        """The verdict on one device; see ``hcl.lookup``."""
        series = self.series(kernel)
        if not 0 <= vendor | device | subvendor | subdevice <= 0xFFFF:
            raise BadIds(
                f"PCI ids have 16 bits; got {vendor:#x}, {device:#x}, {subvendor:#x}, {subdevice:#x}",
                remedy="pass each id by itself, as an integer",
            )
        if not 0 <= pci_class <= 0xFFFFFF:
            raise BadIds(
                f"PCI class codes have 24 bits; got {pci_class:#x}",
                remedy="pass base class, subclass and programming interface, such as 0x020000",
            )
        ids = (vendor, device, subvendor, subdevice)
        verdict = listed = self._listed(ids, pci_class, series, kernel, claimants, obstacle)
        preferring = None
        for amendment in self._amendments(ids, pci_class, kernel):
            preferring = amendment if amendment.entry.engine else preferring
            standing = self._amended(verdict, amendment, ids, series, obstacle)
            before, verdict = verdict, amend(verdict, amendment, standing)
            if (verdict.driver, verdict.module) != (before.driver, before.module):
                engines = self._engines(verdict.driver, verdict.module)
                verdict = msgspec.structs.replace(verdict, engines=engines)
        by_linux = prefer(verdict, preferring) if preferring else verdict
        if (engine or next(iter(by_linux.engines), "linux")) == "linux":
            return by_linux
        verdict = self._by_python(listed, vendor, device)
        for amendment in self._amendments(ids, pci_class, _NO_KERNEL):
            verdict = amend(verdict, amendment, self._amended_by_python(verdict, amendment, vendor, device))
        verdict = msgspec.structs.replace(verdict, engines=by_linux.engines)
        return prefer(verdict, preferring) if preferring else verdict

    def _amendments(self, ids: tuple[int, int, int, int], pci_class: int, kernel: str) -> Iterator[Amendment]:
        """What each overlay says of a device, the one with the last word last."""
        for overlay in reversed(self.overlays):
            if found := overlay.find(ids, pci_class, kernel):
                yield found

    def _listed(
        self,
        ids: tuple[int, int, int, int],
        pci_class: int,
        series: str,
        kernel: str,
        claimants: Claimants | None,
        obstacle: Obstacle,
    ) -> Verdict:
        """The list's own verdict, by Linux's modules."""
        vendor, device, subvendor, subdevice = ids
        matching = self.ladder.find(vendor, device, subvendor, subdevice, pci_class)
        if not matching:
            return self._unlisted(ids, pci_class, series, kernel, claimants, obstacle)
        winner = matching[0]
        service = winner.services[series]
        engines = self._engines(winner.driver, service.module if service else None, winner.native)
        support = self.drivers[winner.driver].modules[service.module] if service else _UNSERVED
        served = f"{service} serves it" if service else "no module serves it"
        name = f"{vendor:04x}:{device:04x}"
        proven = self._proven(vendor, device, "linux", service.module if service else None, series)
        status = proven.status if proven else support.status
        hindered = obstacle(service.module) if service else ""
        return Verdict(
            device=name,
            subsystem=f"{subvendor:04x}:{subdevice:04x}",
            pci_class=f"{pci_class:06x}",
            kernel=series,
            rung=winner.rung,
            driver=winner.driver,
            module=service.module if service else None,
            status=Status.UNSUPPORTED if hindered else status,
            evidence=proven.evidence if proven else support.evidence,
            proof=proven.proof if proven else None,
            losers=tuple(self.loser(claim, winner, series) for claim in matching[1:]),
            reason=f"{name} is {winner.driver}'s by {RUNG_NAMES[winner.rung]}; {served} in Linux {series}"
            f"{f', but {hindered}' if hindered else ''}.",
            obstacle=hindered,
            limits=support.limits,
            firmware=support.firmware,
            engines=engines,
        )

    def _by_python(self, listed: Verdict, vendor: int, device: int) -> Verdict:
        """The list's own verdict by drivers in Python."""
        driver = listed.driver
        known = f"ids.tsv of {driver} says that its driver in Python knows it"
        standing = self.python_standing(vendor, device, driver, known if "native" in listed.engines else "")
        where = f"{driver}'s by {RUNG_NAMES[listed.rung]}" if driver else "on no row of the list"
        served = serves(standing.module, "native", listed.kernel) or "; no driver in Python knows it"
        return msgspec.structs.replace(
            listed,
            engine="native",
            rung=listed.rung if driver else Rung.UNKNOWN,
            module=standing.module,
            status=standing.status,
            evidence=standing.evidence,
            proof=standing.proof,
            reason=f"{listed.device} is {where}{served}.",
            claimants=(),
            limits=(),
            firmware=None,
            function=None,
            obstacle="",
        )

    def python_standing(self, vendor: int, device: int | None, driver: str | None, known: str) -> Standing:
        """How well the driver in Python of an ESX driver is known on a device, by evidence of its own, or by what is
        ``known``: who says that it knows the device, a clause; "" when nobody does."""
        if driver is None or not known or "native" not in self.drivers[driver].engines:
            return Standing(None, Status.UNSUPPORTED)
        module = native.driver_name(driver)
        proven = self._proven(vendor, device, "native", module, native.series(native.version()))
        return proven or Standing(module, Status.COMPATIBLE, known)

    def _engines(self, driver: str | None, module: str | None, native: bool = True) -> tuple[Engine, ...]:
        """What can drive a driver's device, where this module of Linux's, or none, serves it, and ours knows it."""
        declared = self.drivers.get(driver or "")
        if declared is None or (module and module not in declared.modules):
            return ("linux",) if module else ()
        able = {"linux": module is not None, "native": native}
        return tuple(each for each in declared.engines if able[each])

    def _amended(
        self,
        verdict: Verdict,
        amendment: Amendment,
        ids: tuple[int, int, int, int],
        series: str,
        obstacle: Obstacle,
    ) -> Standing:
        """How well the module is known that an overlay's entry chooses, or leaves as it is."""
        entry = amendment.entry
        module = entry.module or verdict.module
        if module == verdict.module:
            return Standing(module, verdict.status, verdict.evidence, verdict.proof, verdict.obstacle)
        assert module is not None  # else it would be the verdict's
        hindered = obstacle(module)
        proven = self._proven(*ids[:2], "linux", module, series)
        if proven is None and module in verdict.claimants:
            return Standing(module, Status.COMPATIBLE, verdict.evidence, None, hindered)
        standing = self.standing(ids[:2], entry.driver or verdict.driver, module, series)
        return msgspec.structs.replace(standing, obstacle=hindered)

    def _amended_by_python(
        self, verdict: Verdict, amendment: Amendment, vendor: int, device: int
    ) -> Standing:
        """The same of the driver in Python."""
        driver = amendment.entry.driver
        if driver in (None, verdict.driver):
            return Standing(verdict.module, verdict.status, verdict.evidence, verdict.proof)
        known = f"the overlay {amendment.place} gives it to {driver}"
        return self.python_standing(vendor, device, driver, known)

    def standing(
        self, device: tuple[int, int | None], driver: str | None, module: str | None, series: str
    ) -> Standing:
        """How well a Linux module is known in a driver's place on a device, by evidence or by what the list says."""
        if module is None:
            return Standing(None, Status.UNSUPPORTED)
        proven = self._proven(*device, "linux", module, series)
        if proven:
            return proven
        declared = self.drivers.get(driver or "")
        support = declared.modules.get(module) if declared else None
        return (
            Standing(module, support.status, support.evidence)
            if support
            else Standing(module, Status.UNKNOWN)
        )

    def told_apart(self, vendor: int, device: int) -> tuple[set[tuple[int, int]], set[int]]:
        """The subsystems, and the classes, by which rows of the list tell such devices apart.

        A subsystem of which only the vendor is named stands there with a device that none has (0xffff).
        """
        subsystems, classes = self.ladder.told_apart(vendor, device)
        for overlay in self.overlays:
            more, codes = overlay.ladder.told_apart(vendor, device)
            subsystems |= more
            classes |= codes
        return subsystems, classes

    def _unlisted(
        self,
        ids: tuple[int, int, int, int],
        pci_class: int,
        series: str,
        kernel: str,
        claimants: Claimants | None,
        obstacle: Obstacle,
    ) -> Verdict:
        """The verdict on a device that no row matches: what the kernel's modules say of it."""
        vendor, device, subvendor, subdevice = ids
        name = f"{vendor:04x}:{device:04x}"
        reason = (
            f"{name} is listed, but only with another subsystem or class"
            if (vendor, device) in self._pairs
            else f"{name} is not listed, nor is its vendor with class {pci_class:06x}"
        )
        answer = Answer((), None, "")
        if claimants is not None:
            answer = ask(claimants, ids, pci_class, kernel, obstacle)
            reason = f"{reason}; {answer.why}"
        module = answer.modules[0] if answer.modules else None
        proven = self._proven(vendor, device, "linux", module, series)
        status = proven.status if proven else Status.COMPATIBLE if module else Status.UNKNOWN
        return Verdict(
            device=name,
            subsystem=f"{subvendor:04x}:{subdevice:04x}",
            pci_class=f"{pci_class:06x}",
            kernel=series,
            rung=Rung.COMPATIBLE if module else Rung.UNKNOWN,
            driver=None,
            module=module,
            status=Status.UNSUPPORTED if answer.obstacle else status,
            evidence=proven.evidence if proven else answer.why if module and not answer.obstacle else None,
            proof=proven.proof if proven else None,
            losers=(),
            reason=f"{reason}{f', but {answer.obstacle}' if answer.obstacle else ''}.",
            claimants=answer.modules,
            function=answer.function,
            obstacle=answer.obstacle,
            engines=self._engines(None, module),
        )

    def _proven(
        self, vendor: int, device: int | None, engine: Engine, module: str | None, series: str
    ) -> Standing | None:
        """What the last certification run of the engine's module on such a device says; None when there is none."""
        if module is None or device is None:
            return None
        key = (vendor, device, engine, module, series)
        if key not in self._kept:
            found = self.evidence.newest(f"{vendor:04x}", f"{device:04x}", engine, module, series)
            self._kept[key] = _standing_of(*found) if found else None
        return self._kept[key]

    def series(self, kernel: str) -> str:
        """The series of a kernel release, or of its beginning. UnknownKernel."""
        for series in self.kernels:
            if of_series(kernel, series):
                return series
        raise UnknownKernel(
            f"the registry does not cover Linux {kernel}", remedy=f"it covers {', '.join(self.kernels)}"
        )

    def loser(self, claim: Claim, winner: Claim, series: str) -> Loser:
        """What is said of a row that fits a device too, beside the one that wins it."""
        mine, other = self.drivers[claim.driver], self.drivers[winner.driver]
        if claim.rung is not winner.rung:
            reason = f"{winner.rung} goes before {claim.rung}"
        elif _detail(claim) != _detail(winner):
            reason = f"{other.name}'s row describes the device in more detail on the same rung"
        else:
            reason = (
                f"{other.name} has priority {other.priority} over {mine.priority}: {other.priority_reason}"
            )
        service = claim.services[series]
        return Loser(mine.name, service.module if service else None, claim.rung, reason)


def _standing_of(path: Path, run: Run) -> Standing:
    proof = Proof(
        run=run.name,
        status=Status.CERTIFIED if run.passed else Status.UNSUPPORTED,
        kernel=run.kernel,
        counterpart=run.counterpart,
        started=run.started,
        checks=tuple(check.name for check in run.checks),
        failed=tuple(check.name for check in run.checks if not check.passed),
        file=str(path),
        engine=run.engine,
        driver=run.driver,
        module_sha256=run.module_sha256,
    )
    return Standing(run.module, proof.status, str(proof), proof)


def ladder_of(drivers: Mapping[str, Driver], claims: Iterable[Claim]) -> Ladder[Claim]:
    """The claims' ladder; a claim of no driver has no priority."""
    priorities = {name: driver.priority for name, driver in drivers.items()}
    return Ladder(claims, lambda claim: priorities.get(claim.driver, 0))


def problems(
    drivers: Mapping[str, Driver],
    places: Mapping[str, str],
    claims: Sequence[Claim],
    overlays: Iterable[Overlay] = (),
) -> Iterator[RegistryError]:
    """What does not fit together: claims of a driver or a module that is not declared, declared ones that nothing
    claims, and rows that mean the same device with nothing to decide between them.
    """
    yield from _names(drivers, places, claims)
    for claim, other in ladder_of(drivers, claims).undecided():
        first, second = sorted((claim, other), key=lambda each: (each.place, each.driver))
        yield RegistryError(
            f"{first.driver} and {second.driver} claim the same device, and nothing decides between them",
            where=f"{first.place} and {second.place}",
            remedy="remove one row, or give one driver a priority with its reason",
            rule="conflict",
        )
    for overlay in overlays:
        for placed in overlay.entries:
            if placed.entry.driver and placed.entry.driver not in drivers:
                yield RegistryError(f"driver {placed.entry.driver!r} is not declared", where=placed.place)
        for one, two in overlay.ladder.undecided():
            if one.meets(two):
                yield RegistryError(
                    "two entries mean the same device, and nothing decides between them",
                    where=" and ".join(sorted((one.place, two.place))),
                    remedy="remove one, or let them name different kernels",
                    rule="conflict",
                )


def _names(
    drivers: Mapping[str, Driver], places: Mapping[str, str], claims: Sequence[Claim]
) -> Iterator[RegistryError]:
    used: dict[str, set[str]] = {name: set() for name in drivers}
    for claim in claims:
        driver = drivers.get(claim.driver)
        if driver is None:
            yield RegistryError(
                f"driver {claim.driver!r} is not declared",
                where=claim.place,
                remedy="put a driver.toml beside it",
                rule="undeclared",
            )
            continue
        if driver.software:
            yield RegistryError(
                f"driver {claim.driver!r} claims no PCI device",
                where=claim.place,
                remedy=f"see {places[driver.name]}",
                rule="undeclared",
            )
        if claim.native and "native" not in driver.engines:
            yield RegistryError(
                f"{claim.driver} has no driver in Python",
                where=claim.place,
                remedy=f"see the engines in {places[driver.name]}",
                rule="undeclared",
            )
        for module in sorted({service.module for service in claim.services.values() if service}):
            if module not in driver.modules:
                yield RegistryError(
                    f"{driver.name} has no module {module!r}",
                    where=claim.place,
                    remedy=f"declare it, with its status, in {places[driver.name]}",
                    rule="undeclared",
                )
            used[driver.name].add(module)
    for driver in drivers.values():
        if not driver.software and (idle := set(driver.modules) - used[driver.name]):
            yield RegistryError(
                f"no PCI id is served by {', '.join(sorted(idle))} for {driver.name}",
                where=places[driver.name],
                remedy="remove the module, or give it ids",
                rule="no-ids",
            )


#: The kernel of drivers in Python: what is said of some kernels says nothing of them.
_NO_KERNEL = ""
_UNSERVED = Support(Status.UNSUPPORTED)


def _detail(claim: Claim) -> tuple[int, int]:
    return sum(each is not None for each in claim.ids), claim.class_mask.bit_count()
