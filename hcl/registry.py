"""The registry in memory: ESX drivers, the PCI ids they claim, and the ladder that finds a device there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec

from hcl.errors import BadIds, RegistryError, UnknownKernel
from hcl.evidence import Evidence, of_series
from hcl.unlisted import Answer, Claimants, Obstacle, ask, no_obstacle
from hcl.verdict import Loser, Proof, Rung, Status, Verdict

Ids = tuple[int, int | None, int | None, int | None]
"""Vendor, device, subsystem vendor, subsystem device; None stands for any, and only more None follow it."""


class Support(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How well one Linux module is proven in an ESX driver's place."""

    status: Status
    evidence: str | None = None

    def __post_init__(self) -> None:
        """Refuse a claim of success that rests on nothing, and statuses that only a look at a device gives."""
        if self.status in (Status.CERTIFIED, Status.SKIPPED):
            raise ValueError(
                f"the status '{self.status}' is not declared: certification runs, or rules, give it"
            )
        if self.status is Status.COMPATIBLE and not self.evidence:
            raise ValueError(f"the status '{self.status}' needs its evidence")


class Driver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An ESX driver and the Linux modules that serve its devices today."""

    name: Annotated[str, msgspec.Meta(pattern=r"^(net|block|scsi)/[a-z0-9][a-z0-9_.-]*$")]
    """Class of device and name, as ESX 3 put them: ``net/e1000``."""
    modules: Annotated[dict[str, Support], msgspec.Meta(min_length=1)]
    """By Linux module name, without ``.ko``."""
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Decides between rows that name a device equally well; the higher number wins."""
    priority_reason: str = ""
    software: bool = False
    """True for a driver that claims no PCI device."""

    def __post_init__(self) -> None:
        """Refuse a priority without its reason."""
        if bool(self.priority) != bool(self.priority_reason):
            raise ValueError("priority and priority_reason go together")

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

    @property
    def rung(self) -> Rung:
        """The rung of the ladder at which this row matches."""
        _, device, _, subdevice = self.ids
        if device is None:
            return Rung.CLASS
        return Rung.VENDOR_DEVICE if subdevice is None else Rung.EXACT


