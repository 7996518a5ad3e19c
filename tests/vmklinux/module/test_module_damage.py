"""Damaged modules end in one of our errors, or still are modules. Independent side: Debian's modules."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmklinux.btf import Btf
from vmklinux.kernels import Kernel, read_module
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import CorruptModule, ModuleError
from vmklinux.module.modinfo import check_vermagic, check_versions
from vmklinux.module.param import parameters
from vmklinux.module.scan import scan

ELF_HEADER = (0, 64)

Patch = Callable[[bytes, str, int, bytes], bytes]


def _regions(data: bytes) -> list[tuple[int, int]]:
    """Where the file's structure is: (start, size) of the headers and of each section."""
    elf = ELFFile(io.BytesIO(data))
    headers = (elf["e_shoff"], elf["e_shnum"] * 64)
    sections = [
        (section["sh_offset"], section["sh_size"])
        for section in elf.iter_sections()
        if section["sh_size"] and section["sh_type"] != "SHT_NOBITS"
    ]
    return [ELF_HEADER, headers, *sections]


def _use(data: bytes, types: Btf, release: str) -> None:
    """All that the loader does with a file before it runs it."""
    module = ModuleFile.parse(data, "damaged")
    check_vermagic(module, release)
    check_versions(module, lambda _name: None)
    assert module.exports is not None
    parameters(module, types)
    module.link(0x60000000, lambda _name: 0x41000000)


SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@pytest.mark.parametrize("name", ["e1000", "mii"])
@given(data=st.data())
def test_changed_bytes(kernel61: Kernel, types61: Btf, name: str, data: st.DataObject) -> None:
    content = bytearray(read_module(kernel61.find_module(name)))
    regions = _regions(bytes(content))
    for _ in range(data.draw(st.integers(1, 6))):
        start, size = data.draw(st.sampled_from(regions[:2]) | st.sampled_from(regions))
        at = start + data.draw(st.integers(0, size - 1))
        content[at] = data.draw(st.integers(0, 255) | st.sampled_from([0, 0x7F, 0x80, 0xFF]))
    with suppress(ModuleError):
        _use(bytes(content), types61, kernel61.release)


@SETTINGS
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file(kernel61: Kernel, types61: Btf, part: float) -> None:
    content = read_module(kernel61.find_module("e1000"))
    end = max(start + size for start, size in _regions(content))  # a signature follows
    with pytest.raises(CorruptModule):
        _use(content[: int(part * end)], types61, kernel61.release)


@SETTINGS
@given(content=st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    with pytest.raises(ModuleError):
        ModuleFile.parse(b"\x7fELF\x02\x01\x01" + content, "noise")
    with pytest.raises(ModuleError):
        ModuleFile.parse(content, "noise")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(code=st.binary(min_size=64, max_size=64), at=st.integers(0, 60000))
def test_any_code_can_be_scanned(kernel61: Kernel, patch: Patch, code: bytes, at: int) -> None:
    content = patch(read_module(kernel61.find_module("e1000")), ".text", at, code)
    module = ModuleFile.parse(content, "e1000")
    assert all(0 <= finding.offset < 0x20000 for finding in scan(module))
