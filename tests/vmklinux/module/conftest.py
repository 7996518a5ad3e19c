"""Fixtures for the module tests: Debian's own modules, 6.1's types, and a way to damage a module."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from vmklinux.btf import Btf
from vmklinux.image import prepare
from vmklinux.kernels import Kernel, read_module
from vmklinux.module.elf import ModuleFile


@pytest.fixture(scope="session")
def e1000_bytes(kernel: Kernel) -> bytes:
    """That kernel's e1000.ko, decompressed."""
    return read_module(kernel.find_module("e1000"))


@pytest.fixture(scope="session")
def e1000(kernel: Kernel) -> ModuleFile:
    """That kernel's e1000.ko, read from its file."""
    return ModuleFile.read(kernel.find_module("e1000"))


@pytest.fixture(scope="session")
def patch() -> Callable[[bytes, str, int, bytes], bytes]:
    """Gives a module with other bytes at an offset of one of its sections."""

    def apply(data: bytes, section: str, offset: int, content: bytes) -> bytes:
        header = ELFFile(io.BytesIO(data)).get_section_by_name(section)
        assert header is not None
        start = header["sh_offset"] + offset
        return data[:start] + content + data[start + len(content) :]

    return apply


@pytest.fixture(scope="session")
def rename_section() -> Callable[[bytes, str, str], bytes]:
    """Gives a module one of whose sections has another name of the same length."""

    def apply(data: bytes, name: str, other: str) -> bytes:
        assert len(name) == len(other)
        elf = ELFFile(io.BytesIO(data))
        strings = elf.get_section(elf["e_shstrndx"])
        start = strings["sh_offset"] + strings.data().index(name.encode() + b"\0")
        return data[:start] + other.encode() + data[start + len(name) :]

    return apply


@pytest.fixture(scope="session")
def types61(kernel61: Kernel, images: Path) -> Btf:
    """The types of the 6.1 kernel."""
    return prepare(kernel61, images).btf
