"""Parsing of modules. Independent side: Debian's modules, and pyelftools' own symbol tables."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from vmklinux.kernels import Kernel
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import (
    CorruptModule,
    NoBtf,
    SymbolVersionMismatch,
    TruncatedModule,
    WrongArchitecture,
    WrongKernel,
)
from vmklinux.module.layout import NOT_LOADED, PAGE
from vmklinux.module.modinfo import check_vermagic, check_versions

E_MACHINE = 18
E_SHOFF = 40


def _symbols(data: bytes) -> list[tuple[str, str | int, int]]:
    table = ELFFile(io.BytesIO(data)).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    return [
        (symbol.name, symbol["st_shndx"], symbol["st_value"])
        for symbol in table.iter_symbols()
        if symbol["st_info"]["type"] != "STT_SECTION"
    ]


def test_symbols_are_those_that_pyelftools_finds(e1000: ModuleFile, e1000_bytes: bytes) -> None:
    named = {"SHN_UNDEF": 0, "SHN_ABS": 0xFFF1}
    expected = [
        (name, named[at] if isinstance(at, str) else at, value) for name, at, value in _symbols(e1000_bytes)
    ]
    assert [(s.name, s.section, s.value) for s in e1000.symbols if s.type != 3] == expected


def test_every_import_is_undefined_and_has_a_crc(e1000: ModuleFile, e1000_bytes: bytes) -> None:
    undefined = [name for name, at, _ in _symbols(e1000_bytes) if at == "SHN_UNDEF" and name]
    assert [item.name for item in e1000.imports] == undefined
    assert len(undefined) > 140
    assert all(item.crc is not None and not item.weak for item in e1000.imports)


def test_what_e1000_says_about_itself(e1000: ModuleFile, kernel: Kernel) -> None:
    assert e1000.name == "e1000"
    assert e1000.info.license == "GPL v2"
    assert e1000.info.depends == ()
    assert "pci:v00008086d0000100Esv*sd*bc*sc*i*" in e1000.info.aliases
    assert e1000.info.parameters["debug"] == "Debug level (0=none,...,16=all)"
    assert e1000.info.parameter_types["Speed"] == "array of int"
    assert e1000.info.built_for == kernel.release
    check_vermagic(e1000, kernel.release)


def test_dependencies_firmware_and_namespaces(kernel: Kernel) -> None:
    assert "scsi_transport_fc" in ModuleFile.read(kernel.find_module("lpfc")).info.depends
    assert "e100/d101m_ucode.bin" in ModuleFile.read(kernel.find_module("e100")).info.firmware


def test_the_layout_has_text_first_and_no_overlaps(e1000: ModuleFile) -> None:
    layout = e1000.layout
    assert [group.name for group in layout.groups] == ["text", "rodata", "data"]
    assert all(group.offset % PAGE == 0 and group.size % PAGE == 0 for group in layout.groups)
    assert layout.size == sum(group.size for group in layout.groups)
    end = 0
    for section in layout.sections:
        assert section.offset >= end
        assert section.offset % section.alignment == 0
        end = section.offset + section.size
    text = layout.groups[0]
    for section in layout.sections:
        assert section.executable == (section.offset < text.size), section.name
    names = {section.name for section in layout.sections}
    assert {".text", ".init.text", ".bss", "__bug_table", ".gnu.linkonce.this_module"} <= names
    assert not names & NOT_LOADED.keys()
    assert e1000.bug_table is not None
    assert e1000.bug_table.size % 12 == 0
    assert e1000.this_module.size > 0


def test_the_per_cpu_template_is_not_part_of_the_layout(kernel: Kernel) -> None:
    module = ModuleFile.read(kernel.find_module("bnx2i"))
    assert module.percpu is not None
    assert module.percpu.size == 32
    assert module.percpu.name not in {section.name for section in module.layout.sections}


def test_exports_agree_with_what_their_importer_was_compiled_against(kernel: Kernel) -> None:
    mii = ModuleFile.read(kernel.find_module("mii"))
    expected = ModuleFile.read(kernel.find_module("e100")).versions
    shared = mii.exports.keys() & expected.keys()
    assert {"mii_ethtool_get_link_ksettings", "generic_mii_ioctl"} <= shared
    for name in shared:
        assert mii.exports[name].crc == expected[name]
        assert not mii.exports[name].gpl
    places = {symbol.name: (symbol.section, symbol.value) for symbol in mii.symbols}
    for name, export in mii.exports.items():
        assert places[name] == (export.section, export.value)


def test_gpl_exports(kernel: Kernel) -> None:
    exports = ModuleFile.read(kernel.find_module("libiscsi")).exports
    assert exports["iscsi_host_add"].gpl
    assert len(exports) > 40


def test_btf(e1000: ModuleFile) -> None:
    assert e1000.btf[:2] == b"\x9f\xeb"


def test_no_btf(e1000_bytes: bytes, rename_section: Callable[[bytes, str, str], bytes]) -> None:
    module = ModuleFile.parse(rename_section(e1000_bytes, ".BTF", ".XXX"), "e1000")
    with pytest.raises(NoBtf, match="module e1000: has no BTF"):
        _ = module.btf


def test_an_object_file_that_is_no_module(
    e1000_bytes: bytes, rename_section: Callable[[bytes, str, str], bytes]
) -> None:
    data = rename_section(e1000_bytes, ".gnu.linkonce.this_module", ".gnu.linkonce.that_module")
    with pytest.raises(CorruptModule, match="no Linux module"):
        ModuleFile.parse(data, "other")


@pytest.mark.parametrize(("machine", "name"), [(183, "EM_AARCH64"), (3, "EM_386"), (243, "EM_RISCV")])
def test_wrong_architecture(e1000_bytes: bytes, machine: int, name: str) -> None:
    data = e1000_bytes[:E_MACHINE] + machine.to_bytes(2, "little") + e1000_bytes[E_MACHINE + 2 :]
    with pytest.raises(WrongArchitecture, match=f"module e1000: is for {name}.*not for x86-64") as caught:
        ModuleFile.parse(data, "e1000")
    assert "amd64" in str(caught.value)


def test_a_program_is_no_module() -> None:
    with pytest.raises(CorruptModule, match="not a relocatable object"):
        ModuleFile.parse(Path(sys.executable).read_bytes(), "python")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"x" * 63])
def test_too_short_for_a_header(data: bytes) -> None:
    with pytest.raises(TruncatedModule, match="ELF header"):
        ModuleFile.parse(data, "short")


def test_not_elf() -> None:
    with pytest.raises(CorruptModule, match="not a readable ELF file"):
        ModuleFile.parse(b"#!/bin/sh\n" * 100, "script")


def test_section_headers_beyond_the_end(e1000_bytes: bytes) -> None:
    data = e1000_bytes[:E_SHOFF] + (1 << 63).to_bytes(8, "little") + e1000_bytes[E_SHOFF + 8 :]
    with pytest.raises(CorruptModule):
        ModuleFile.parse(data, "e1000")


def test_half_a_file_says_how_much_is_missing(e1000_bytes: bytes) -> None:
    with pytest.raises(TruncatedModule, match=f"ends at byte {len(e1000_bytes) // 2} "):
        ModuleFile.parse(e1000_bytes[: len(e1000_bytes) // 2], "e1000")


def test_a_module_of_another_kernel(kernel61: Kernel, kernel612: Kernel) -> None:
    module = ModuleFile.read(kernel61.find_module("e1000"))
    with pytest.raises(WrongKernel) as caught:
        check_vermagic(module, kernel612.release)
    assert kernel61.release in str(caught.value)
    assert kernel612.release in str(caught.value)


def test_a_module_that_does_not_say_its_kernel(
    e1000_bytes: bytes, rename_section: Callable[[bytes, str, str], bytes]
) -> None:
    module = ModuleFile.parse(rename_section(e1000_bytes, ".modinfo", ".nodinfo"), "e1000")
    with pytest.raises(CorruptModule, match="does not say which kernel"):
        check_vermagic(module, "6.1")


def test_symbol_versions(e1000: ModuleFile) -> None:
    there = dict(e1000.versions)
    assert "module_layout" in there
    check_versions(e1000, there.get)
    del there["register_netdev"]
    check_versions(e1000, there.get)
    there["module_layout"] ^= 1
    there["consume_skb"] ^= 0x80000000
    with pytest.raises(SymbolVersionMismatch, match="consume_skb") as caught:
        check_versions(e1000, there.get)
    assert caught.value.symbols.keys() == {"module_layout", "consume_skb"}
    wanted, found = caught.value.symbols["consume_skb"]
    assert wanted == found ^ 0x80000000
