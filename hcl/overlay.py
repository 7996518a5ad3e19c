"""What a site lays over the list: devices that it adds, refuses, gives to another module, or knows more of.

An overlay is a TOML file of ``[[device]]`` tables. What it says goes before the list, and the verdict's reason says
where it stands. Within an overlay the ladder of the list holds; of entries that mean the same devices, those that name
kernels go before those that do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from hcl.evidence import of_series
from hcl.firmware import Firmware
from hcl.ladder import Ids, Ladder, rung_of
from hcl.verdict import RUNG_NAMES, Engine, Loser, Proof, Status, Verdict

_Pair = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}:([0-9a-f]{4}|\*)\Z")]
_Class = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2}){1,3}\Z")]
_Module = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]+\Z")]
_Driver = Annotated[str, msgspec.Meta(pattern=r"\A(net|block|scsi)/[a-z0-9][a-z0-9_.-]*\Z")]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One ``[[device]]``: the devices that it means, and what it says of them; the rest stays as the list has it."""

    ids: _Pair
    """``vendor:device``; the device may be ``*``, with a class."""
    subsystem: _Pair | None = None
    """``subvendor:subdevice``; the latter may be ``*``."""
    pci_class: _Class | None = msgspec.field(default=None, name="class")
    """Class code, or its first two or four digits."""
    kernels: tuple[_Text, ...] = ()
    """Kernel releases, or beginnings like 6.12, for which it holds; none stands for all."""
    driver: _Driver | None = None
    """ESX driver."""
    module: _Module | None = None
    """Linux module that is to serve them."""
    status: Status | None = None
    """compatible, unsupported or unknown."""
    reason: str = ""
    """Why; unsupported needs it."""
    evidence: _Text | None = None
    """What the status rests on; compatible needs it."""
    limits: tuple[_Text, ...] = ()
    """Known limits, a sentence each."""
    firmware: Firmware | None = None
    """Firmware that is wanted."""
    engine: Engine | None = None
    """Of the engines that can drive them, the preferred one."""

    def __post_init__(self) -> None:
        """Refuse what says nothing, or claims what only a certification run gives."""
        if self.status in (Status.CERTIFIED, Status.SKIPPED):
            raise ValueError(
                f"the status '{self.status}' is not declared: certification runs, or rules, give it"
            )
        if self.status is Status.UNSUPPORTED and not self.reason:
            raise ValueError("the status 'unsupported' needs its reason")
        if self.status is Status.COMPATIBLE and not self.evidence:
            raise ValueError("the status 'compatible' needs its evidence")
        if self.ids.endswith("*") and (self.pci_class is None or self.subsystem):
            raise ValueError("any device of a vendor: name a class, and no subsystem")
        if not (self.decides or self.limits or self.firmware or self.engine):
            raise ValueError("it says nothing: name a module, driver, status, limits, firmware or engine")
        if self.module and self.engine == "native":
            raise ValueError("a module is Linux's: the engine 'native' has none")

    @property
    def decides(self) -> bool:
        """Whether it says what drives the devices, or how well; else it adds to what the list says."""
        return bool(self.module or self.driver or self.status)


class Placed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry, and where it stands."""

    entry: Entry
    place: str
    """``file:line``."""


class Amendment(msgspec.Struct, frozen=True):
    """An entry as a row of the ladder."""

    entry: Entry
    place: str
    ids: Ids
    pci_class: int
    class_mask: int

    @classmethod
    def of(cls, placed: Placed) -> Amendment:
        """The row of an entry."""
        entry = placed.entry
        vendor, device = entry.ids.split(":")
        subvendor, subdevice = (entry.subsystem or "*:*").split(":")
        told = entry.pci_class or ""
        return cls(
            entry=entry,
            place=placed.place,
            ids=(int(vendor, 16), _number(device), _number(subvendor), _number(subdevice)),
            pci_class=int(told.ljust(6, "0"), 16),
            class_mask=int(("f" * len(told)).ljust(6, "0"), 16),
        )

    def holds_for(self, kernel: str) -> bool:
        """Whether it means this kernel release, or series."""
        return not self.entry.kernels or any(of_series(kernel, each) for each in self.entry.kernels)

    def meets(self, other: Amendment) -> bool:
        """Whether both may mean the same kernel."""
        mine, others = self.entry.kernels, other.entry.kernels
        return (not mine and not others) or any(
            of_series(one, two) or of_series(two, one) for one in mine for two in others
        )


def _number(text: str) -> int | None:
    return None if text == "*" else int(text, 16)


class Overlay:
    """The entries of a site."""

    def __init__(self, entries: Iterable[Placed]) -> None:
        self.entries = tuple(entries)
        self.ladder = Ladder(map(Amendment.of, self.entries), lambda row: bool(row.entry.kernels))

    def find(self, ids: tuple[int, int, int, int], pci_class: int, kernel: str) -> Amendment | None:
        """What is said of a device for a kernel."""
        return next(
            (row for row in self.ladder.find(*ids, pci_class) if row.holds_for(kernel)),
            None,
        )


class Standing(msgspec.Struct, frozen=True):
    """How well an engine's module is known for a device, apart from what the overlay says."""

    module: str | None
    status: Status
    evidence: str | None = None
    proof: Proof | None = None
    obstacle: str = ""
    """Why it cannot be run here, a clause."""


