"""Reads what kernel packages hold compressed: module files, and the kernel inside a vmlinuz.

A file's first bytes say how it is compressed; its name is not asked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmklinux.kernels.errors import BadKernelImage, BadModuleFile, ModuleNotFound

_ELF = b"\x7fELF"

# Linux, Documentation/arch/x86/boot.rst, "The real-mode kernel header": offset and format of each field.
_SETUP_SECTS = (0x1F1, "<B")
_HEADER_MAGIC = (0x202, "<4s")
_PROTOCOL = (0x206, "<H")
_XLOADFLAGS = (0x236, "<H")
_PAYLOAD_OFFSET = (0x248, "<I")
_PAYLOAD_LENGTH = (0x24C, "<I")
_HEADER_SIZE = 0x250
_SECTOR = 512
_SETUP_SECTS_WHEN_ZERO = 4
_XLF_KERNEL_64 = 1
_PROTOCOL_WITH_XLOADFLAGS = 0x020C

_REFETCH = "fetch the kernel again: remove its directory, then run: vmk kernel fetch"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _xz() -> _Decompressor:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


def _gzip() -> _Decompressor:
    import zlib

    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _zstd() -> _Decompressor:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


@dataclass(frozen=True, slots=True)
class _Compression:
    """A compression that Linux's build knows, and what opens it; None where this library has nothing."""

    name: str
    magic: bytes
    open: Callable[[], _Decompressor] | None = None


_COMPRESSIONS = (
    _Compression("xz", b"\xfd7zXZ\0", _xz),
    _Compression("gzip", b"\x1f\x8b", _gzip),
    _Compression("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    _Compression("lz4", b"\x02\x21\x4c\x18"),
    _Compression("lzo", b"\x89LZO"),
    _Compression("bzip2", b"BZh"),
    _Compression("lzma", b"\x5d\0\0"),
)
_MAGIC_SIZE = max(len(compression.magic) for compression in _COMPRESSIONS)
_READABLE = ", ".join(compression.name for compression in _COMPRESSIONS if compression.open)


class _Undecodable(Exception):
    """Why some bytes could not be decompressed, for the caller to put into its own error."""


def _opener(data: bytes) -> Callable[[], _Decompressor]:
    for compression in _COMPRESSIONS:
        if data.startswith(compression.magic):
            if compression.open is None:
                raise _Undecodable(f"compressed with {compression.name}; only {_READABLE} can be read")
            return compression.open
    raise _Undecodable(f"not compressed with {_READABLE}")


def _decompress(data: bytes) -> tuple[bytes, bytes]:
    """The content of the compressed stream that ``data`` begins with, and the bytes behind the stream."""
    decompressor = _opener(data)()
    try:
        content = decompressor.decompress(data)
    except Exception as error:  # lzma, zlib and zstandard share no narrower base class
        raise _Undecodable(f"damaged: {error}") from error
    if not decompressor.eof:
        raise _Undecodable("truncated: its compressed data has no end")
    return content, decompressor.unused_data


def read_module(path: Path) -> bytes:
    """The ELF object in a ``.ko``, ``.ko.xz``, ``.ko.gz`` or ``.ko.zst`` file.

    Raises ModuleNotFound when there is no such file, BadModuleFile when it cannot be read as a module.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModuleNotFound("no such module file", where=str(path), remedy="check the path") from None
    except OSError as error:
        raise BadModuleFile(
            f"the module file cannot be read: {error.strerror}",
            where=str(path),
            remedy="check its permissions",
        ) from error
    if data.startswith(_ELF):
        return data
    try:
        content, rest = _decompress(data)
        if not content.startswith(_ELF):
            raise _Undecodable("no ELF object is in it")
        if rest.strip(b"\0"):
            raise _Undecodable(f"damaged: {len(rest)} bytes follow its compressed data")
    except _Undecodable as error:
        raise BadModuleFile(f"not a module: {error}", where=str(path), remedy="get the file anew") from None
    return content


@dataclass(frozen=True, slots=True)
class _Payload:
    """Where the compressed kernel lies in a vmlinuz, in bytes from the start of the file."""

    offset: int
    length: int


def _payload(header: bytes) -> _Payload:
    def field(place: tuple[int, str]) -> int:
        value: int = struct.unpack_from(place[1], header, place[0])[0]
        return value

    if len(header) < _HEADER_SIZE or struct.unpack_from(_HEADER_MAGIC[1], header, _HEADER_MAGIC[0]) != (
        b"HdrS",
    ):
        raise _Undecodable("not an x86 boot image")
    if field(_PROTOCOL) < _PROTOCOL_WITH_XLOADFLAGS or not field(_XLOADFLAGS) & _XLF_KERNEL_64:
        raise _Undecodable("not an x86-64 kernel")
    setup_sects = field(_SETUP_SECTS) or _SETUP_SECTS_WHEN_ZERO
    return _Payload((setup_sects + 1) * _SECTOR + field(_PAYLOAD_OFFSET), field(_PAYLOAD_LENGTH))


def check_vmlinuz(path: Path) -> None:
    """Read the first bytes of a vmlinuz and of its payload, and no more.

    Raises OSError as ``open`` does, BadKernelImage when ``read_vmlinux`` is bound to fail.
    """
    with path.open("rb") as file:
        try:
            payload = _payload(file.read(_HEADER_SIZE))
            if file.seek(0, 2) < payload.offset + payload.length:
                raise _Undecodable("truncated")
            file.seek(payload.offset)
            _opener(file.read(_MAGIC_SIZE))
        except _Undecodable as error:
            raise BadKernelImage(f"vmlinuz is {error}", where=str(path), remedy=_REFETCH) from None


def read_vmlinux(path: Path) -> bytes:
    """The kernel in a vmlinuz: an ELF file, and behind it the relocation table that serves KASLR.

    Raises BadKernelImage when the file cannot be read or is no such image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadKernelImage(
            f"vmlinuz cannot be read: {error.strerror}", where=str(path), remedy="run: vmk kernel list"
        ) from error
    try:
        payload = _payload(data[:_HEADER_SIZE])
        if len(data) < payload.offset + payload.length:
            raise _Undecodable("truncated")
        packed = data[payload.offset : payload.offset + payload.length]
        content, _size = _decompress(packed)
        # Linux's build appends the size to each payload (gzip ends with it by itself).
        if packed[-4:] != struct.pack("<I", len(content) & 0xFFFFFFFF):
            raise _Undecodable("damaged: the kernel in it has not the size that it states")
        if not content.startswith(_ELF):
            raise _Undecodable("damaged: the kernel in it is no ELF file")
    except _Undecodable as error:
        raise BadKernelImage(f"vmlinuz is {error}", where=str(path), remedy=_REFETCH) from None
    return content
