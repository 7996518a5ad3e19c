"""The kernel image as a library: a vmlinux relocated below 2 GiB, and kept as files that every process maps.

Layout of a decompressed kernel (Linux arch/x86/kernel/vmlinux.lds.S, arch/x86/tools/relocs.c): an ELF file,
linked at 0xffffffff81000000, and behind it a table of 32-bit words, which KASLR uses. Read from its end
backwards the table has the addresses of 32-bit words to relocate, a zero, those of 32-bit words to relocate
the other way (per-CPU), a zero, those of 64-bit words, a zero. An address is sign-extended, and always says
where the word is loaded: per-CPU data is linked at 0, but loaded inside the image.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import struct
import tempfile
from array import array
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from vmkernel_core.errors import VmkError
from vmklinux import kallsyms
from vmklinux.btf import Btf
from vmklinux.kallsyms import Kallsyms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmklinux.kernels import Kernel

log = logging.getLogger(__name__)

#: Where the image runs: in the low 2 GiB, where code of the kernel's code model finds it, and above the heap of a
#: program that lies at a fixed address, as Debian's python3 does: it begins up to 1 GiB behind it (arch_randomize_brk).
BASE = 0x51000000
PAGE_SIZE = 4096
#: Part of each cache directory's name; raise it when what is in there changes.
FORMAT = 3

_LINK_END = 1 << 64
#: Virtual minus physical address of the image (__START_KERNEL_map).
_START_KERNEL_MAP = 0xFFFFFFFF80000000
_WORD32 = struct.Struct("<I")
_WORD64 = struct.Struct("<Q")
_KSYM = struct.Struct("<iii")
_SHT_NOBITS = "SHT_NOBITS"
_SHF_ALLOC = 2
_CHUNK = 1 << 16


class ImageError(VmkError):
    """The kernel image cannot be used, or not be kept."""


class NotAnImage(ImageError):
    """The bytes are not an x86-64 vmlinux, or are cut off."""


class NotRelocatable(ImageError):
    """The kernel has no relocation table behind it, or one that does not fit it."""


class NoBtf(ImageError):
    """The kernel was built without BTF."""


class CacheNotWritable(ImageError):
    """The prepared image could not be written into the cache directory."""


class Section(msgspec.Struct, frozen=True):
    """Where a section is in this process, and its size in bytes."""

    address: int
    size: int


class Bug(msgspec.Struct, frozen=True):
    """A site of WARN or BUG: its code address, struct bug_entry's flags, and the source line.

    ``file`` is the address of the zero-terminated path of the source file.
    """

    address: int
    flags: int
    file: int
    line: int


class Meta(msgspec.Struct, frozen=True):
    """What is known of a prepared image."""

    release: str
    base: int
    #: Bytes of address space from ``base`` on: whole pages, the size of ``memory``.
    size: int
    #: Bytes of the per-CPU area.
    percpu_size: int
    #: Exported symbols: addresses; below ``percpu_size``, offsets into the per-CPU area.
    symbols: dict[str, int]
    #: Those of them that only GPL-compatible modules may use.
    gpl_only: frozenset[str]
    #: The checksum of each exported symbol's type (CONFIG_MODVERSIONS); empty when the kernel has none.
    crcs: dict[str, int]
    sections: dict[str, Section]


class _Kept(msgspec.Struct, frozen=True):
    """The file ``meta``; the sizes of the files beside it tell a truncated one."""

    meta: Meta
    file_sizes: dict[str, int]


_KEPT_DECODER = msgspec.msgpack.Decoder(_Kept)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a prepared image.

    ``memory`` is to be mapped, privately, at the image's base (it is sparse); ``percpu`` is what each CPU's
    area begins as.
    """

    memory: Path
    percpu: Path
    btf: Path
    btf_index: Path
    kallsyms: Path
    meta: Path


class Image(Meta, frozen=True, dict=True, kw_only=True):
    """A prepared kernel image in the cache directory ``directory``."""

    directory: Path

    @property
    def files(self) -> Files:
        """Where its files are."""
        return _files(self.directory)

    @cached_property
    def btf(self) -> Btf:
        """The kernel's types; read when they are first asked for."""
        return Btf(
            self.files.btf.read_bytes(),
            index=self.files.btf_index.read_bytes(),
            origin=f"kernel {self.release}",
        )

    @cached_property
    def kallsyms(self) -> Kallsyms:
        """Every symbol, exported or not; read when first asked for."""
        return Kallsyms(self.files.kallsyms.read_bytes())

    def bugs(self) -> list[Bug]:
        """The sites of WARN and BUG in the image."""
        table = self.sections["__bug_table"]
        with self.files.memory.open("rb") as file:
            data = os.pread(file.fileno(), table.size, table.address - self.base)
        return bug_entries(data, table.address, self.btf)


