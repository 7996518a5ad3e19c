"""Typed views of kernel objects: C structs in this process's memory, read and written by field name.

A field may have any name, so an ``Obj`` has no methods; what can be done with one are functions here. A field
that is a keyword of Python's is reached by ``getattr(pdev, "class")``.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

from vmkernel_core.errors import VmkError
from vmkernel_core.memory import load, load_bytes, store, store_bytes
from vmklinux.btf import (
    ArrayType,
    BtfError,
    EnumType,
    Field,
    ForwardType,
    IntType,
    NoSuchField,
    PointerType,
    StructType,
    Type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmklinux.btf import Btf

    Reader: TypeAlias = Callable[[int], Any]
    Writer: TypeAlias = Callable[[int, SupportsIndex], None]

#: No object is in the first page, or in the last, whose addresses are error codes (Linux's ERR_PTR).
_FIRST = 4096
_LAST = (1 << 64) - 4096
_SCALAR_SIZES = frozenset({1, 2, 4, 8})


class NullDereference(VmkError):
    """A field of an object was used whose address is null or an error code."""


class NotScalar(BtfError, TypeError):
    """The field is a struct, an array or something Python cannot hold: it cannot be used as a whole."""


class Readers(dict[str, "Reader"]):
    """How to read each field of a struct, made when a field is read for the first time."""

    def __init__(self, type: StructType | ForwardType) -> None:
        self.type = type

    def __missing__(self, name: str) -> Reader:
        """Make the reader of a field."""
        member = _field(self.type, name)
        reader = self[name] = (
            _bitfield_reader(member) if member.bitfield_size else _reader(member.type, _offset(member, name))
        )
        return reader


class Writers(dict[str, "Writer"]):
    """How to write each field of a struct, made when a field is written for the first time."""

    def __init__(self, type: StructType | ForwardType) -> None:
        self.type = type

    def __missing__(self, name: str) -> Writer:
        """Make the writer of a field."""
        member = _field(self.type, name)
        writer = self[name] = (
            _bitfield_writer(member)
            if member.bitfield_size
            else _writer(member.type, _offset(member, name), f"{self.type}.{name}")
        )
        return writer


class Layout:
    """A struct type with the ways to its fields; there is one for each type."""

    __slots__ = ("readers", "type", "writers")

    def __init__(self, type: StructType | ForwardType) -> None:
        self.type = type
        self.readers = Readers(type)
        self.writers = Writers(type)


class Obj:
    """A kernel object: a struct or union of a known type at an address of this process.

    ``obj.field`` gives an int (with its sign), a bool, an Obj for a nested struct or for a pointer to one
    (false when null), an Array, or the address that any other pointer holds. ``obj.field = value`` writes
    an int or an Obj (into a pointer); values wrap as in C. ``obj[i]`` is the i-th object of an array that
    starts here. ``int(obj)`` is the address. Objects are equal when their addresses are.

    Raises NoSuchField, NotScalar or NullDereference.
    """

    __slots__ = ("_Obj_address", "_Obj_layout")
    _Obj_address: int
    _Obj_layout: Layout

    def __init__(self, types: Btf, type: StructType | ForwardType | str, address: SupportsIndex) -> None:
        found = types.struct(type) if isinstance(type, str) else type
        _set(self, "_Obj_layout", _layout(found))
        _set(self, "_Obj_address", index(address))

    def __getattr__(self, name: str) -> Any:
        """Read a field."""
        reader = self._Obj_layout.readers[name]
        address = self._Obj_address
        if not _FIRST <= address < _LAST:
            raise _null(self, name)
        return reader(address)

    def __setattr__(self, name: str, value: Any) -> None:
        """Write a field."""
        writer = self._Obj_layout.writers[name]
        address = self._Obj_address
        if not _FIRST <= address < _LAST:
            raise _null(self, name)
        writer(address, value)

    def __getitem__(self, number: int) -> Obj:
        """The object that many objects further, as in C's pointer arithmetic; nothing checks the bounds."""
        return _make(self._Obj_layout, self._Obj_address + index(number) * _complete(self).size)

    #: An object is not a sequence, though it can be indexed.
    __iter__ = None

    def __dir__(self) -> list[str]:
        """The fields, for completion."""
        found = self._Obj_layout.type
        return sorted(found.fields) if isinstance(found, StructType) else []

    def __index__(self) -> int:
        """Return the address."""
        return self._Obj_address

    __int__ = __index__

    def __bool__(self) -> bool:
        """Whether the address is not null."""
        return self._Obj_address != 0

    def __eq__(self, other: object) -> bool:
        """Whether the addresses are the same."""
        return self._Obj_address == other._Obj_address if isinstance(other, Obj) else NotImplemented

    def __hash__(self) -> int:
        """Hash the address."""
        return hash(self._Obj_address)

    def __repr__(self) -> str:
        """Show type and address."""
        return f"{self._Obj_layout.type} @ {self._Obj_address:#x}"


