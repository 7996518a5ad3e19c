"""A Linux module as its file gives it: sections, symbols, imports, exports, and what it says about itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from vmklinux.module.errors import CorruptModule, NoBtf, TruncatedModule, WrongArchitecture
from vmklinux.module.layout import NOT_LOADED, PERCPU, Layout, Section, place
from vmklinux.module.link import RELA, LinkedModule, link
from vmklinux.module.modinfo import ModInfo

_EHDR_SIZE: Final = 64
_SHDR_SIZE: Final = 64
_SYM: Final = Struct("<IBBHQQ")
"""Elf64_Sym: name, info, other, section, value, size."""
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STB_WEAK = 2
_DEFINITIONS: Final = frozenset({0, 1, 2, 10})
"""Symbol types that name a place in memory: STT_NOTYPE, OBJECT, FUNC, GNU_IFUNC (not SECTION, FILE, TLS)."""

_MODVERSION: Final = Struct("<Q56s")
"""struct modversion_info of include/linux/module.h: CRC and name."""
_KSYMTAB_ENTRY: Final = 12
"""struct kernel_symbol (include/linux/export.h): three 4-byte fields, each relative to itself."""
THIS_MODULE: Final = ".gnu.linkonce.this_module"
"""The section that makes an object file a module (scripts/mod/modpost.c)."""
_EXPORT_TABLES: Final = (("__ksymtab", "__kcrctab", False), ("__ksymtab_gpl", "__kcrctab_gpl", True))


class Symbol(NamedTuple):
    """A row of the symbol table; ``section`` is an ELF section number or one of SHN_*."""

    name: str
    section: int
    value: int
    size: int
    type: int
    binding: int

    @property
    def is_import(self) -> bool:
        """Whether the module expects somebody else to define it."""
        return self.section == _SHN_UNDEF and self.name != ""

    @property
    def is_definition(self) -> bool:
        """Whether the module defines a function or an object by this name."""
        return self.name != "" and self.section != _SHN_UNDEF and self.type in _DEFINITIONS

    def address_in(self, sections: Mapping[int, int], imports: Mapping[str, int]) -> int | None:
        """The address, given those of the sections and imports; None when its section is not loaded."""
        if self.section == _SHN_UNDEF:
            return imports.get(self.name, 0)
        if self.section == _SHN_ABS:
            return self.value
        start = sections.get(self.section)
        return None if start is None else start + self.value


@dataclass(frozen=True, slots=True)
class Import:
    """A symbol that the module needs; ``crc`` is that of what it was compiled against, if it says."""

    name: str
    crc: int | None
    weak: bool


@dataclass(frozen=True, slots=True)
class Export:
    """A symbol that the module offers: ``value`` is its offset in ``section`` (an ELF section number)."""

    section: int
    value: int
    crc: int | None
    gpl: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """What a pointer will point to: ``offset`` in ``section`` (None: outside), through ``symbol``."""

    symbol: str
    section: Section | None
    offset: int


@dataclass(frozen=True, slots=True)
class _Table:
    """A section as its header has it; ``content`` is empty for NOBITS."""

    index: int
    name: str
    type: int | str
    flags: int
    size: int
    alignment: int
    link: int
    info: int
    content: bytes


def _string(module: str, table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    if end < 0 or offset > len(table):
        raise CorruptModule(module, f"no name at {offset:#x} of its string table")
    return table[offset:end].decode("latin-1")


def _headers(module: str, data: bytes) -> tuple[list[Any], int]:
    """The section headers and the number of the one with their names; checks that this is a module at all."""
    if len(data) < _EHDR_SIZE:
        raise TruncatedModule(module, _EHDR_SIZE, len(data), where="ELF header")
    stream = io.BytesIO(data)
    try:
        elf = ELFFile(stream)
        if elf["e_machine"] != "EM_X86_64" or elf.elfclass != 64 or not elf.little_endian:
            raise WrongArchitecture(module, f"{elf['e_machine']} ({elf.elfclass}-bit)")
        if elf["e_type"] != "ET_REL":
            raise CorruptModule(module, f"is {elf['e_type']}, not a relocatable object")
        if elf["e_shentsize"] != _SHDR_SIZE:
            raise CorruptModule(
                module, f"has section headers of {elf['e_shentsize']} bytes", where="ELF header"
            )
        start, count = elf["e_shoff"], elf["e_shnum"]
        if start + count * _SHDR_SIZE > len(data):
            raise TruncatedModule(module, start + count * _SHDR_SIZE, len(data), where="section headers")
        headers = [
            struct_parse(elf.structs.Elf_Shdr, stream, start + number * _SHDR_SIZE) for number in range(count)
        ]
    except (ELFError, OverflowError) as error:
        raise CorruptModule(module, f"is not a readable ELF file: {error}") from error
    return headers, elf["e_shstrndx"]


def _tables(module: str, data: bytes) -> list[_Table]:
    headers, names_at = _headers(module, data)
    if names_at >= len(headers):
        raise CorruptModule(module, "has no section with the section names")
    names = headers[names_at]
    strings = data[names["sh_offset"] : names["sh_offset"] + names["sh_size"]]
    tables = []
    for index, header in enumerate(headers):
        name = _string(module, strings, header["sh_name"])
        start, size = header["sh_offset"], header["sh_size"]
        content = b""
        if header["sh_type"] not in ("SHT_NOBITS", "SHT_NULL"):
            if start + size > len(data):
                raise TruncatedModule(module, start + size, len(data), where=f"section {name}")
            content = data[start : start + size]
        tables.append(
            _Table(
                index,
                name,
                header["sh_type"],
                header["sh_flags"],
                size,
                max(header["sh_addralign"], 1),
                header["sh_link"],
                header["sh_info"],
                content,
            )
        )
    return tables


def _rows(module: str, row: Struct, table: _Table) -> Iterator[tuple[Any, ...]]:
    if len(table.content) % row.size:
        raise CorruptModule(
            module, f"does not consist of {row.size}-byte entries", where=f"section {table.name}"
        )
    return row.iter_unpack(table.content)


def _symbols(module: str, tables: list[_Table]) -> tuple[Symbol, ...]:
    table = next((table for table in tables if table.type == "SHT_SYMTAB"), None)
    if table is None or table.link >= len(tables):
        raise CorruptModule(module, "has no symbol table")
    strings = tables[table.link].content
    return tuple(
        Symbol(_string(module, strings, name) if name else "", section, value, size, info & 15, info >> 4)
        for name, info, _other, section, value, size in _rows(module, _SYM, table)
    )


@dataclass(frozen=True, eq=False)
class ModuleFile:
    """A parsed module. ``read`` and ``parse`` make it; nothing in it changes afterwards.

    ``layout`` has the sections that are loaded and their places; ``percpu`` is the template of its per-CPU
    data, if it has any; ``this_module`` is its ``struct module``, filled in by whoever loads it; ``versions``
    maps symbols to the CRCs it was compiled against.
    """

    name: str
    info: ModInfo
    layout: Layout
    percpu: Section | None
    this_module: Section
    symbols: tuple[Symbol, ...]
    versions: Mapping[str, int]
    _tables: list[_Table] = field(repr=False)
    _relocations: Mapping[int, list[bytes]] = field(repr=False)
    _references: dict[int, dict[int, tuple[int, int]]] = field(repr=False, default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ModuleFile:
        """Read a .ko, .ko.xz, .ko.gz or .ko.zst; raises BadModuleFile and what ``parse`` raises."""
        from vmklinux.kernels.compressed import read_module

        return cls.parse(read_module(path), path.name.partition(".")[0])

    @classmethod
    def parse(cls, data: bytes, name: str) -> ModuleFile:
        """Parse a module's bytes; ``name`` is used where the module does not name itself.

        Raises TruncatedModule, CorruptModule or WrongArchitecture.
        """
        tables = _tables(name, data)
        symbols = _symbols(name, tables)
        by_name = {table.name: table for table in reversed(tables)}
        info = ModInfo.parse(by_name[".modinfo"].content if ".modinfo" in by_name else b"")
        module = info.name or name.replace("-", "_")
        versions = {}
        if "__versions" in by_name:
            for crc, padded in _rows(module, _MODVERSION, by_name["__versions"]):
                versions[padded.partition(b"\0")[0].decode("latin-1")] = crc & 0xFFFFFFFF
        relocations: dict[int, list[bytes]] = {}
        for table in tables:
            if table.type == "SHT_RELA":
                _rows(module, RELA, table)
                relocations.setdefault(table.info, []).append(table.content)
        loaded = [
            Section(table.index, table.name, table.size, table.alignment, table.flags, table.content)
            for table in tables
            if table.flags & SH_FLAGS.SHF_ALLOC and table.name not in NOT_LOADED
        ]
        layout = place(module, (section for section in loaded if section.name != PERCPU))
        elsewhere = place(module, (section for section in loaded if section.name == PERCPU))
        this_module = next((section for section in layout.sections if section.name == THIS_MODULE), None)
        if this_module is None:
            raise CorruptModule(module, "is an object file, but no Linux module", where=THIS_MODULE)
        return cls(
            name=module,
            info=info,
            layout=layout,
            percpu=next(iter(elsewhere.sections), None),
            this_module=this_module,
            symbols=symbols,
            versions=versions,
            _tables=tables,
            _relocations=relocations,
        )

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """The symbols that somebody else must define, in the order of the symbol table."""
        return tuple(
            Import(symbol.name, self.versions.get(symbol.name), symbol.binding == _STB_WEAK)
            for symbol in self.symbols
            if symbol.is_import
        )

    @cached_property
    def exports(self) -> Mapping[str, Export]:
        """The symbols offered to other modules; raises CorruptModule when a table contradicts itself."""
        found = {}
        for table_name, crcs_name, gpl in _EXPORT_TABLES:
            table, crcs = self.section(table_name), self.section(crcs_name)
            if table is None:
                continue
            for number in range(table.size // _KSYMTAB_ENTRY):
                at = number * _KSYMTAB_ENTRY
                value, name = self.reference(table, at), self.reference(table, at + 4)
                if value is None or value.section is None or name is None:
                    raise CorruptModule(self.name, f"export {number} refers to nothing", where=table_name)
                found[self.text(name)] = Export(
                    value.section.index,
                    value.offset,
                    self.integer(crcs, number * 4, 4) if crcs else None,
                    gpl,
                )
        return found

    @property
    def btf(self) -> bytes:
        """The module's own types (split BTF, on top of the kernel's); raises NoBtf when there are none."""
        content = next((table.content for table in self._tables if table.name == ".BTF"), b"")
        if not content:
            raise NoBtf(self.name)
        return content

    @property
    def bug_table(self) -> Section | None:
        """The section with the sites of WARN and BUG (an array of struct bug_entry)."""
        return self.section("__bug_table")

    @cached_property
    def _by_index(self) -> Mapping[int, Section]:
        sections = (*self.layout.sections, self.percpu) if self.percpu else self.layout.sections
        return {section.index: section for section in sections}

    def section(self, name: str) -> Section | None:
        """The loaded section of that name."""
        return next((section for section in self.layout.sections if section.name == name), None)

    def relocations(self, index: int) -> list[bytes]:
        """The relocation tables (Elf64_Rela) for the section with this ELF number."""
        return self._relocations.get(index, [])

    def symbol_name(self, number: int) -> str:
        """How to call a symbol in a message: by its name, else its section's, else its number."""
        symbol = self.symbols[number]
        section = self._tables[symbol.section].name if symbol.section < len(self._tables) else ""
        return symbol.name or section or f"symbol {number}"

    def reference(self, section: Section, offset: int) -> Reference | None:
        """What the pointer at an offset of a section points to; None when nothing is relocated there.

        Raises CorruptModule when the relocation has no symbol.
        """
        if section.index not in self._references:
            self._references[section.index] = {
                at: (info >> 32, addend)
                for table in self.relocations(section.index)
                for at, info, addend in RELA.iter_unpack(table)
            }
        found = self._references[section.index].get(offset)
        if found is None:
            return None
        number, addend = found
        if number >= len(self.symbols):
            raise CorruptModule(self.name, f"no symbol {number}", where=f"{section.name}+{offset:#x}")
        symbol = self.symbols[number]
        return Reference(symbol.name, self._by_index.get(symbol.section), symbol.value + addend)

    def integer(self, section: Section, offset: int, size: int) -> int:
        """The unsigned number of ``size`` bytes at an offset of a section, before relocation."""
        if not 0 <= offset <= section.size - size:
            raise CorruptModule(self.name, "a field lies outside", where=f"{section.name}+{offset:#x}")
        return int.from_bytes(section.content[offset : offset + size], "little")

    def text(self, place: Reference) -> str:
        """The NUL-terminated string that a reference leads to; raises CorruptModule when there is none."""
        if place.section is None or not 0 <= place.offset < place.section.size:
            raise CorruptModule(self.name, f"no text where {place.symbol or 'a pointer'} leads")
        return _string(self.name, place.section.content, place.offset)

    def link(self, base: int, resolve: Callable[[str], int | None], percpu: int = 0) -> LinkedModule:
        """The module for the page-aligned address ``base``; ``percpu`` is the offset of its per-CPU data.

        ``resolve`` gives the address of an imported symbol (of a per-CPU one its offset), None when nobody
        serves it: a weak one is then 0. Raises UnknownSymbols (all of them), RelocationOutOfRange,
        UnsupportedRelocation, CorruptModule.
        """
        return link(self, base, resolve, percpu)
