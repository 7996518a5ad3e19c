"""Structures in memory that a device and its driver share: descriptors, message frames, their scatter lists.

A class is a structure, written down once as the datasheet's table has it::

    class TDESC(Descriptor):
        \"\"\"Legacy transmit descriptor (3.3.3).\"\"\"

        size = 16
        buffer, length = u64(0), u16(8)
        EOP, DD = u8(11).bit(0), u8(12).bit(0)

An instance is one of them, in memory of its own or where the device sees it. A ``Table`` is many of them, whose
fields are fetched and stored by column in one call of C. ``ring.py`` walks such tables without Python.
"""

from __future__ import annotations

import struct
from array import array
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, overload

from vmkernel_core._core import ffi, lib
from vmklinux.native.register import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

D = TypeVar("D", bound="Descriptor")


class Place:
    """Where a number lies in a structure: ``width`` bits, from bit ``shift`` on, of the ``size`` bytes at ``offset``."""

    name = ""

    def __init__(self, offset: int, size: int, shift: int = 0, width: int = 0, *, big: bool = False) -> None:
        """``big``: big-endian. Width 0: all of it. FieldError when there is no such place."""
        width = width or size * 8
        if size not in _CODES or offset < 0 or shift < 0 or width < 1 or shift + width > size * 8:
            raise FieldError(
                f"bits {shift} to {shift + width - 1} do not lie in the {size * 8} bits at {offset}"
            )
        self.offset, self.size, self.shift, self.width, self.big = offset, size, shift, width, big
        #: The greatest value.
        self.most = (1 << width) - 1

    def __set_name__(self, owner: type, name: str) -> None:
        """Know how it is called."""
        self.name = name

    def __repr__(self) -> str:
        """Name and place."""
        bits = f"bits {self.shift} to {self.shift + self.width - 1}"
        return f"<field {self.name}: {bits} of {self.size} bytes at {self.offset}>"

    def check(self, size: int) -> None:
        """FieldError unless it lies in a structure of so many bytes: C does not look again."""
        if self.offset + self.size > size:
            raise FieldError(f"{self!r} is outside of a structure of {size} bytes")

    def for_c(self) -> tuple[int, int, int, int, int]:
        """The members of struct native_field."""
        return self.offset, self.size, self.shift, self.width, self.big


class Field(Place):
    """A number in a structure: of a structure it is an int, and can be set; of the class it is this object.

    ``u8`` to ``u64be`` make one of a whole word, ``bit`` and ``bits`` one of a part of it.
    """

    def __init__(self, offset: int, size: int, shift: int = 0, width: int = 0, *, big: bool = False) -> None:
        super().__init__(offset, size, shift, width, big=big)
        self._mask = self.most << shift
        #: Whether it is all bits of its bytes.
        self.is_word = self.width == size * 8
        self._word = struct.Struct((">" if big else "<") + _CODES[size])

    def bit(self, number: int) -> Field:
        """One bit of this word."""
        return Field(self.offset, self.size, number, 1, big=self.big)

    def bits(self, low: int, high: int) -> Field:
        """Bits ``low`` to ``high`` of this word, both included."""
        return Field(self.offset, self.size, low, high - low + 1, big=self.big)

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Descriptor, owner: type) -> int: ...
    def __get__(self, structure: Descriptor | None, owner: type) -> Self | int:
        """The field of a structure."""
        if structure is None:
            return self
        word: int = self._word.unpack_from(structure._view, structure._at + self.offset)[0]
        return word if self.is_word else word >> self.shift & self.most

    def __set__(self, structure: Descriptor, value: int) -> None:
        """Change it, the other bits of its word stay. FieldError when the value does not fit."""
        if not 0 <= value <= self.most:
            raise FieldError(
                f"{value} is not 0 to {self.most}", where=f"{self.name} of {type(structure).__name__}"
            )
        at = structure._at + self.offset
        if not self.is_word:
            (word,) = self._word.unpack_from(structure._view, at)
            value = word & ~self._mask | value << self.shift
        self._word.pack_into(structure._view, at, value)