class Array:
    """An array inside a kernel object: a view that reads and writes its elements in place.

    A flexible array member has length 0 and takes any index from 0 on. ``address`` is the first element's.
    """

    __slots__ = ("_read", "_type", "address")

    def __init__(self, type: ArrayType, read: Reader, address: int) -> None:
        self._type = type
        self._read = read
        self.address = address

    def __len__(self) -> int:
        """Return the number of elements."""
        return self._type.length

    def _place(self, number: int) -> int:
        length = self._type.length
        place = index(number) + length if number < 0 else index(number)
        if place < 0 or place >= length > 0:
            raise IndexError(f"index {number} of an array of {length}")
        return self.address + place * self._type.element.size

    def __getitem__(self, number: int) -> Any:
        """Read an element, as ``Obj`` reads a field; IndexError beyond the end."""
        return self._read(self._place(number))

    def __setitem__(self, number: int, value: SupportsIndex) -> None:
        """Write an element, as ``Obj`` writes a field; IndexError beyond the end."""
        _writer(self._type.element, 0, repr(self))(self._place(number), value)

    def __iter__(self) -> Iterator[Any]:
        """Read the elements one after the other."""
        return (self[number] for number in range(len(self)))

    def raw(self) -> bytes:
        """Copy the array's bytes."""
        return load_bytes(self.address, self._type.size)

    def text(self) -> str:
        """Return the string that a char array holds, up to its zero byte, as UTF-8 with replacement."""
        return self.raw().partition(b"\0")[0].decode("utf-8", "replace")

    def __repr__(self) -> str:
        """Show length and address."""
        return f"array of {len(self)} @ {self.address:#x}"


def typeof(obj: Obj) -> StructType | ForwardType:
    """The type of the object."""
    return obj._Obj_layout.type


def addressof(obj: Obj, path: str) -> int:
    """The address of a member such as ``"dev.kobj"``; NoSuchField, or BtfError for a bitfield."""
    found = _complete(obj)
    return int(obj) + found.btf.offsetof(found, path)


def cast(types: Btf, type: StructType | ForwardType | str, address: SupportsIndex) -> Obj:
    """The object of that type (a type, or a struct's name) at an address, or where another object is."""
    return Obj(types, type, address)


def container_of(member: SupportsIndex, types: Btf, struct: str, path: str) -> Obj:
    """The struct whose member at ``path`` is at that address, or is that object."""
    found = types.struct(struct)
    return _make(_layout(found), index(member) - types.offsetof(found, path))


def zero(obj: Obj) -> None:
    """Fill the object with zero bytes."""
    store_bytes(int(obj), bytes(_complete(obj).size))


_new = object.__new__
_set = object.__setattr__


def _make(layout: Layout, address: int) -> Obj:
    obj = _new(Obj)
    _set(obj, "_Obj_layout", layout)
    _set(obj, "_Obj_address", address)
    return obj


