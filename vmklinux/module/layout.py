"""Which sections of a module are loaded, and where each lies from the module's base."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from elftools.elf.constants import SH_FLAGS

from vmklinux.module.errors import CorruptModule

PAGE: Final = 4096
"""Bytes; a module's base and its groups are aligned to it."""

SIZE_LIMIT: Final = 128 << 20
"""Bytes; the largest modules of a distribution need about 30 MiB, so more is a damaged header."""

PERCPU: Final = ".data..percpu"
"""The section that is a template for each CPU; it lies in the image's per-CPU area, not in the module."""

NOT_LOADED: Final = {
    ".modinfo": "read from the file; Linux does not load it either",
    "__versions": "read from the file; Linux does not load it either",
    ".orc_unwind": "Linux's stack unwinder does not run here",
    ".orc_unwind_ip": "Linux's stack unwinder does not run here",
    ".orc_header": "Linux's stack unwinder does not run here",
    "__mcount_loc": "functions are not traced by patching them",
    "__patchable_function_entries": "functions are not traced by patching them",
    ".altinstructions": "alternatives are not applied: what was compiled in runs on every processor",
    ".altinstr_replacement": "alternatives are not applied: what was compiled in runs on every processor",
    ".parainstructions": "paravirtual calls stay calls through pv_ops",
    ".smp_locks": "lock prefixes stay: there is more than one thread",
    ".retpoline_sites": "calls through thunks stay calls",
    ".return_sites": "returns through the thunk stay jumps",
    ".call_sites": "calls are not counted",
    ".ibt_endbr_seal": "indirect branch tracking is off in user mode",
}
"""Allocated sections that nothing at run time reads, with the reason."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section that is loaded: its ELF number, sizes in bytes, SHF_* flags, and its place.

    ``content`` is empty where the section is all zeros. ``offset`` counts from the module's base.
    """

    index: int
    name: str
    size: int
    alignment: int
    flags: int
    content: bytes
    offset: int = 0

    @property
    def executable(self) -> bool:
        """Whether the section holds code."""
        return bool(self.flags & SH_FLAGS.SHF_EXECINSTR)


@dataclass(frozen=True, slots=True)
class Group:
    """Pages of one kind: ``text`` (read, execute), ``rodata`` (read) or ``data`` (read, write)."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a module's sections lie; ``size`` is a whole number of pages."""

    size: int
    groups: tuple[Group, ...]
    sections: tuple[Section, ...]


def _group_of(section: Section) -> str:
    if section.executable:
        return "text"
    return "data" if section.flags & SH_FLAGS.SHF_WRITE else "rodata"


def place(module: str, sections: Iterable[Section]) -> Layout:
    """Give each section its offset: text first, then read-only data, then data, each on pages of its own.

    Raises CorruptModule for an alignment that is no power of two up to a page, and for an impossible size.
    """
    members: dict[str, list[Section]] = {"text": [], "rodata": [], "data": []}
    for section in sections:
        members[_group_of(section)].append(section)
    placed: list[Section] = []
    groups: list[Group] = []
    end = 0
    for name, group in members.items():
        start = end
        for section in group:
            align = section.alignment
            if align & (align - 1) or align > PAGE:
                raise CorruptModule(module, f"alignment {align:#x} is not possible", where=section.name)
            end = (end + align - 1) & -align
            placed.append(replace(section, offset=end))
            end += section.size
            if end > SIZE_LIMIT:
                raise CorruptModule(module, f"claims more than {SIZE_LIMIT >> 20} MiB", where=section.name)
        end = (end + PAGE - 1) & -PAGE
        groups.append(Group(name, start, end - start))
    return Layout(end, tuple(groups), tuple(placed))