class Octets:
    """``length`` bytes in a structure, such as a CDB or a name. What is set may be shorter: zeros follow it then."""

    name = ""

    def __init__(self, offset: int, length: int) -> None:
        """FieldError when there is no such place."""
        if offset < 0 or length < 1:
            raise FieldError(f"there are no {length} bytes at {offset}")
        self.offset, self.size = offset, length

    def __set_name__(self, owner: type, name: str) -> None:
        """Know how it is called."""
        self.name = name

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Descriptor, owner: type) -> bytes: ...
    def __get__(self, structure: Descriptor | None, owner: type) -> Self | bytes:
        """The bytes of a structure."""
        if structure is None:
            return self
        at = structure._at + self.offset
        return bytes(structure._view[at : at + self.size])

    def __set__(self, structure: Descriptor, value: bytes) -> None:
        """Change them. FieldError when there are too many."""
        if len(value) > self.size:
            raise FieldError(
                f"{len(value)} bytes do not fit {self.size}",
                where=f"{self.name} of {type(structure).__name__}",
            )
        at = structure._at + self.offset
        structure._view[at : at + self.size] = value + bytes(self.size - len(value))


def u8(offset: int) -> Field:
    """A byte."""
    return Field(offset, 1)


def u16(offset: int) -> Field:
    """Two bytes, little-endian."""
    return Field(offset, 2)


def u32(offset: int) -> Field:
    """Four bytes, little-endian."""
    return Field(offset, 4)


def u64(offset: int) -> Field:
    """Eight bytes, little-endian."""
    return Field(offset, 8)


def u16be(offset: int) -> Field:
    """Two bytes, big-endian."""
    return Field(offset, 2, big=True)


def u32be(offset: int) -> Field:
    """Four bytes, big-endian."""
    return Field(offset, 4, big=True)


def u64be(offset: int) -> Field:
    """Eight bytes, big-endian."""
    return Field(offset, 8, big=True)


def octets(offset: int, length: int) -> Octets:
    """So many bytes."""
    return Octets(offset, length)


class Descriptor:
    """A structure of ``size`` bytes; ``fields`` has those of it, by name.

    An instance lies in memory of its own, or in memory that a device sees (``at``), where each reading and setting of
    a field is an access to memory.
    """

    size: ClassVar[int]
    fields: ClassVar[Mapping[str, Field | Octets]] = {}

    __slots__ = ("_at", "_view")

    def __init_subclass__(cls) -> None:
        """FieldError when a field lies outside."""
        cls.fields = dict(cls.fields) | {
            name: value for name, value in vars(cls).items() if isinstance(value, Field | Octets)
        }
        for name, field in cls.fields.items():
            if field.offset + field.size > cls.size:
                raise FieldError(f"{name} ends behind the {cls.size} bytes of {cls.__name__}")

    def __init__(self, **values: int | bytes) -> None:
        """A structure by itself: zeros, but for the fields that are named. FieldError."""
        self._view, self._at = memoryview(bytearray(self.size)), 0
        self.set(**values)

    @classmethod
    def at(cls, view: memoryview, offset: int = 0) -> Self:
        """The structure that lies in the bytes of ``view`` from ``offset`` on. FieldError when it does not."""
        if not 0 <= offset <= len(view) - cls.size:
            raise FieldError(f"no {cls.__name__} of {cls.size} bytes lies at {offset} of {len(view)} bytes")
        structure = cls.__new__(cls)
        structure._view, structure._at = view, offset
        return structure

    @classmethod
    def packed(cls, *fields: Field | Octets) -> struct.Struct:
        """These whole words and octets, in the order of their places, for a driver that writes, or reads, one
        structure after the other: ``pack_into(view, offset, *values)``, ``unpack_from(view, offset)``. That takes a
        tenth of setting field after field; what lies between the fields becomes zeros. FieldError.
        """
        order = {field.big for field in fields if isinstance(field, Field) and field.size > 1}
        code, end = ">" if True in order else "<", 0
        for field in fields:
            if len(order) > 1 or field.offset < end or (isinstance(field, Field) and not field.is_word):
                raise FieldError(f"{field.name} of {cls.__name__} cannot be packed with what goes before it")
            letter = f"{field.size}s" if isinstance(field, Octets) else _CODES[field.size]
            code += f"{field.offset - end}x{letter}"
            end = field.offset + field.size
        return struct.Struct(code)

    def set(self, **values: int | bytes) -> None:
        """Change fields by their names. FieldError."""
        for name, value in values.items():
            if name not in self.fields:
                known = ", ".join(self.fields)
                raise FieldError(
                    f"{type(self).__name__} has no field {name}", remedy=f"it has {known or 'none'}"
                )
            setattr(self, name, value)

    def __bytes__(self) -> bytes:
        """What is in memory."""
        return bytes(self._view[self._at : self._at + self.size])

    def __repr__(self) -> str:
        """The fields that are not 0."""
        values = ((name, getattr(self, name)) for name in self.fields)
        shown = (
            f" {name}={value.hex(' ') if isinstance(value, bytes) else hex(value)}"
            for name, value in values
            if (any(value) if isinstance(value, bytes) else value)
        )
        return f"<{type(self).__name__}{''.join(shown)}>"


