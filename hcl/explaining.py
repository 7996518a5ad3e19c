"""Why a device is what it is by the list: each step of the ladder, what stands there, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hcl.evidence import Run
from hcl.inventory import PciDevice
from hcl.judging import Judge
from hcl.ladder import Ids
from hcl.registry import Claim, Registry
from hcl.report import DeviceReport
from hcl.unlisted import modalias

VERSION = 1
"""Of what ``hcl explain --json`` writes."""


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that stands at a step."""

    place: str
    driver: str | None
    module: str | None
    outcome: str
    """``wins``, or why it does not: a clause."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the ladder, the first first."""

    asked: str
    """What was looked for."""
    rows: tuple[StepRow, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What ``hcl explain --json`` writes."""

    version: int = VERSION
    kernel: str
    report: DeviceReport
    """The verdict, as ``hcl validate`` gives it."""
    untold: tuple[str, ...]
    """What was not given, and what the steps took it for."""
    steps: tuple[Step, ...]
    claims: tuple[str, ...] | None
    """The kernel's modules that claim the device by themselves, the nearest first; None when they are not here."""
    runs: tuple[Run, ...]
    """Evidence on this device that counts, the newest first."""


def explain(judge: Judge, device: PciDevice) -> Explanation:
    """Why the device gets its verdict."""
    registry = judge.registry
    untold = []
    if device.subvendor is None:
        untold.append("the subsystem was not told; the steps are for ffff:ffff, which no row names")
    if device.pci_class is None:
        untold.append("the class was not told; the steps are for 000000")
    ids = (
        int(device.vendor, 16),
        int(device.device, 16),
        int(device.subvendor or "ffff", 16),
        int(device.subdevice or "ffff", 16),
    )
    pci_class = int((device.pci_class or "").ljust(6, "0"), 16)
    modules = judge.modules
    return Explanation(
        kernel=judge.kernel,
        report=judge.device(device),
        untold=tuple(untold),
        steps=tuple(_steps(registry, ids, pci_class, judge.kernel)),
        claims=tuple(modules.claimants(modalias(ids, pci_class))) if modules else None,
        runs=tuple(
            each.run
            for each in registry.evidence.counting()
            if (each.run.vendor, each.run.device) == (device.vendor, device.device)
        ),
    )


def _steps(registry: Registry, ids: tuple[int, int, int, int], pci_class: int, kernel: str) -> Iterator[Step]:
    for overlay in registry.overlays:
        first = overlay.find(ids, pci_class, kernel)
        rows = []
        for row in overlay.ladder.find(*ids, pci_class):
            outcome = (
                "wins" if row is first
                else "is for other kernels" if not row.holds_for(kernel)
                else "a nearer entry goes before it"
            )  # fmt: skip
            rows.append(
                StepRow(place=row.place, driver=row.entry.driver, module=row.entry.module, outcome=outcome)
            )
        yield Step(asked="an overlay's entry", rows=tuple(rows))
    vendor, device, subvendor, subdevice = ids
    pair, subsystem = f"{vendor:04x}:{device:04x}", f"{subvendor:04x}:{subdevice:04x}"
    rungs: tuple[tuple[str, Ids], ...] = (
        (f"{pair} with subsystem {subsystem}", ids),
        (f"{pair} with a subsystem of {subvendor:04x}", (vendor, device, subvendor, None)),
        (f"{pair} with any subsystem", (vendor, device, None, None)),
        (f"any device of {vendor:04x} with class {pci_class:06x}", (vendor, None, None, None)),
    )
    series = registry.series(kernel)
    matching = registry.ladder.find(*ids, pci_class)
    winner = matching[0] if matching else None
    amended = [found for overlay in registry.overlays if (found := overlay.find(ids, pci_class, kernel))]
    beaten = next((found.place for found in amended if found.entry.decides), "")
    for asked, rung in rungs:
        yield Step(
            asked=asked,
            rows=tuple(
                _row(registry, row, winner, pci_class, series, beaten) for row in registry.ladder.rows(rung)
            ),
        )


def _row(
    registry: Registry, row: Claim, winner: Claim | None, pci_class: int, series: str, beaten: str
) -> StepRow:
    service = row.services[series]
    if row is winner:
        outcome = f"loses: the overlay {beaten} goes before the list" if beaten else "wins"
    elif (row.pci_class ^ pci_class) & row.class_mask:
        outcome = f"does not fit: it asks for class {row.pci_class:06x} in the bits {row.class_mask:06x}"
    else:
        assert winner is not None  # it fits, so something won
        outcome = f"loses: {registry.loser(row, winner, series).reason}"
    return StepRow(
        place=row.place, driver=row.driver, module=str(service) if service else None, outcome=outcome
    )
