"""Where each import of a module is served from, in the documented order; and the report of ``vmk module check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from vmklinux.api import emulated
from vmklinux.module.elf import ModuleFile
from vmklinux.module.modinfo import check_vermagic, check_versions
from vmklinux.safe import image_safe
from vmklinux.stand_in import STAND_INS

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from vmklinux.image import Image
    from vmklinux.kernels import Kernel

Source: TypeAlias = Literal["vmklinux", "modules", "image"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """For each import its source; ``unresolved`` are those that nobody serves (weak ones may stay so)."""

    sources: Mapping[str, Source]
    unresolved: tuple[str, ...]

    def count(self, source: Source) -> int:
        """How many imports a source serves."""
        return sum(1 for found in self.sources.values() if found == source)


def resolve(module: ModuleFile, image: Image, others: Mapping[str, ModuleFile]) -> Resolution:
    """Look at every import: our own function, then another module (by what it exports), then the reviewed image."""
    served, safe = emulated(), image_safe()
    exported = {symbol for other in others.values() for symbol in other.exports}
    sources: dict[str, Source] = {}
    unresolved = []
    for wanted in module.imports:
        if wanted.name in served:
            sources[wanted.name] = "vmklinux"
        elif wanted.name in exported:
            sources[wanted.name] = "modules"
        elif wanted.name in image.symbols and wanted.name in safe:
            sources[wanted.name] = "image"
        elif not wanted.weak:
            unresolved.append(wanted.name)
    return Resolution(sources, tuple(sorted(unresolved)))


def dependencies(
    module: ModuleFile, kernel: Kernel, without: Container[str] = STAND_INS
) -> dict[str, ModuleFile]:
    """The modules that it needs, by name, each after those that it needs itself (.modinfo depends).

    ``without``: those that are not asked for, nor what only they need; vmklinux stands in for these.
    """
    found: dict[str, ModuleFile] = {}

    def visit(needed: ModuleFile) -> None:
        for name in needed.info.depends:
            if name not in found and name not in without:
                other = ModuleFile.read(kernel.find_module(name))
                visit(other)
                found[name] = other

    visit(module)
    return found


class Sensitive(msgspec.Struct, frozen=True):
    """An instruction that the scan before execution reports, and how it is handled."""

    section: str
    offset: int
    instruction: str
    treatment: str


class Report(msgspec.Struct, frozen=True):
    """What ``vmk module check`` says of one module; the counts are of imported symbols.

    ``dependencies`` names every module that it needs, with what of that one's imports nobody serves. ``resolved``: the
    module can be loaded, since neither it nor one that it needs lacks anything.
    """

    module: str
    kernel: str
    imports: int
    vmklinux: int
    image: int
    modules: int
    unresolved: list[str]
    dependencies: dict[str, list[str]]
    resolved: bool
    sensitive: list[Sensitive]


class Totals(msgspec.Struct, frozen=True):
    """How many of the modules that were asked for are resolved; ``percent`` is rounded down to a tenth."""

    resolved: int
    total: int
    percent: float


class Survey(msgspec.Struct, frozen=True):
    """What ``vmk module check --json`` prints; ``totals`` count modules that could not be checked as not resolved."""

    modules: list[Report]
    totals: Totals


def survey(reports: Sequence[Report], total: int) -> Survey:
    """Add up the reports of ``total`` modules, of which some may have none."""
    resolved = sum(report.resolved for report in reports)
    return Survey(list(reports), Totals(resolved, total, resolved * 1000 // max(total, 1) / 10))


def check(path: Path, kernel: Kernel, image: Image) -> Report:
    """Link a module without running it; errors of vmklinux.module for what is no module of this kernel."""
    from vmklinux.module.scan import scan

    module = ModuleFile.read(path)
    check_vermagic(module, kernel.release)
    check_versions(module, image.crcs.get)
    needed = dependencies(module, kernel)
    resolution = resolve(module, image, needed)
    lacking = {name: list(resolve(other, image, needed).unresolved) for name, other in needed.items()}
    return Report(
        module.name,
        kernel.release,
        len(module.imports),
        resolution.count("vmklinux"),
        resolution.count("image"),
        resolution.count("modules"),
        list(resolution.unresolved),
        lacking,
        not resolution.unresolved and not any(lacking.values()),
        [Sensitive(f.section, f.offset, f.instruction, str(f.treatment)) for f in scan(module)],
    )
