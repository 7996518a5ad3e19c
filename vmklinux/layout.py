"""Ties the C half to one kernel: fills the tables that linux.h names from BTF and the image's symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import VmkError
from vmklinux.btf import BtfError, StructType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmklinux.btf import Btf
    from vmklinux.image import Image

#: LINUX_ABSENT of linux.h.
_ABSENT = 0xFFFF_FFFF


class KernelTooStrange(VmkError):
    """The kernel lacks a type or a symbol that vmklinux cannot do without."""


def _names(name_at: Callable[[int], object]) -> Iterator[tuple[int, str]]:
    index = 0
    while (name := name_at(index)) != ffi.NULL:
        yield index, ffi.string(name).decode()
        index += 1


def _bits(types: Btf, path: str) -> tuple[int, int]:
    """Offset and width in bits of a bit field."""
    struct, _, member = path.partition(".")
    field = types.struct(struct).field(member)
    return field.offset_bits, field.bitfield_size


def fill(image: Image, types: Btf, module: str = "") -> None:
    """Fill every table with what the kernel, or one of its modules, defines.

    The names of a module's own begin with ``module:``. KernelTooStrange names what this kernel does not have.
    """

    def look_up(what: str, find: Callable[[str], int], name: str) -> int:
        try:
            return find(name.removeprefix("?"))
        except (BtfError, KeyError) as error:
            if name.startswith("?"):
                return _ABSENT
            raise KernelTooStrange(
                f"no {what} {name}", where=f"kernel {image.release}", remedy="use a kernel from 6.1 to 6.14"
            ) from error

    def offset(path: str) -> int:
        struct, _, member = path.partition(".")
        return types.offsetof(struct, member)

    def mine(name_at: Callable[[int], object]) -> Iterator[tuple[int, str]]:
        for index, name in _names(name_at):
            of_module, _, rest = name.rpartition(":")
            if of_module == module:
                yield index, rest

    for index, name in mine(lib.linux_field_name):
        lib.linux_field_set(index, look_up("field", offset, name))
    for index, name in mine(lib.linux_bits_name):
        try:
            lib.linux_bits_set(index, *_bits(types, name.removeprefix("?")))
        except BtfError:
            lib.linux_bits_set(index, look_up("bit field", offset, name), 0)
    for index, name in mine(lib.linux_size_name):
        lib.linux_size_set(index, look_up("struct", types.sizeof, name))
    for index, name in mine(lib.linux_enum_name):
        lib.linux_enum_set(index, look_up("enumerator", types.enumerator, name))
    for index, name in mine(lib.linux_symbol_name):
        lib.linux_symbol_set(index, look_up("symbol", image.symbols.__getitem__, name))


def percpu_place(image: Image, types: Btf, symbol: str, path: str) -> int:
    """Offset in the per-CPU area of a variable that 6.1 exports by itself and 6.12 keeps in struct pcpu_hot."""
    if "pcpu_hot" in image.symbols:
        return image.symbols["pcpu_hot"] + types.offsetof("pcpu_hot", path)
    return image.symbols[symbol]


def has_struct(types: Btf, name: str) -> StructType | None:
    """The struct, or None where this kernel has none of that name."""
    try:
        return types.struct(name)
    except BtfError:
        return None
