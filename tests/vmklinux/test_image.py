"""The kernel image as a library.

Independent: the images are Debian's kernels'. Their own code is run, in a child process, and its results
are compared with Python's; the symbol checksums are compared with those that Debian's build wrote into
e1000.ko.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from elftools.elf.elffile import ELFFile

from vmklinux.image import (
    BASE,
    CacheNotWritable,
    Image,
    NoBtf,
    NotAnImage,
    NotRelocatable,
    prepare,
)
from vmklinux.kernels import Kernel, read_module

if TYPE_CHECKING:
    from collections.abc import Callable

# Maps an image as the library does, points GS at a per-CPU area, and runs two functions of the kernel's.
RUN = r"""
import ctypes as C, json, os, sys
memory, percpu, base, size, snprintf, crc32_le = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
libc = C.CDLL(None, use_errno=True)
libc.mmap.restype = C.c_void_p
libc.mmap.argtypes = [C.c_void_p, C.c_size_t, C.c_int, C.c_int, C.c_int, C.c_long]
MAP_PRIVATE, MAP_FIXED_NOREPLACE = 2, 0x100000
assert libc.mmap(base, size, 7, MAP_PRIVATE | MAP_FIXED_NOREPLACE, os.open(memory, os.O_RDONLY), 0) == base
with open(percpu, "rb") as file:
    area = C.create_string_buffer(file.read())
ARCH_PRCTL, ARCH_SET_GS = 158, 0x1001
assert libc.syscall(ARCH_PRCTL, ARCH_SET_GS, C.c_ulong(C.addressof(area))) == 0
out, mac = C.create_string_buffer(100), C.create_string_buffer(bytes.fromhex("525400abcdef"))
function = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_size_t, C.c_char_p, C.c_void_p, C.c_int, C.c_char_p)(snprintf)
length = function(out, 100, b"%pM %#x %s", mac, 0xBEEF, b"text")
data = bytes(range(256)) * 10
crc = C.CFUNCTYPE(C.c_uint32, C.c_uint32, C.c_char_p, C.c_size_t)(crc32_le)(0xFFFFFFFF, data, len(data))
print(json.dumps([length, out.value.decode(), crc]))
"""


@dataclass(frozen=True)
class Given(Kernel):
    """A kernel whose decompressed image is given; counts how often it is asked for."""

    raw: bytes
    asked: list[int]

    def vmlinux(self) -> bytes:
        self.asked.append(1)
        return self.raw


@pytest.fixture(scope="module")
def raw612(kernel612: Kernel) -> bytes:
    return kernel612.vmlinux()


@pytest.fixture
def given(kernel612: Kernel, raw612: bytes, tmp_path: Path) -> Callable[..., Given]:
    """Makes a kernel like Debian's 6.12, changed as told, with a vmlinuz of its own."""

    def make(change: Callable[[bytes, int], bytes] = lambda raw, end: raw) -> Given:
        values = {field.name: getattr(kernel612, field.name) for field in fields(Kernel)}
        vmlinuz = tmp_path / "vmlinuz"
        vmlinuz.write_bytes(b"")
        return Given(**values | {"vmlinuz": vmlinuz}, raw=change(raw612, _elf_end(raw612)), asked=[])

    return make


