"""Relocation of modules. Independent side: Debian's modules, and GNU ld, which links the same files."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from vmklinux.kernels import Kernel, read_module
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import CorruptModule, RelocationOutOfRange, UnknownSymbols, UnsupportedRelocation

BASE = 0x60000000
PERCPU = 0x2000
SHF_MERGE = 0x10
RELA = struct.Struct("<QQq")
KINDS = {"64": 1, "PC32": 2, "PLT32": 4, "32": 10, "32S": 11, "PC64": 24}

Patch = Callable[[bytes, str, int, bytes], bytes]


def _anywhere(name: str) -> int:
    """An address in a kernel image's place for each symbol, its own for each."""
    return 0x41000000 + zlib.crc32(name.encode()) % 0x2000000


def _link_with_gnu_ld(module: ModuleFile, data: bytes, work: Path) -> ELFFile:
    """The same module at the same addresses, linked by binutils."""
    source, script, linked = work / "in.o", work / "script", work / "out"
    source.write_bytes(data)
    merged = [
        section.name
        for section in ELFFile(io.BytesIO(data)).iter_sections()
        if section["sh_flags"] & SHF_MERGE
    ]
    flags = [f"--set-section-flags={name}=alloc,readonly,data" for name in merged]
    subprocess.run(["objcopy", *flags, source], check=True)
    places = [(section.name, BASE + section.offset) for section in module.layout.sections]
    if module.percpu:
        places.append((module.percpu.name, PERCPU))
    lines = [f'"{name}" {address:#x} : {{ KEEP(*("{name}")) }}' for name, address in places]
    symbols = [f'"{item.name}" = {_anywhere(item.name):#x};' for item in module.imports]
    script.write_text("\n".join(["SECTIONS {", *lines, "/DISCARD/ : { *(*) }", "}", *symbols]))
    options = ["-static", "-no-pie", "--no-relax", "-z", "noexecstack"]
    subprocess.run(["ld", *options, "-T", script, "-o", linked, source], check=True)
    return ELFFile(io.BytesIO(linked.read_bytes()))


@pytest.mark.parametrize("name", ["e1000", "e1000e", "mii", "lpfc", "bnx2i", "megaraid_sas"])
def test_the_image_is_what_gnu_ld_makes(kernel: Kernel, name: str, tmp_path: Path) -> None:
    data = read_module(kernel.find_module(name))
    module = ModuleFile.parse(data, name)
    linked = module.link(BASE, _anywhere, PERCPU)
    assert len(linked.image) == module.layout.size
    judge = _link_with_gnu_ld(module, data, tmp_path)
    compared = 0
    for section in module.layout.sections:
        other = judge.get_section_by_name(section.name)
        if other is None:
            assert section.name == ".note.gnu.build-id", "ld keeps all but the build id"
            continue
        ours = bytes(linked.image[section.offset : section.offset + section.size])
        theirs = bytes(section.size) if other["sh_type"] == "SHT_NOBITS" else other.data()
        assert ours == theirs, section.name
        compared += section.size
    assert compared > 2000
    table = judge.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    for symbol in table.iter_symbols():
        if symbol["st_info"]["bind"] == "STB_GLOBAL" and symbol.name in linked.symbols:
            assert linked.symbols[symbol.name] == symbol["st_value"], symbol.name


def test_addresses_of_the_linked_module(e1000: ModuleFile) -> None:
    linked = e1000.link(BASE, _anywhere)
    assert linked.init == linked.symbols["init_module"]
    assert linked.exit == linked.symbols["cleanup_module"]
    text = e1000.layout.groups[0]
    for function in (linked.init, linked.exit, linked.symbols["e1000_probe"]):
        assert BASE <= function < BASE + text.size
    assert not linked.percpu
    assert BASE + text.size <= linked.symbols["__this_module"] < BASE + e1000.layout.size


def test_a_library_module_has_exports_and_no_init(kernel: Kernel) -> None:
    linked = ModuleFile.read(kernel.find_module("mii")).link(BASE, _anywhere)
    assert linked.init == linked.exit == 0
    assert linked.exports["mii_nway_restart"] == linked.symbols["mii_nway_restart"]


def test_all_unknown_symbols_are_named_at_once(e1000: ModuleFile) -> None:
    missing = {"register_netdev", "napi_enable"}
    with pytest.raises(UnknownSymbols, match=r"needs 2 symbols.*napi_enable, register_netdev") as caught:
        e1000.link(BASE, lambda name: None if name in missing else _anywhere(name))
    assert caught.value.symbols == ("napi_enable", "register_netdev")


def _as_weak(data: bytes, patch: Patch, name: str) -> bytes:
    table = ELFFile(io.BytesIO(data)).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    number = next(number for number, symbol in enumerate(table.iter_symbols()) if symbol.name == name)
    weak = 2
    return patch(data, ".symtab", number * 24 + 4, bytes([weak << 4]))


