"""What the verdicts on many machines come to: by status, by model, and by device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from hcl.report import DeviceReport, MachineReport, counts_of, driven_by, exit_code_of
from hcl.verdict import Engine, Status


class Failure(msgspec.Struct, frozen=True):
    """An inventory that could not be judged."""

    what: str
    where: str
    remedy: str


class ModelSummary(msgspec.Struct):
    """The machines of a model: how many end with each exit code."""

    model: str | None
    machines: int = 0
    fit: int = 0
    unsupported: int = 0
    undetermined: int = 0


class DeviceSummary(msgspec.Struct):
    """Devices of the same ids with the same verdict."""

    ids: str | None
    name: str | None
    module: str | None
    status: Status
    reason: str
    devices: int = 0
    machines: int = 0
    engine: Engine | None = None

    @property
    def driven_by(self) -> str:
        """The module for people."""
        return driven_by(self.engine, self.module)


class Summary(msgspec.Struct):
    """All machines together."""

    machines: int
    counts: dict[str, int]
    """Devices by status; every status is there."""
    models: list[ModelSummary]
    """The most frequent first."""
    devices: list[DeviceSummary]
    """Those that were judged, the most frequent first; skipped ones are in the counts only."""


_WORDS = ("fit", "unsupported", "undetermined")


class Fleet:
    """Reports of machines, one after the other; when they have been gone through, what they come to.

    Going through it is possible once: a fleet need not fit into memory.
    """

    def __init__(self, found: Iterable[MachineReport | Failure]) -> None:
        self._found = found
        self.failures: list[Failure] = []
        self._counts = counts_of(())
        self._machines = 0
        self._models: dict[str | None, ModelSummary] = {}
        self._devices: dict[tuple[object, ...], DeviceSummary] = {}

    def __iter__(self) -> Iterator[MachineReport]:
        """The reports. Inventories that could not be judged go to ``failures``."""
        for each in self._found:
            if isinstance(each, Failure):
                self.failures.append(each)
            else:
                self._add(each)
                yield each

    def _add(self, report: MachineReport) -> None:
        self._machines += 1
        for status, number in report.counts.items():
            self._counts[status] += number
        model = self._models.setdefault(report.model, ModelSummary(report.model))
        model.machines += 1
        word = _WORDS[report.exit_code]
        setattr(model, word, getattr(model, word) + 1)
        seen = set()
        for device in report.devices:
            if device.status is not Status.SKIPPED:
                key = (device.ids, device.status, device.engine, device.module, device.reason)
                found = self._devices.get(key)
                if found is None:
                    found = self._devices[key] = _summary(device)
                found.devices += 1
                found.machines += key not in seen
                seen.add(key)

    @property
    def exit_code(self) -> int:
        """What it comes to: see ``hcl.report``; 3 when an inventory could not be judged."""
        return 3 if self.failures else exit_code_of(self._counts)

    def summary(self) -> Summary:
        """What it comes to, in figures."""
        return Summary(
            machines=self._machines,
            counts=self._counts,
            models=sorted(self._models.values(), key=lambda each: (-each.machines, each.model or "")),
            devices=sorted(
                self._devices.values(), key=lambda each: (-each.devices, each.ids or "", each.reason)
            ),
        )


def _summary(device: DeviceReport) -> DeviceSummary:
    return DeviceSummary(
        device.ids, device.name, device.module, device.status, device.reason, engine=device.engine
    )
