"""Debian's own kernels, fetched by apt from Debian's mirror.

Independent side: everything that is read here is Debian's; pyelftools says what it is.
"""

from __future__ import annotations

import io
import re

import pytest
from elftools.elf.elffile import ELFFile

from vmklinux.kernels import Kernel, ModuleNotFound, fetch, find, kernels, read_module


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_fetch_brings_it_into_the_cache(series: str) -> None:
    kernel = fetch(series)
    assert kernel.release.startswith(f"{series}.")
    assert kernel.usable
    assert kernel in kernels()
    assert find(series).usable
    assert not list(kernel.path.parent.glob(".fetch-*"))


def test_its_image_is_linux(kernel: Kernel) -> None:
    vmlinux = kernel.vmlinux()
    elf = ELFFile(io.BytesIO(vmlinux))
    assert (elf["e_machine"], elf["e_type"]) == ("EM_X86_64", "ET_EXEC")
    assert f"Linux version {kernel.release} (".encode() in vmlinux
    assert elf.get_section_by_name(".BTF") is not None


@pytest.mark.parametrize("name", ["e1000", "megaraid_sas", "scsi-transport-spi"])
def test_its_modules_are_modules_of_that_release(kernel: Kernel, name: str) -> None:
    elf = ELFFile(io.BytesIO(read_module(kernel.find_module(name))))
    assert (elf["e_machine"], elf["e_type"]) == ("EM_X86_64", "ET_REL")
    section = elf.get_section_by_name(".modinfo")
    assert section is not None
    modinfo = section.data().split(b"\0")
    assert f"name={name.replace('-', '_')}".encode() in modinfo
    assert any(line.startswith(f"vermagic={kernel.release} ".encode()) for line in modinfo)


def test_its_ethernet_drivers(kernel: Kernel) -> None:
    modules = kernel.modules_under("drivers/net/ethernet")
    assert len(modules) > 100
    assert kernel.find_module("e1000") in modules
    with pytest.raises(ModuleNotFound, match=f"kernel {re.escape(kernel.release)} has no module e10000"):
        kernel.find_module("e10000")
