"""Module files and boot images, whole and damaged.

Independent side: xz, gzip and zstd, the command-line tools, compress what is read here.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmklinux.kernels.kernel_trees import COMPRESSORS, ELF, boot_image, compress, vmlinuz
from vmklinux.kernels import BadKernelImage, BadModuleFile, ModuleNotFound, read_module, read_vmlinux
from vmklinux.kernels.compressed import check_vmlinuz

MODULE = ELF + random.Random(1).randbytes(100_000)
TOOLS = sorted(COMPRESSORS)
WHOLE = vmlinuz()


def test_a_plain_module_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "e1000.ko"
    path.write_bytes(MODULE)
    assert read_module(path) == MODULE


@pytest.mark.parametrize("tool", TOOLS)
def test_a_compressed_module_is_read_whatever_its_name(tmp_path: Path, tool: str) -> None:
    path = tmp_path / "e1000.ko"
    path.write_bytes(compress(tool, MODULE))
    assert read_module(path) == MODULE


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("part", [0.3, 0.99])
def test_a_truncated_module_is_told(tmp_path: Path, tool: str, part: float) -> None:
    whole = compress(tool, MODULE)
    path = tmp_path / "e1000.ko.xz"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BadModuleFile, match=r"truncated.*e1000\.ko\.xz"):
        read_module(path)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_damaged_header_is_told(tmp_path: Path, tool: str) -> None:
    whole = bytearray(compress(tool, MODULE))
    whole[6:30] = bytes(24)
    path = tmp_path / "e1000.ko"
    path.write_bytes(whole)
    with pytest.raises(BadModuleFile):
        read_module(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not compressed with xz, gzip, zstd"),
        (b"!<arch>\n", "not compressed with xz, gzip, zstd"),
        (b"\x02\x21\x4c\x18" + bytes(9), "compressed with lz4; only xz, gzip, zstd can be read"),
    ],
)
def test_what_is_no_module_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "e1000.ko"
    path.write_bytes(content)
    with pytest.raises(BadModuleFile, match=says):
        read_module(path)


def test_a_compressed_file_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "e1000.ko.gz"
    path.write_bytes(compress("gzip", b"text"))
    with pytest.raises(BadModuleFile, match="no ELF object"):
        read_module(path)


def test_bytes_behind_the_stream_are_told(tmp_path: Path) -> None:
    path = tmp_path / "e1000.ko.xz"
    path.write_bytes(compress("xz", MODULE) + b"more")
    with pytest.raises(BadModuleFile, match="4 bytes follow"):
        read_module(path)


def test_no_file_and_a_directory_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFound, match="absent"):
        read_module(tmp_path / "absent.ko")
    with pytest.raises(BadModuleFile, match="cannot be read"):
        read_module(tmp_path)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_kernel_in_a_vmlinuz_is_read(tmp_path: Path, tool: str) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(vmlinuz(MODULE, tool))
    check_vmlinuz(path)
    assert read_vmlinux(path) == MODULE


def test_no_setup_sectors_mean_four(tmp_path: Path) -> None:
    image = bytearray(boot_image(compress("xz", ELF) + struct.pack("<I", len(ELF)), setup_sects=4))
    image[0x1F1] = 0
    path = tmp_path / "vmlinuz"
    path.write_bytes(image)
    assert read_vmlinux(path) == ELF


BAD_IMAGES = {
    "empty": (b"", "not an x86 boot image"),
    "arm64": (b"MZ" + bytes(0x36) + b"ARM\x64" + bytes(4096), "not an x86 boot image"),
    "i386": (boot_image(b"", xloadflags=0), "not an x86-64 kernel"),
    "old protocol": (boot_image(b"", protocol=0x0208), "not an x86-64 kernel"),
    "truncated": (vmlinuz(MODULE)[:5000], "truncated"),
    "lz4": (boot_image(b"\x02\x21\x4c\x18" + bytes(64)), "compressed with lz4; only xz, gzip, zstd"),
    "unknown": (boot_image(b"whatever it is"), "not compressed with xz, gzip, zstd"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_told_at_a_glance_and_when_read(tmp_path: Path, name: str) -> None:
    content, says = BAD_IMAGES[name]
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    with pytest.raises(BadKernelImage, match=says):
        check_vmlinuz(path)
    with pytest.raises(BadKernelImage, match=says):
        read_vmlinux(path)


def test_a_size_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(boot_image(compress("xz", ELF) + struct.pack("<I", len(ELF) + 1)))
    with pytest.raises(BadKernelImage, match="size that it states"):
        read_vmlinux(path)


def test_a_payload_that_is_no_elf_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(vmlinuz(b"text"))
    with pytest.raises(BadKernelImage, match="no ELF file"):
        read_vmlinux(path)


def test_an_absent_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadKernelImage, match="cannot be read: No such file"):
        read_vmlinux(tmp_path / "vmlinuz")


@given(position=st.integers(0, 1500), value=st.integers(0, 255))
def test_any_changed_byte_gives_the_kernel_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    image = bytearray(WHOLE)
    image[position % len(image)] = value
    path = tmp_path_factory.getbasetemp() / "changed-vmlinuz"
    path.write_bytes(image)
    try:
        found = read_vmlinux(path)
    except BadKernelImage:
        return
    assert found == ELF
