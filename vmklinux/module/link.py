"""Relocation: from a module's file and a base address to the bytes that go to memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from vmklinux.module.errors import CorruptModule, RelocationOutOfRange, UnknownSymbols, UnsupportedRelocation

if TYPE_CHECKING:
    from vmklinux.module.elf import ModuleFile
    from vmklinux.module.layout import Section

RELA: Final = Struct("<QQq")
"""Elf64_Rela: offset, info (symbol << 32 | kind), addend."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of relocation: how its field is written, whether it counts from the field, and what it holds."""

    name: str
    field: Struct
    relative: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest value the field holds, and the first that is too large."""
        bits = self.field.size * 8
        if self.field.format.islower():
            return -1 << (bits - 1), 1 << (bits - 1)
        return 0, 1 << bits


KINDS: Final[Mapping[int, Kind]] = {
    1: Kind("R_X86_64_64", Struct("<q"), relative=False),
    2: Kind("R_X86_64_PC32", Struct("<i"), relative=True),
    4: Kind("R_X86_64_PLT32", Struct("<i"), relative=True),
    10: Kind("R_X86_64_32", Struct("<I"), relative=False),
    11: Kind("R_X86_64_32S", Struct("<i"), relative=False),
    24: Kind("R_X86_64_PC64", Struct("<q"), relative=True),
}
"""By ELF number (System V ABI, AMD64 supplement, table 4.10). 64-bit fields wrap, so here they are signed."""

NONE: Final = 0
"""R_X86_64_NONE: nothing to do."""


@dataclass(frozen=True, slots=True)
class LinkedModule:
    """A module for one base address: its bytes, and the addresses of what is in it.

    ``image`` is the whole layout; ``percpu`` the relocated template of its per-CPU data (empty: none).
    ``init`` and ``exit`` are 0 where the module has none. ``symbols`` has every defined function and object;
    ``exports`` what other modules may import.
    """

    base: int
    image: bytearray
    percpu: bytearray
    symbols: Mapping[str, int]
    exports: Mapping[str, int]
    init: int
    exit: int


def _resolved(module: ModuleFile, resolve: Callable[[str], int | None]) -> dict[str, int]:
    found: dict[str, int] = {}
    unknown: list[str] = []
    for item in module.imports:
        address = resolve(item.name)
        if address is None and not item.weak:
            unknown.append(item.name)
        found[item.name] = address or 0
    if unknown:
        raise UnknownSymbols(module.name, sorted(unknown))
    return found


class _Relocator:
    """Applies one module's relocations; ``values`` has each symbol's address, None where it is not loaded."""

    def __init__(self, module: ModuleFile, values: list[int | None]) -> None:
        self._module = module
        self._values = values
        self._writers = {
            number: (kind.field.pack_into, kind.field.size, kind.relative, *kind.limits)
            for number, kind in KINDS.items()
        }

    def apply(self, section: Section, table: bytes, image: bytearray, at: int, address: int) -> None:
        """Write a table's values into ``image``, where the section is at ``at``, to run at ``address``."""
        values, writers = self._values, self._writers
        for offset, info, addend in RELA.iter_unpack(table):
            writer = writers.get(info & 0xFFFFFFFF)
            if writer is None:
                if info & 0xFFFFFFFF == NONE:
                    continue
                raise UnsupportedRelocation(self._module.name, section.name, offset, info & 0xFFFFFFFF)
            write, size, relative, low, high = writer
            symbol = info >> 32
            target = values[symbol] if symbol < len(values) else None
            if target is None or offset + size > section.size:
                raise CorruptModule(
                    self._module.name,
                    f"a relocation is outside its section, or its symbol {symbol} is not loaded",
                    where=f"{section.name}+{offset:#x}",
                )
            value = target + addend - (address + offset if relative else 0)
            # As the processor does: 64 bits, of which the upper half of the values is negative.
            value = ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)
            if not low <= value < high:
                raise RelocationOutOfRange(
                    self._module.name,
                    section.name,
                    offset,
                    symbol=self._module.symbol_name(symbol),
                    kind=KINDS[info & 0xFFFFFFFF].name,
                    value=value,
                )
            write(image, at + offset, value)


def link(
    module: ModuleFile, base: int, resolve: Callable[[str], int | None], percpu: int = 0
) -> LinkedModule:
    """Place a module at ``base`` (page aligned) and relocate it; see ModuleFile.link."""
    imports = _resolved(module, resolve)
    address = {section.index: base + section.offset for section in module.layout.sections}
    if module.percpu:
        address[module.percpu.index] = percpu
    values: list[int | None] = []
    symbols: dict[str, int] = {}
    for symbol in module.symbols:
        value = symbol.address_in(address, imports)
        values.append(value)
        if value is not None and symbol.is_definition:
            symbols[symbol.name] = value

    image = bytearray(module.layout.size)
    relocator = _Relocator(module, values)
    for section in module.layout.sections:
        image[section.offset : section.offset + len(section.content)] = section.content
        for table in module.relocations(section.index):
            relocator.apply(section, table, image, section.offset, address[section.index])
    template = bytearray()
    if module.percpu:
        template = bytearray(module.percpu.content.ljust(module.percpu.size, b"\0"))
        for table in module.relocations(module.percpu.index):
            relocator.apply(module.percpu, table, template, 0, percpu)
    return LinkedModule(
        base=base,
        image=image,
        percpu=template,
        symbols=symbols,
        exports={name: address[export.section] + export.value for name, export in module.exports.items()},
        init=symbols.get("init_module", 0),
        exit=symbols.get("cleanup_module", 0),
    )