class Registry:
    """Drivers and claims, indexed once; the order of neither ever matters.

    Raises RegistryError when a claim names a driver or a module that is not declared, when a declared one
    is claimed by nothing, and when two claims overlap with nothing to decide between them.
    """

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        claims: Iterable[Claim],
        kernels: Sequence[str],
        place: str,
        evidence: Evidence | None = None,
    ) -> None:
        """Index the claims. ``place`` names the drivers' file in errors; ``kernels`` are kernel series."""
        self.drivers = dict(drivers)
        self.evidence = evidence or Evidence()
        self.claims = tuple(claims)
        self.kernels = tuple(kernels)
        self._check_names(place)
        self._index = self._indexed()
        self._pairs = {claim.ids[:2] for claim in self.claims}
        self._by_vendor: dict[int | None, list[Claim]] = {}
        for claim in self.claims:
            self._by_vendor.setdefault(claim.ids[0], []).append(claim)

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
    ) -> Verdict:
        """The verdict on one device; see ``hcl.lookup``."""
        series = self._series(kernel)
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
        # The ladder. A claim's class narrows what a rung offers; it never keeps a rung from being asked:
        # devices with an unfitting class (an MCP55 NIC says 0680) must still be found by their ids.
        ladder: tuple[Ids, ...] = (
            (vendor, device, subvendor, subdevice),
            (vendor, device, subvendor, None),
            (vendor, device, None, None),
            (vendor, None, None, None),
        )
        matching = [
            claim
            for ids in ladder
            for claim in self._index.get(ids, ())
            if (pci_class ^ claim.pci_class) & claim.class_mask == 0
        ]
        if not matching:
            return self._unlisted(
                (vendor, device, subvendor, subdevice), pci_class, kernel, claimants, obstacle
            )
        winner = matching[0]
        service = winner.services[series]
        support = self.drivers[winner.driver].modules[service.module] if service else _UNSERVED
        served = f"{service} serves it" if service else "no module serves it"
        name = f"{vendor:04x}:{device:04x}"
        proof = self._proof(vendor, device, service.module if service else None, series)
        status = proof.status if proof else support.status
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
            evidence=str(proof) if proof else support.evidence,
            proof=proof,
            losers=tuple(self._loser(claim, winner, series) for claim in matching[1:]),
            reason=f"{name} is {winner.driver}'s by {_RUNG_NAMES[winner.rung]}; {served} in Linux {series}"
            f"{f', but {hindered}' if hindered else ''}.",
            obstacle=hindered,
        )

    def told_apart(self, vendor: int, device: int) -> tuple[set[tuple[int, int]], set[int]]:
        """The subsystems, and the classes, by which rows of the list tell such devices apart.

        A subsystem of which only the vendor is named stands there with a device that none has (0xffff).
        """
        subsystems, classes = set(), set()
        for claim in self._by_vendor.get(vendor, ()):
            if claim.ids[1] not in (None, device):
                continue
            if claim.ids[2] is not None:
                subsystems.add((claim.ids[2], 0xFFFF if claim.ids[3] is None else claim.ids[3]))
            if claim.class_mask:
                classes.add(claim.pci_class)
        return subsystems, classes

    def _unlisted(
        self,
        ids: tuple[int, int, int, int],
        pci_class: int,
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
        series = self._series(kernel)
        module = answer.modules[0] if answer.modules else None
        proof = self._proof(vendor, device, module, series)
        status = proof.status if proof else Status.COMPATIBLE if module else Status.UNKNOWN
        return Verdict(
            device=name,
            subsystem=f"{subvendor:04x}:{subdevice:04x}",
            pci_class=f"{pci_class:06x}",
            kernel=series,
            rung=Rung.COMPATIBLE if module else Rung.UNKNOWN,
            driver=None,
            module=module,
            status=Status.UNSUPPORTED if answer.obstacle else status,
            evidence=str(proof) if proof else answer.why if module and not answer.obstacle else None,
            proof=proof,
            losers=(),
            reason=f"{reason}{f', but {answer.obstacle}' if answer.obstacle else ''}.",
            claimants=answer.modules,
            function=answer.function,
            obstacle=answer.obstacle,
        )

    def _proof(self, vendor: int, device: int, module: str | None, series: str) -> Proof | None:
        """What the last certification run of the module on such a device says."""
        found = self.evidence.newest(f"{vendor:04x}", f"{device:04x}", module, series) if module else None
        if found is None:
            return None
        path, run = found
        return Proof(
            run=run.name,
            status=Status.CERTIFIED if run.passed else Status.UNSUPPORTED,
            kernel=run.kernel,
            counterpart=run.counterpart,
            started=run.started,
            checks=tuple(check.name for check in run.checks),
            failed=tuple(check.name for check in run.checks if not check.passed),
            file=str(path),
        )

    def _series(self, kernel: str) -> str:
        for series in self.kernels:
            if of_series(kernel, series):
                return series
        raise UnknownKernel(
            f"the registry does not cover Linux {kernel}", remedy=f"it covers {', '.join(self.kernels)}"
        )

    def _loser(self, claim: Claim, winner: Claim, series: str) -> Loser:
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

    def _rank(self, claim: Claim) -> tuple[int, int]:
        """What decides between claims of the same ids, the winner's being the greatest."""
        return claim.class_mask.bit_count(), self.drivers[claim.driver].priority

    def _indexed(self) -> dict[Ids, tuple[Claim, ...]]:
        index: dict[Ids, list[Claim]] = {}
        for claim in self.claims:
            index.setdefault(claim.ids, []).append(claim)
        for bucket in index.values():
            bucket.sort(key=lambda claim: (self._rank(claim), claim.pci_class), reverse=True)
            for number, claim in enumerate(bucket):
                for other in bucket[:number]:
                    self._check_decided(claim, other)
        return {ids: tuple(bucket) for ids, bucket in index.items()}

    def _check_decided(self, claim: Claim, other: Claim) -> None:
        same_class = (claim.pci_class ^ other.pci_class) & claim.class_mask & other.class_mask == 0
        if same_class and self._rank(claim) == self._rank(other):
            first, second = sorted((claim, other), key=lambda each: (each.place, each.driver))
            raise RegistryError(
                f"{first.driver} and {second.driver} claim the same device, and nothing decides between them",
                where=f"{first.place} and {second.place}",
                remedy="remove one row, or give one driver a priority with its reason",
            )

    def _check_names(self, place: str) -> None:
        used: dict[str, set[str]] = {name: set() for name in self.drivers}
        for claim in self.claims:
            driver = self.drivers.get(claim.driver)
            if driver is None or driver.software:
                what = "claims no PCI device" if driver else "is not declared"
                raise RegistryError(
                    f"driver {claim.driver!r} {what}", where=claim.place, remedy=f"see {place}"
                )
            for service in claim.services.values():
                if service and service.module not in driver.modules:
                    raise RegistryError(
                        f"{driver.name} has no module {service.module!r}",
                        where=claim.place,
                        remedy=f"declare it, with its status, in {place}",
                    )
                if service:
                    used[driver.name].add(service.module)
        for driver in self.drivers.values():
            if not driver.software and (idle := set(driver.modules) - used[driver.name]):
                raise RegistryError(
                    f"no PCI id is served by {', '.join(sorted(idle))} for {driver.name}",
                    where=place,
                    remedy="remove the module, or give it ids",
                )


_UNSERVED = Support(Status.UNSUPPORTED)
_RUNG_NAMES = {
    Rung.EXACT: "its exact ids",
    Rung.VENDOR_DEVICE: "vendor and device",
    Rung.CLASS: "vendor and class",
}


def _detail(claim: Claim) -> tuple[int, int]:
    return sum(each is not None for each in claim.ids), claim.class_mask.bit_count()