def test_the_kernels_own_code_runs(image: Image) -> None:
    places = (image.base, image.size, image.symbols["snprintf"], image.symbols["crc32_le"])
    files = (str(image.files.memory), str(image.files.percpu))
    command = [sys.executable, "-c", RUN, *files, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    text = "52:54:00:ab:cd:ef 0xbeef text"
    assert json.loads(done.stdout) == [len(text), text, zlib.crc32(bytes(range(256)) * 10) ^ 0xFFFFFFFF]


def test_checksums_are_those_that_a_module_was_built_with(kernel: Kernel, image: Image) -> None:
    module: Any = ELFFile(io.BytesIO(read_module(kernel.find_module("e1000"))))
    wanted = {
        name.rstrip(b"\0").decode(): crc
        for crc, name in struct.iter_unpack("<Q56s", module.get_section_by_name("__versions").data())
    }
    assert len(wanted) > 100
    assert {name: image.crcs[name] for name in wanted} == wanted


def test_symbols(image: Image) -> None:
    assert len(image.symbols) > 10000
    assert image.symbols.keys() == image.crcs.keys()
    text = image.sections[".text"]
    assert text.address == BASE
    for name in ("snprintf", "crc32_le", "skb_put", "ethtool_op_get_link"):
        assert text.address <= image.symbols[name] < text.address + text.size
    assert {"device_add", "dev_set_name"} <= image.gpl_only  # EXPORT_SYMBOL_GPL
    assert not {"snprintf", "kfree", "__pci_register_driver"} & image.gpl_only
    addresses = image.symbols.values()
    assert all(place < image.percpu_size or BASE <= place <= BASE + image.size for place in addresses)


def test_per_cpu_symbols_are_offsets(image: Image) -> None:
    assert image.symbols["fixed_percpu_data"] == 0
    assert 0 < image.symbols["this_cpu_off"] < image.percpu_size
    percpu = image.files.percpu.read_bytes()
    assert len(percpu) == image.percpu_size
    # The initial task, which the per-CPU data points at by a 64-bit relocation.
    if "pcpu_hot" in image.symbols:  # from 6.2 to 6.13
        assert image.btf.sizeof("pcpu_hot") == 64
        place = image.symbols["pcpu_hot"] + image.btf.offsetof("pcpu_hot", "current_task")
    else:
        place = image.symbols["current_task"]
    (task,) = struct.unpack_from("<Q", percpu, place)
    command = _bytes(image, task + image.btf.offsetof("task_struct", "comm"), 8)
    assert command == b"swapper\0"


def _bytes(image: Image, address: int, size: int) -> bytes:
    with image.files.memory.open("rb") as file:
        return os.pread(file.fileno(), size, address - image.base)


def test_the_memory_file_is_what_is_mapped(image: Image, kernel: Kernel) -> None:
    assert image.size % 4096 == 0
    status = image.files.memory.stat()
    assert status.st_size == image.size
    assert status.st_blocks * 512 < image.size
    # Data that needs relocation: a pointer to a string, which begins with the release.
    assert _bytes(image, image.symbols["init_uts_ns"], 2000).find(kernel.release.encode()) > 0
    rodata = image.sections[".rodata"]
    assert f"Linux version {kernel.release} ".encode() in _bytes(image, rodata.address, rodata.size)


def test_bugs(image: Image) -> None:
    bugs = image.bugs()
    assert len(bugs) > 5000
    assert len(bugs) * image.btf.sizeof("bug_entry") == image.sections["__bug_table"].size
    memory = image.files.memory.read_bytes()
    for bug in bugs:
        place, file = bug.address - image.base, bug.file - image.base
        assert memory[place : place + 2] == b"\x0f\x0b"  # ud2
        assert memory[file : memory.index(0, file)].decode().endswith((".c", ".h"))
        assert bug.line > 0


def test_exception_table_leads_to_code(image: Image) -> None:
    table = image.sections["__ex_table"]
    code = [image.sections[name] for name in (".text", ".init.text")]
    # struct exception_table_entry: insn and fixup, relative to themselves, and data; sorted by the build.
    entries = list(struct.iter_unpack("<iiI", _bytes(image, table.address, table.size)))
    places = [table.address + 12 * number + insn for number, (insn, _, _) in enumerate(entries)]
    assert all(before <= after for before, after in pairwise(places))
    assert all(any(s.address <= place < s.address + s.size for s in code) for place in places)


def test_the_types_come_from_the_cache(image: Image) -> None:
    assert image.btf is image.btf
    assert image.btf.origin == f"kernel {image.release}"
    assert image.files.btf.read_bytes() == _bytes(
        image, image.sections[".BTF"].address, image.sections[".BTF"].size
    )


def test_a_kept_image_is_not_made_again(given: Callable[..., Given], tmp_path: Path) -> None:
    kernel, cache = given(), tmp_path / "cache"
    first = prepare(kernel, cache)
    again = prepare(kernel, cache)
    assert len(kernel.asked) == 1
    assert again.symbols == first.symbols
    assert again.sections == first.sections
    assert [path.name for path in cache.iterdir()] == [first.directory.name]
    os.utime(kernel.vmlinuz, ns=(0, 12345))
    other = prepare(kernel, cache)
    assert len(kernel.asked) == 2
    assert other.directory != first.directory


@pytest.mark.parametrize("name", ["memory", "percpu", "btf", "btf_index", "meta"])
@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_damaged_cache_is_made_again(
    kernel612: Kernel, images: Path, tmp_path: Path, name: str, damage: str
) -> None:
    good = prepare(kernel612, images)
    whole = getattr(good.files, name).read_bytes()
    directory = shutil.copytree(good.directory, tmp_path / good.directory.name)
    file = directory / getattr(good.files, name).name
    if damage == "gone":
        file.unlink()
    else:
        os.truncate(file, len(whole) // 2)
    assert prepare(kernel612, tmp_path).directory == directory
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [directory]


def test_several_may_make_it_at_once(given: Callable[..., Given], tmp_path: Path) -> None:
    kernel, cache = given(), tmp_path / "cache"
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(lambda _: prepare(kernel, cache), range(2)))
    assert images[0].symbols == images[1].symbols
    assert [path.name for path in cache.iterdir()] == [images[0].directory.name]
    assert prepare(kernel, cache).btf.sizeof("u64") == 8


def _elf_end(raw: bytes) -> int:
    """Where Debian's vmlinux ends and the relocation table begins: behind the section headers."""
    elf = ELFFile(io.BytesIO(raw))
    end: int = elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"]
    return end


def _patched(raw: bytes, place: int, data: bytes) -> bytes:
    return raw[:place] + data + raw[place + len(data) :]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda raw, end: b"", NotAnImage, "not an ELF file"),
        (lambda raw, end: b"MZ" + bytes(1000), NotAnImage, "not an ELF file"),
        (lambda raw, end: raw[: end // 2], NotAnImage, "not a usable kernel image"),
        (lambda raw, end: raw[: end - 8], NotAnImage, "not a usable kernel image"),
        (lambda raw, end: _patched(raw, 18, b"\xb7\0"), NotAnImage, "for EM_AARCH64, not for x86-64"),
        (lambda raw, end: raw[:end], NotRelocatable, "no relocation table"),
        (lambda raw, end: raw[:-1], NotRelocatable, "not whole words"),
        (lambda raw, end: _patched(raw, end + 400, bytes(4)), NotRelocatable, "4 lists instead of 3"),
        (lambda raw, end: raw[: end + 4096], NotRelocatable, "1 lists instead of 3"),
        (lambda raw, end: raw[:end] + bytes(12), NotRelocatable, "is empty"),
        (
            lambda raw, end: _patched(raw, end + 400, struct.pack("<I", 0x80000000)),
            NotRelocatable,
            "names 0xffffffff80000000, outside of it",
        ),
        (lambda raw, end: raw.replace(b"\0.BTF\0", b"\0.XTF\0"), NoBtf, "no type information"),
    ],
)
def test_what_is_no_usable_image(
    given: Callable[..., Given],
    tmp_path: Path,
    change: Callable[[bytes, int], bytes],
    error: type[Exception],
    message: str,
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(error, match=message):
        prepare(given(change), cache)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(given: Callable[..., Given], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(CacheNotWritable, match="choose another cache directory"):
        prepare(given(), tmp_path / "cache" / "images")