def _layout(type: StructType | ForwardType) -> Layout:
    if isinstance(type, ForwardType):
        return Layout(type)
    if type.layout is None:
        type.layout = Layout(type)
    return type.layout


def _complete(obj: Obj) -> StructType:
    return _defined(obj._Obj_layout.type)


def _defined(type: StructType | ForwardType) -> StructType:
    if isinstance(type, ForwardType):
        raise NoSuchField(
            f"{type} is declared, but not defined, where this object comes from",
            remedy="cast the object with the types of the module that defines it",
        )
    return type


def _field(type: StructType | ForwardType, name: str) -> Field:
    return _defined(type).field(name)


def _offset(member: Field, name: str) -> int:
    if member.offset_bits % 8:
        raise BtfError(
            f"malformed BTF: field {name!r} starts at bit {member.offset_bits}, but is no bitfield"
        )
    return member.offset_bits // 8


def _null(obj: Obj, name: str) -> NullDereference:
    return NullDereference(f"{name!r} of {obj!r}: there is no object at that address")


def _reader(type: Type, offset: int) -> Reader:
    """What reads a value of that type, ``offset`` bytes after the address that it is given."""
    match type:
        case StructType():
            inner = _layout(type)
            return lambda address: _make(inner, address + offset)
        case ArrayType():
            element = _reader(type.element, 0)
            return lambda address: Array(type, element, address + offset)
        case PointerType(target=StructType() | ForwardType() as target):
            pointed = _layout(target)
            return lambda address: _make(pointed, load(address + offset, 8))
        case IntType(boolean=True, size=size) if size in _SCALAR_SIZES:
            return lambda address: load(address + offset, size) != 0
        case IntType(signed=True, size=size) | EnumType(signed=True, size=size) if size in _SCALAR_SIZES:
            sign = 1 << size * 8 - 1
            return lambda address: (load(address + offset, size) ^ sign) - sign
        case (IntType() | EnumType() | PointerType()) as scalar if scalar.size in _SCALAR_SIZES:
            width = scalar.size
            return lambda address: load(address + offset, width)
    raise NotScalar(f"a value of type {type} cannot be read into Python")


def _writer(type: Type, offset: int, what: str) -> Writer:
    """What writes a value of that type, ``offset`` bytes after the address that it is given."""
    match type:
        case IntType(boolean=True, size=size) if size in _SCALAR_SIZES:
            return lambda address, value: store(address + offset, size, index(value) != 0)
        case (IntType() | EnumType() | PointerType()) as scalar if scalar.size in _SCALAR_SIZES:
            width = scalar.size
            return lambda address, value: store(address + offset, width, index(value))
    raise NotScalar(f"{what} cannot be assigned as a whole", remedy="assign its members")


def _span(member: Field) -> tuple[int, int, int, int]:
    """Where a bitfield is: first byte, number of bytes, right shift in bits, mask after the shift."""
    shift = member.offset_bits % 8
    return (
        member.offset_bits // 8,
        (shift + member.bitfield_size + 7) // 8,
        shift,
        (1 << member.bitfield_size) - 1,
    )


def _bitfield_reader(member: Field) -> Reader:
    first, length, shift, mask = _span(member)
    negative = 1 << member.bitfield_size - 1 if getattr(member.type, "signed", False) else 0
    boolean = isinstance(member.type, IntType) and member.type.boolean

    def read(address: int) -> int:
        value = int.from_bytes(load_bytes(address + first, length), "little") >> shift & mask
        return bool(value) if boolean else (value ^ negative) - negative

    return read


def _bitfield_writer(member: Field) -> Writer:
    first, length, shift, mask = _span(member)
    boolean = isinstance(member.type, IntType) and member.type.boolean

    def write(address: int, value: SupportsIndex) -> None:
        bits = index(value) != 0 if boolean else index(value) & mask
        old = int.from_bytes(load_bytes(address + first, length), "little")
        store_bytes(address + first, (old & ~(mask << shift) | bits << shift).to_bytes(length, "little"))

    return write