def test_a_weak_symbol_that_nobody_serves_is_zero(e1000_bytes: bytes, patch: Patch) -> None:
    module = ModuleFile.parse(_as_weak(e1000_bytes, patch, "param_ops_int"), "e1000")
    assert [item.name for item in module.imports if item.weak] == ["param_ops_int"]
    linked = module.link(BASE, lambda name: None if name == "param_ops_int" else _anywhere(name))
    section = module.section("__param")
    assert section is not None
    ops = section.offset + 16
    assert linked.image[ops : ops + 8] == bytes(8)


def _relocation(data: bytes, table: str, kind: str) -> tuple[int, int, int, int]:
    """The first relocation of a kind: its number, offset, info and addend."""
    section = ELFFile(io.BytesIO(data)).get_section_by_name(table)
    assert section is not None
    rows = RELA.iter_unpack(section.data())
    return next((number, *row) for number, row in enumerate(rows) if row[1] & 0xFFFFFFFF == KINDS[kind])


def test_a_base_too_far_from_the_imports(e1000: ModuleFile) -> None:
    with pytest.raises(RelocationOutOfRange, match="2 GiB") as caught:
        e1000.link(1 << 40, _anywhere)
    assert caught.value.section == ".text"


@pytest.mark.parametrize(
    ("kind", "addend"), [("PC32", 1 << 32), ("PLT32", -1 << 32), ("32S", 1 << 31), ("32S", -1 << 40)]
)
def test_a_relocation_out_of_range_is_named(e1000_bytes: bytes, patch: Patch, kind: str, addend: int) -> None:
    number, offset, info, _ = _relocation(e1000_bytes, ".rela.text", kind)
    entry = RELA.pack(offset, info, addend)
    module = ModuleFile.parse(patch(e1000_bytes, ".rela.text", number * RELA.size, entry), "e1000")
    with pytest.raises(RelocationOutOfRange) as caught:
        module.link(BASE, _anywhere)
    assert (caught.value.section, caught.value.offset) == (".text", offset)
    assert caught.value.symbol == module.symbol_name(info >> 32) != ""
    assert f"R_X86_64_{kind} to {caught.value.symbol}" in str(caught.value)
    assert f"(.text+{offset:#x})" in str(caught.value)


@pytest.mark.parametrize(("value", "fits"), [(0, True), ((1 << 32) - 1, True), (1 << 32, False), (-1, False)])
def test_an_unsigned_32_bit_field(e1000_bytes: bytes, patch: Patch, value: int, fits: bool) -> None:
    number, offset, _, _ = _relocation(e1000_bytes, ".rela.text", "32S")
    null_symbol, absolute = 0, 0xFFF1
    entry = RELA.pack(offset, null_symbol << 32 | KINDS["32"], 0)
    data = patch(e1000_bytes, ".rela.text", number * RELA.size, entry)
    module = ModuleFile.parse(
        patch(data, ".symtab", null_symbol * 24 + 6, struct.pack("<HQ", absolute, value % (1 << 64))), "e1000"
    )
    if not fits:
        with pytest.raises(RelocationOutOfRange, match="R_X86_64_32 to symbol 0 "):
            module.link(BASE, _anywhere)
        return
    section = module.section(".text")
    assert section is not None
    at = section.offset + offset
    assert int.from_bytes(module.link(BASE, _anywhere).image[at : at + 4], "little") == value


def test_an_unknown_kind_of_relocation(e1000_bytes: bytes, patch: Patch) -> None:
    number, offset, info, addend = _relocation(e1000_bytes, ".rela.text", "PC32")
    gotpcrel = 9
    entry = RELA.pack(offset, (info >> 32) << 32 | gotpcrel, addend)
    module = ModuleFile.parse(patch(e1000_bytes, ".rela.text", number * RELA.size, entry), "e1000")
    with pytest.raises(UnsupportedRelocation, match="kind 9") as caught:
        module.link(BASE, _anywhere)
    assert (caught.value.section, caught.value.offset, caught.value.kind) == (".text", offset, gotpcrel)


@pytest.mark.parametrize(("offset", "symbol"), [(1 << 62, 1), (0, 1 << 30)])
def test_a_relocation_that_leads_nowhere(e1000_bytes: bytes, patch: Patch, offset: int, symbol: int) -> None:
    entry = RELA.pack(offset, symbol << 32 | KINDS["64"], 0)
    module = ModuleFile.parse(patch(e1000_bytes, ".rela.data", 0, entry), "e1000")
    with pytest.raises(CorruptModule, match="outside its section, or its symbol"):
        module.link(BASE, _anywhere)


def test_no_relocation_at_all(e1000_bytes: bytes, patch: Patch) -> None:
    number, offset, _, _ = _relocation(e1000_bytes, ".rela.data", "64")
    untouched = ModuleFile.parse(
        patch(e1000_bytes, ".rela.data", number * RELA.size, RELA.pack(offset, 0, 0)), "e1000"
    )
    section = untouched.section(".data")
    assert section is not None
    at = section.offset + offset
    assert untouched.link(BASE, _anywhere).image[at : at + 8] == section.content[offset : offset + 8]