class SharedMemory(Protocol):
    """Memory that a device sees (``dma.DmaMemory``): its address here and for the device, its length and its bytes."""

    @property
    def address(self) -> int:
        """Here."""

    @property
    def dma(self) -> int:
        """What the device is told."""

    @property
    def length(self) -> int:
        """In bytes."""

    @property
    def view(self) -> memoryview:
        """The bytes."""


@cache
def _columns(size: int, fields: tuple[Place, ...]) -> Any:
    """The fields for C. FieldError when one is not inside a structure of that size."""
    for field in fields:
        field.check(size)
    return ffi.new("struct native_field[]", [field.for_c() for field in fields])


class Table(Generic[D]):
    """``count`` structures of one kind in memory that a device sees, one each ``stride`` bytes from ``offset`` on.

    ``table[3]`` is the fourth; ``handle`` is for C. Numbers (slots) beyond the last go on with the first, as in a
    ring.
    """

    def __init__(
        self, kind: type[D], memory: SharedMemory, count: int, *, offset: int = 0, stride: int = 0
    ) -> None:
        """``stride`` 0: they follow each other. FieldError when they do not fit there."""
        self.kind, self.memory, self.count, self.offset = kind, memory, count, offset
        self.stride = stride or kind.size
        if count < 1 or offset < 0 or offset + (count - 1) * self.stride + kind.size > memory.length:
            raise FieldError(f"{count} {kind.__name__} do not lie at {offset} of {memory.length} bytes")
        at = ffi.cast("char *", memory.address + offset)
        self.handle = ffi.new("struct native_table *", (at, self.stride, count))

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def __getitem__(self, slot: int) -> D:
        """One of them, where it lies."""
        return self.kind.at(self.memory.view, self.offset + slot % self.count * self.stride)

    def dma(self, slot: int) -> int:
        """Where the device sees it."""
        return self.memory.dma + self.offset + slot % self.count * self.stride

    def load(self, slots: Iterable[int], *fields: Place) -> tuple[list[int], ...]:
        """A list for each field: its values in the structures with these numbers."""
        numbers = array("I", slots)
        n, m = len(numbers), len(fields)
        values = bytearray(8 * n * m)
        lib.native_table_load(
            self.handle, _columns(self.kind.size, fields), m, ffi.from_buffer("uint32_t[]", numbers), n,
            ffi.from_buffer("uint64_t[]", values),
        )  # fmt: skip
        found = memoryview(values).cast("Q").tolist() if values else []
        return tuple(found[i * n : (i + 1) * n] for i in range(m))

    def store(self, slots: Iterable[int], columns: Mapping[Place, int | Sequence[int]]) -> None:
        """Set fields in the structures with these numbers, each to its own value, or all to one.

        Structure by structure, in the order in which the fields are given. FieldError when a value does not fit its
        field or a column is of another length than ``slots``; nothing was set then.
        """
        numbers, values, fields = array("I", slots), array("Q"), tuple(columns)
        n = len(numbers)
        for field, column in columns.items():
            wanted = (column,) * n if isinstance(column, int) else column
            if len(wanted) != n:
                raise FieldError(f"{len(wanted)} values of {field.name} for {n} {self.kind.__name__}")
            try:
                values.extend(wanted)
            except OverflowError:
                raise FieldError(f"{field.name} of {self.kind.__name__} is 0 to {field.most}") from None
        wrong = lib.native_table_store(
            self.handle, _columns(self.kind.size, fields), len(fields), ffi.from_buffer("uint32_t[]", numbers), n,
            ffi.from_buffer("uint64_t[]", values),
        )  # fmt: skip
        if wrong >= 0:
            field = fields[wrong // n]
            raise FieldError(
                f"{values[wrong]} is not 0 to {field.most}", where=f"{field.name} of {self.kind.__name__}"
            )