def bug_entries(table: bytes, address: int, types: Btf) -> list[Bug]:
    """The entries of a ``__bug_table`` that is at ``address``; NoSuchField when its layout is not known.

    struct bug_entry, as x86 has it: the code and the file are each given relative to their own field.
    """
    entry = types.struct("bug_entry")
    code, file, line, flags = (
        types.offsetof(entry, name) for name in ("bug_addr_disp", "file_disp", "line", "flags")
    )

    def word(place: int, size: int) -> int:
        return int.from_bytes(table[place : place + size], "little", signed=size == 4)

    return [
        Bug(
            address=address + start + code + word(start + code, 4),
            flags=word(start + flags, 2),
            file=address + start + file + word(start + file, 4),
            line=word(start + line, 2),
        )
        for start in range(0, len(table), entry.size)
    ]


def prepare(kernel: Kernel, cache_dir: Path) -> Image:
    """The kernel's image, from ``cache_dir`` when it is there, else made (about a second) and kept there.

    What is damaged there is made again. Raises NotAnImage, NotRelocatable, NoBtf, CacheNotWritable, and what
    ``kernel.vmlinux()`` raises.
    """
    try:
        status = kernel.vmlinuz.stat()
    except OSError as error:
        raise NotAnImage(f"cannot read the kernel: {error.strerror}", where=str(kernel.vmlinuz)) from error
    identity = f"{BASE} {status.st_size} {status.st_mtime_ns}".encode()
    name = f"{kernel.release}-v{FORMAT}-{blake2b(identity, digest_size=8).hexdigest()}"
    directory = cache_dir / name
    image = _load(directory)
    if image is not None:
        return image
    parts = _Vmlinux(kernel.vmlinux(), str(kernel.vmlinuz)).parts(kernel.release)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_dir))
        try:
            _write(parts, _files(work / "new"))
            _install(work, directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise CacheNotWritable(
            f"cannot keep the prepared image: {error.strerror}",
            where=str(directory),
            remedy="free some space (about 70 MB), or choose another cache directory",
        ) from error
    return Image(**msgspec.structs.asdict(parts.meta), directory=directory)


def _files(directory: Path) -> Files:
    return Files(
        memory=directory / "image.bin",
        percpu=directory / "percpu.bin",
        btf=directory / "btf",
        btf_index=directory / "btf.index",
        kallsyms=directory / "kallsyms",
        meta=directory / "meta",
    )


def _load(directory: Path) -> Image | None:
    """The image in that directory; None when there is none, or it is not whole."""
    try:
        kept = _KEPT_DECODER.decode(_files(directory).meta.read_bytes())
        sizes = {name: (directory / name).stat().st_size for name in kept.file_sizes}
    except (OSError, msgspec.DecodeError):
        return None
    if sizes != kept.file_sizes:
        return None
    return Image(**msgspec.structs.asdict(kept.meta), directory=directory)


def _install(work: Path, directory: Path) -> None:
    """Put ``work/new`` in the place of what is damaged there, if anything is."""
    if _load(directory) is not None:
        return  # Another process was quicker; what it made is the same.
    with suppress(FileNotFoundError):
        os.rename(directory, work / "damaged")
    try:
        os.rename(work / "new", directory)
    except OSError as error:
        # As above, within the last microseconds.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


class _Parts(msgspec.Struct, frozen=True):
    """All that is written into the cache."""

    meta: Meta
    memory: bytearray
    percpu: bytearray
    btf: bytes
    btf_index: bytes
    kallsyms: bytes


def _write(parts: _Parts, files: Files) -> None:
    files.meta.parent.mkdir()
    content = {
        files.memory: parts.memory,
        files.percpu: parts.percpu,
        files.btf: parts.btf,
        files.btf_index: parts.btf_index,
        files.kallsyms: parts.kallsyms,
    }
    sizes = {path.name: len(data) for path, data in content.items()}
    meta = msgspec.msgpack.encode(_Kept(parts.meta, sizes))
    for path, data in (*content.items(), (files.meta, meta)):
        with path.open("wb") as file:
            for start in range(0, len(data), _CHUNK):
                chunk = bytes(data[start : start + _CHUNK])
                # What is all zero stays a hole.
                if chunk.count(0) < len(chunk):
                    file.seek(start)
                    file.write(chunk)
            file.truncate(len(data))
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True, slots=True)
class _Segment:
    """A PT_LOAD segment: link address, load address, offset and size in the file, size in memory (bytes)."""

    virtual: int
    physical: int
    offset: int
    file_size: int
    size: int