def serves(module: str | None, engine: Engine, kernel: str) -> str:
    """The part of a verdict's reason that names what serves the device; "" when nothing does."""
    if module is None:
        return ""
    return f"; {module} serves it in {'Python' if engine == 'native' else f'Linux {kernel}'}"


def amend(verdict: Verdict, amendment: Amendment, standing: Standing) -> Verdict:
    """The list's verdict after the overlay. ``standing`` is that of the module that comes out."""
    entry, place = amendment.entry, amendment.place
    known = msgspec.structs.replace(
        verdict,
        limits=(*verdict.limits, *entry.limits),
        firmware=entry.firmware or verdict.firmware,
        overlay=place,
    )
    if not entry.decides:
        added = " and ".join(
            [*(["known limits"] if entry.limits else []), *(["firmware"] if entry.firmware else [])]
        )
        return msgspec.structs.replace(
            known, reason=f"{verdict.reason} The overlay {place} adds {added}." if added else verdict.reason
        )
    driver, module = entry.driver or verdict.driver, standing.module
    rung = rung_of(amendment.ids)
    by = f"by the overlay {place} ({RUNG_NAMES[rung]})"
    because = f": {entry.reason.rstrip('.')}" if entry.reason else ""
    status, evidence, proof = standing.status, standing.evidence, standing.proof
    if entry.status is Status.UNSUPPORTED:
        status, evidence, proof = entry.status, None, None
        reason = f"{verdict.device} is unsupported {by}{because}."
    else:
        hindered = f", but {standing.obstacle}" if standing.obstacle else ""
        # What is said of a module of Linux's says nothing of a driver in Python.
        told = entry.status if verdict.engine == "linux" or not entry.module else None
        if told and not proof:
            status, evidence = told, entry.evidence
        if hindered:
            status = Status.UNSUPPORTED
        owner = f"{driver or module}'s " if driver or module else ""
        served = serves(module, verdict.engine, verdict.kernel)
        reason = f"{verdict.device} is {owner or f'{entry.status} '}{by}{served}{because}{hindered}."
    return msgspec.structs.replace(
        known,
        rung=rung,
        driver=driver,
        module=module,
        status=status,
        evidence=evidence,
        proof=proof,
        claimants=(),
        function=verdict.function if module == verdict.module else None,
        obstacle=standing.obstacle,
        losers=(*_beaten(verdict, place), *verdict.losers),
        reason=reason,
    )


def prefer(verdict: Verdict, amendment: Amendment) -> Verdict:
    """The verdict with the engine preferred that the overlay names, if that can drive the device."""
    wanted, place = amendment.entry.engine, amendment.place
    others = tuple(each for each in verdict.engines if each != wanted)
    able = wanted is not None and wanted in verdict.engines
    but = "" if able else ", which cannot drive it"
    return msgspec.structs.replace(
        verdict,
        engines=(wanted, *others) if wanted and able else verdict.engines,
        reason=f"{verdict.reason} The overlay {place} prefers the engine {wanted}{but}.",
        overlay=verdict.overlay or place,
    )


def _beaten(verdict: Verdict, place: str) -> tuple[Loser, ...]:
    if verdict.driver is None:
        return ()
    reason = f"the overlay {place} goes before the list"
    return (Loser(verdict.driver, verdict.module, verdict.rung, reason),)