class _Vmlinux:
    """A vmlinux with its relocation table, being turned into an image. ``where`` names it in errors."""

    def __init__(self, raw: bytes, where: str) -> None:
        self._raw = raw
        self._where = where
        try:
            elf = ELFFile(io.BytesIO(raw))
            machine, self._sections = elf["e_machine"], {s.name: s.header for s in elf.iter_sections()}
            headers = [p.header for p in elf.iter_segments() if p["p_type"] == "PT_LOAD"]
            self._elf_end = max(
                chain(
                    (elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"],),
                    (p["p_offset"] + p["p_filesz"] for p in headers),
                    (
                        s["sh_offset"] + s["sh_size"]
                        for s in self._sections.values()
                        if s["sh_type"] != _SHT_NOBITS
                    ),
                )
            )
        except (ELFError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as error:
            # pyelftools raises these too, on headers that make no sense.
            raise self._not_an_image(f"not an ELF file: {error}") from error
        if machine != "EM_X86_64":
            raise self._not_an_image(f"a kernel for {machine}, not for x86-64")
        if self._elf_end > len(raw):
            raise self._not_an_image(f"cut off after {len(raw)} of at least {self._elf_end} bytes")
        segments = [
            _Segment(p["p_vaddr"], p["p_paddr"], p["p_offset"], p["p_filesz"], p["p_memsz"]) for p in headers
        ]
        image = [s for s in segments if s.virtual == s.physical + _START_KERNEL_MAP]
        percpu = [s for s in segments if s.virtual == 0]
        if not image or len(percpu) != 1 or len(image) + 1 != len(segments):
            raise self._not_an_image(
                "its segments are not those of an x86-64 kernel with a per-CPU segment at 0"
            )
        self._link = image[0].virtual
        self._percpu = percpu[0]
        self._size = -(-(max(s.virtual + s.size for s in image) - self._link) // PAGE_SIZE) * PAGE_SIZE
        self._memory = bytearray(self._size)
        for segment in segments:
            place = self._loaded(segment)
            if place < 0 or place + segment.size > self._size or segment.file_size > segment.size:
                raise self._not_an_image(f"its segment at {segment.virtual:#x} lies outside of it")
            self._memory[place : place + segment.file_size] = raw[
                segment.offset : segment.offset + segment.file_size
            ]

    def _not_an_image(self, what: str) -> NotAnImage:
        return NotAnImage(
            f"not a usable kernel image: {what}", where=self._where, remedy="get the kernel package again"
        )

    def _not_relocatable(self, what: str) -> NotRelocatable:
        return NotRelocatable(
            f"the kernel cannot be moved: {what}",
            where=self._where,
            remedy="use a distribution's kernel, 6.1 to 6.14, built with CONFIG_RANDOMIZE_BASE",
        )

    def _loaded(self, segment: _Segment) -> int:
        """Where the segment is in ``_memory``."""
        return segment.physical + _START_KERNEL_MAP - self._link

    def parts(self, release: str) -> _Parts:
        """Relocate the image and collect what is kept of it."""
        btf_section = self._sections.get(".BTF")
        if btf_section is None:
            raise NoBtf(
                "the kernel carries no type information (BTF)",
                where=self._where,
                remedy="use a kernel built with CONFIG_DEBUG_INFO_BTF, such as Debian's",
            )
        btf = self._raw[btf_section["sh_offset"] : btf_section["sh_offset"] + btf_section["sh_size"]]
        plain, gpl_only = (self._exports(name) for name in ("__ksymtab", "__ksymtab_gpl"))
        crcs = self._crcs("__kcrctab", plain) | self._crcs("__kcrctab_gpl", gpl_only)
        self._relocate()
        percpu = self._loaded(self._percpu)
        meta = Meta(
            release=release,
            base=BASE,
            size=self._size,
            percpu_size=self._percpu.size,
            symbols=plain | gpl_only,
            gpl_only=frozenset(gpl_only),
            crcs=crcs,
            sections={
                name: Section(self._address(header["sh_addr"]), header["sh_size"])
                for name, header in self._sections.items()
                if header["sh_flags"] & _SHF_ALLOC
            },
        )
        types = Btf(btf, origin=f"kernel {release}")
        return _Parts(
            meta,
            self._memory,
            self._memory[percpu : percpu + self._percpu.size],
            btf,
            types.index(),
            kallsyms.pack(self._all_symbols()),
        )

    def _all_symbols(self) -> dict[str, int]:
        """Every symbol that the image tells of; none when it has no table of a known form."""
        try:
            return kallsyms.decode(self._memory, BASE)
        except kallsyms.KallsymsError as error:
            log.info("%s: symbols that are not exported are not known: %s", self._where, error)
            return {}

    def _address(self, link_address: int) -> int:
        """Where something linked at that address is in this process; for per-CPU data, its loaded copy."""
        if link_address < self._percpu.size:
            return BASE + self._loaded(self._percpu) + link_address
        return BASE + link_address - self._link

    def _table(self, name: str) -> tuple[int, bytearray]:
        """A section's link address and content; nothing when there is no such section."""
        header = self._sections.get(name)
        if header is None:
            return 0, bytearray()
        start = header["sh_addr"] - self._link
        if not 0 <= start <= start + header["sh_size"] <= self._size:
            raise self._not_an_image(f"its section {name} lies outside of it")
        return header["sh_addr"], self._memory[start : start + header["sh_size"]]

    def _exports(self, section: str) -> dict[str, int]:
        """The symbols of a table of struct kernel_symbol: value, name, namespace, relative to themselves."""
        address, table = self._table(section)
        if not table or len(table) % _KSYM.size:
            raise self._not_an_image(f"its section {section} is missing or of an odd size")
        memory, link, size = self._memory, self._link, self._size
        symbols: dict[str, int] = {}
        for value, name, _namespace in _KSYM.iter_unpack(table):
            at = address + name + 4 - link
            end = memory.find(0, at) if 0 <= at < size else -1
            if end < 0:
                raise self._not_an_image(f"{section} names a symbol outside of it (entry at {address:#x})")
            symbol = memory[at:end].decode("ascii", "replace")
            place = (address + value) % _LINK_END
            if not (place < self._percpu.size or link <= place <= link + size):
                raise self._not_an_image(f"its symbol {symbol} is at {place:#x}, outside of it")
            symbols[symbol] = place if place < self._percpu.size else place - link + BASE
            address += _KSYM.size
        return symbols

    def _crcs(self, section: str, symbols: Iterable[str]) -> dict[str, int]:
        """The checksums of symbols, which come in the same order as they."""
        _, table = self._table(section)
        names = list(symbols)
        if not table:
            return {}
        if len(table) != 4 * len(names):
            raise self._not_an_image(f"its section {section} has not one entry for each symbol")
        return dict(zip(names, array("I", bytes(table)), strict=True))

    def _relocate(self) -> None:
        """Move the image, which is in place, from its link address to BASE."""
        delta = BASE - self._link
        lists = self._relocations()
        for word, addresses, by in zip(
            (_WORD64, _WORD32, _WORD32), lists, (delta, -delta, delta), strict=True
        ):
            self._relocate_words(word, addresses, by)

    def _relocations(self) -> list[array[int]]:
        """The table's lists: 64-bit, 32-bit the other way, 32-bit."""
        tail = self._raw[self._elf_end :]
        if not tail:
            raise self._not_relocatable("there is no relocation table behind it")
        if len(tail) % 4:
            raise self._not_relocatable(f"its relocation table is {len(tail)} bytes long, not whole words")
        words = array("i", tail)
        starts = [place + 1 for place, word in enumerate(words) if word == 0]
        if len(starts) != 3 or starts[0] != 1:
            raise self._not_relocatable(f"its relocation table has {len(starts)} lists instead of 3")
        ends = [*(start - 1 for start in starts[1:]), len(words)]
        lists = [words[start:end] for start, end in zip(starts, ends, strict=True)]
        if not lists[0] or not lists[2]:
            raise self._not_relocatable("its relocation table is empty")
        return lists

    def _relocate_words(self, word: struct.Struct, addresses: array[int], by: int) -> None:
        memory, read, write = self._memory, word.unpack_from, word.pack_into
        mask = (1 << 8 * word.size) - 1
        # Addresses are sign-extended from 32 bits.
        link = self._link - _LINK_END
        low, high = link, link + self._size - word.size
        if addresses and not low <= min(addresses) <= max(addresses) <= high:
            stray = min(addresses) if min(addresses) < low else max(addresses)
            raise self._not_relocatable(f"its relocation table names {stray % _LINK_END:#x}, outside of it")
        for address in addresses:
            place = address - link
            write(memory, place, read(memory, place)[0] + by & mask)
