"""BTF, the type information that a Linux kernel and its modules carry.

Format: Linux Documentation/bpf/btf.rst. Types are decoded when they are asked for and then kept; only
an index (where each type's record is, which names there are) is made up front, and ``Btf.index`` gives it as
bytes, to be kept in a file. Qualifiers and typedefs are stripped wherever a type is handed out.
"""

from __future__ import annotations

import dataclasses
import struct
from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vmklinux.kobject import Layout

MAGIC = 0xEB9F
VERSION = 1
POINTER_SIZE = 8

_HEADER = struct.Struct("<HBBIIIII")
_RECORD = struct.Struct("<III")
_WORD = struct.Struct("<I")
_PAIR = struct.Struct("<II")
_SIGNED_PAIR = struct.Struct("<Ii")
_TRIPLE = struct.Struct("<III")
_KIND_FLAG = 1 << 31
_INT_SIGNED = 1
_INT_BOOL = 4
#: Typedefs and qualifiers that may follow one another before the format is taken to be broken.
_CHAIN_LIMIT = 64


class Kind(IntEnum):
    """The kinds of BTF record, by the number that stands for each in the file."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: Bytes that follow a record's 12-byte head: (once, for each of its vlen members).
_TRAILERS: Mapping[int, tuple[int, int]] = {
    Kind.INT: (4, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (4, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 12),
}
_TRANSPARENT = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_COMPOSITE = frozenset({Kind.STRUCT, Kind.UNION})


class BtfError(VmkError):
    """The BTF is malformed (``where`` has the byte offset), or does not have what was asked for."""


class NoSuchType(BtfError, LookupError):
    """This kernel or module has no type, or no enumerator, of that name."""


class NoSuchField(BtfError, AttributeError):
    """The struct or union has no such field in this kernel."""


@dataclass(frozen=True, slots=True)
class VoidType:
    """``void``; its size is 0."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class IntType:
    """An integer, ``char`` or ``_Bool``; ``size`` in bytes."""

    name: str
    size: int
    signed: bool
    boolean: bool


@dataclass(frozen=True, slots=True)
class FloatType:
    """A floating point number; ``size`` in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class EnumType:
    """An enum; ``name`` is "" for an anonymous one. ``enumerators``: name to value."""

    name: str
    size: int
    signed: bool
    enumerators: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class ForwardType:
    """A struct or union that is declared but defined nowhere in this BTF; its size is not known (0)."""

    name: str
    keyword: str
    size: int = 0

    def __str__(self) -> str:
        """As C writes it, ``struct pci_dev``."""
        return f"{self.keyword} {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class PointerType:
    """A pointer; ``target`` is decoded when it is asked for, because types point at one another."""

    btf: Btf = dataclasses.field(repr=False)
    target_id: int
    size: int = POINTER_SIZE

    @property
    def target(self) -> Type:
        """What it points at."""
        return self.btf.type(self.target_id)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayType:
    """An array of ``length`` elements; length 0 also stands for a flexible array member."""

    btf: Btf = dataclasses.field(repr=False)
    element_id: int
    length: int

    @property
    def element(self) -> Type:
        """The type of one element."""
        return self.btf.type(self.element_id)

    @property
    def size(self) -> int:
        """Bytes of the whole array."""
        count, element = self.length, self.element
        for _ in range(_CHAIN_LIMIT):
            if not isinstance(element, ArrayType):
                return count * element.size
            count, element = count * element.length, element.element
        raise BtfError("malformed BTF: an array whose element is the array itself", where=self.btf.origin)


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """A parameter of a function; ``name`` is "" where the kernel does not name it."""

    btf: Btf = dataclasses.field(repr=False)
    name: str
    type_id: int

    @property
    def type(self) -> Type:
        """The type of the argument."""
        return self.btf.type(self.type_id)


@dataclass(frozen=True, slots=True, eq=False)
class Prototype:
    """A function's type. ``name`` is "" when a pointer led to it; ``variadic``: it ends in ``...``."""

    btf: Btf = dataclasses.field(repr=False)
    name: str
    result_id: int
    parameters: tuple[Parameter, ...]
    variadic: bool
    size: int = 0

    @property
    def result(self) -> Type:
        """The type of what it returns."""
        return self.btf.type(self.result_id)


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field's place in its struct: ``offset_bits`` from the start; ``bitfield_size`` in bits or 0."""

    offset_bits: int
    bitfield_size: int
    type: Type


@dataclass(slots=True, eq=False)
class StructType:
    """A struct or union of ``size`` bytes; ``name`` is "" for an anonymous one."""

    btf: Btf = dataclasses.field(repr=False)
    type_id: int
    name: str
    keyword: str
    size: int
    #: Where vmklinux.kobject keeps how to read and write the fields.
    layout: Layout | None = dataclasses.field(default=None, repr=False)
    _fields: dict[str, Field] | None = dataclasses.field(default=None, repr=False)

    @property
    def fields(self) -> dict[str, Field]:
        """The fields by name, those of anonymous structs and unions inside included."""
        if self._fields is None:
            self._fields = dict(self.btf.flatten(self.type_id))
        return self._fields

    def field(self, name: str) -> Field:
        """The field of that name; NoSuchField when this kernel's struct has none."""
        try:
            return self.fields[name]
        except KeyError:
            raise NoSuchField(
                f"{self} has no field {name!r}",
                where=self.btf.origin,
                remedy="this kernel may be older or newer than those that have it",
            ) from None

    def __str__(self) -> str:
        """As C writes it, ``struct pci_dev``."""
        return f"{self.keyword} {self.name or '(anonymous)'}"


Type: TypeAlias = (
    VoidType | IntType | FloatType | EnumType | ForwardType | PointerType | ArrayType | StructType | Prototype
)

_VOID = VoidType()


class _Record(NamedTuple):
    """A type's record: its id, its place in the data, and the words of its head, the name being looked up."""

    type_id: int
    at: int
    name: str
    info: int
    #: Bytes, or the id of the type that it refers to.
    size: int

    @property
    def flag(self) -> bool:
        """The kind flag: a union for FWD, signed for enums."""
        return bool(self.info & _KIND_FLAG)


class _Index(msgspec.Struct, frozen=True):
    """What one pass over the records finds out; the first of several types of one name counts."""

    #: Bytes of the data, by which an index of other data is told.
    length: int
    #: array("I") of where in the data each record starts, in the order of type ids.
    offsets: bytes
    #: struct and union names to type ids.
    structs: dict[str, int]
    #: Names of enums, then those that C knows without a tag (int, typedef, float), to type ids.
    enums: dict[str, int]
    ordinary: dict[str, int]
    #: Function names to the type ids of their FUNC records.
    functions: dict[str, int]
    #: Enumerator names to values.
    enumerators: dict[str, int]


_INDEX_DECODER = msgspec.msgpack.Decoder(_Index)


class Btf:
    """The types of a kernel, or of a module on top of its kernel's (``base``).

    ``index``: what ``Btf.index`` gave for the same data earlier; without it one pass over the data makes it.
    ``origin`` names the kernel or module in error messages. Raises BtfError when the data is malformed.
    """

    def __init__(
        self, data: bytes, base: Btf | None = None, index: bytes | None = None, origin: str = "BTF"
    ) -> None:
        self.base = base
        self.origin = origin
        self._data = data
        self._types: dict[int, Type] = {0: _VOID}
        self._first_id = base.end_id if base else 1
        self._first_string = base.end_string if base else 0
        if len(data) < _HEADER.size:
            raise self._malformed("the data ends inside the header", 0)
        magic, version, _flags, header, type_offset, type_length, string_offset, string_length = (
            _HEADER.unpack_from(data)
        )
        if magic != MAGIC:
            raise self._malformed(f"the magic number is {magic:#06x}, not {MAGIC:#06x}", 0)
        if version != VERSION:
            raise self._malformed(f"version {version} is not supported", 2)
        self._types_at, self._types_end = header + type_offset, header + type_offset + type_length
        self._strings_at, self._strings_end = header + string_offset, header + string_offset + string_length
        if max(self._types_end, self._strings_end) > len(data):
            raise self._malformed("the data ends before its types and strings do", len(data))
        if string_length == 0 or data[self._strings_end - 1]:
            raise self._malformed("the strings do not end with a zero byte", self._strings_end)
        #: The first string offset that is not this BTF's or its base's.
        self.end_string: int = self._first_string + string_length
        self._index = self._make_index() if index is None else self._read_index(index)
        self._offsets: array[int] = array("I", self._index.offsets)

    @property
    def end_id(self) -> int:
        """The first type id that is not this BTF's or its base's."""
        return self._first_id + len(self._offsets)

    def index(self) -> bytes:
        """The index, to be kept in a file and given back to ``Btf`` with the same data."""
        return msgspec.msgpack.encode(self._index)

    # ---- what callers ask for ---------------------------------------------------------------------------

    def struct(self, name: str) -> StructType:
        """The struct or union of that tag; NoSuchType when there is none."""
        for btf in self._layers():
            if (type_id := btf._index.structs.get(name)) is not None:
                found = btf.type(type_id)
                assert isinstance(found, StructType)
                return found
        raise self._missing(f"struct or union {name}")

    def named(self, name: str) -> Type:
        """The integer, typedef (``u32``), struct, union or enum of that name; NoSuchType if there is none."""
        for btf in self._layers():
            for names in (btf._index.ordinary, btf._index.structs, btf._index.enums):
                if (type_id := names.get(name)) is not None:
                    return btf.type(type_id)
        raise self._missing(f"type {name}")

    def sizeof(self, name: str) -> int:
        """Bytes of the type of that name; NoSuchType when there is none."""
        return self.named(name).size

    def offsetof(self, struct: str | StructType, path: str) -> int:
        """Bytes from the start of the struct to a member such as ``"dev.driver_data"``.

        NoSuchType or NoSuchField when this kernel has no such thing; BtfError for a bitfield.
        """
        place: Type = self.struct(struct) if isinstance(struct, str) else struct
        bits = 0
        for name in path.split("."):
            if not isinstance(place, StructType):
                raise NoSuchField(f"{struct} has no {path!r}: nothing is inside {name!r}", where=self.origin)
            member = place.field(name)
            if member.bitfield_size:
                raise BtfError(f"{place}: {name!r} is a bitfield and has no address", where=self.origin)
            bits += member.offset_bits
            place = member.type
        return bits // 8

    def function(self, name: str) -> Prototype | None:
        """The prototype of the function of that name, or None."""
        for btf in self._layers():
            if (type_id := btf._index.functions.get(name)) is not None:
                _, _, prototype_id = btf._record(type_id)
                found = btf.type(prototype_id)
                if not isinstance(found, Prototype):
                    raise btf._malformed(f"function {name} has no prototype", btf._place(type_id))
                return dataclasses.replace(found, name=name)
        return None

    def enumerator(self, name: str) -> int:
        """The value of an enumerator such as ``NAPI_STATE_SCHED``; NoSuchType when there is none."""
        for btf in self._layers():
            if (value := btf._index.enumerators.get(name)) is not None:
                return value
        raise self._missing(f"enumerator {name}")

    def type(self, type_id: int) -> Type:
        """The type with that id, its typedefs and qualifiers stripped; callers mostly start from a name."""
        found = self._types.get(type_id)
        if found is None:
            # setdefault, so that threads that decode the same type at once end up with the same object.
            found = self._types.setdefault(type_id, self._decode(type_id))
        return found

    # ---- decoding ---------------------------------------------------------------------------------------

    def _layers(self) -> Iterator[Btf]:
        layer: Btf | None = self
        while layer is not None:
            yield layer
            layer = layer.base

    def _missing(self, what: str) -> NoSuchType:
        return NoSuchType(
            f"there is no {what}",
            where=self.origin,
            remedy="this kernel may be older or newer than those that have it",
        )

    def _malformed(self, what: str, offset: int) -> BtfError:
        return BtfError(
            f"malformed BTF: {what}",
            where=f"{self.origin}, byte {offset:#x}",
            remedy="the file is damaged or of another format; get it again",
        )

    def _string(self, offset: int, record: int) -> str:
        if self.base is not None and offset < self._first_string:
            return self.base._string(offset, record)
        start = self._strings_at + offset - self._first_string
        if start >= self._strings_end:
            raise self._malformed(f"the name at string offset {offset:#x} is outside the strings", record)
        # The strings end with a zero byte, which __init__ has seen.
        return self._data[start : self._data.index(0, start)].decode("utf-8", "replace")

    def _read_index(self, index: bytes) -> _Index:
        try:
            read = _INDEX_DECODER.decode(index)
        except msgspec.DecodeError as error:
            raise BtfError(
                f"the BTF index is damaged: {error}",
                where=self.origin,
                remedy="remove the file that it comes from",
            ) from error
        if read.length != len(self._data):
            raise BtfError(
                "the BTF index belongs to other BTF",
                where=self.origin,
                remedy="remove the file that it comes from",
            )
        return read

    def _make_index(self) -> _Index:
        """Walk over all records once; every record is known to lie inside the data afterwards."""
        data, unpack, string = self._data, _RECORD.unpack_from, self._string
        structs: dict[str, int] = {}
        enums: dict[str, int] = {}
        ordinary: dict[str, int] = {}
        functions: dict[str, int] = {}
        enumerators: dict[str, int] = {}
        names: dict[int, dict[str, int]] = {
            Kind.STRUCT: structs,
            Kind.UNION: structs,
            Kind.ENUM: enums,
            Kind.ENUM64: enums,
            Kind.INT: ordinary,
            Kind.FLOAT: ordinary,
            Kind.TYPEDEF: ordinary,
            Kind.FUNC: functions,
        }
        offsets = array("I")
        at, end, type_id = self._types_at, self._types_end, self._first_id
        while at < end:
            offsets.append(at)
            if at + _RECORD.size > end:
                raise self._malformed("a type record is cut off", at)
            name, info, _ = unpack(data, at)
            kind = info >> 24 & 0x1F
            trailer = _TRAILERS.get(kind)
            if trailer is None:
                raise self._malformed(f"type {type_id} is of unknown kind {kind}", at)
            after = at + 12 + trailer[0] + trailer[1] * (info & 0xFFFF)
            if after > end:
                raise self._malformed(f"type {type_id} ({Kind(kind).name}) reaches beyond the types", at)
            if name and kind in names:
                names[kind].setdefault(string(name, at), type_id)
            if kind in (Kind.ENUM, Kind.ENUM64):
                for enumerator, value in self._enumerators(at, kind, info):
                    enumerators.setdefault(enumerator, value)
            at = after
            type_id += 1
        return _Index(len(data), offsets.tobytes(), structs, enums, ordinary, functions, enumerators)

    def _enumerators(self, at: int, kind: int, info: int) -> Iterator[tuple[str, int]]:
        signed = info & _KIND_FLAG
        count = info & 0xFFFF
        if kind == Kind.ENUM:
            pair = _SIGNED_PAIR if signed else _PAIR
            for name, value in pair.iter_unpack(self._data[at + 12 : at + 12 + 8 * count]):
                yield self._string(name, at), value
            return
        for name, low, high in _TRIPLE.iter_unpack(self._data[at + 12 : at + 12 + 12 * count]):
            value = high << 32 | low
            yield self._string(name, at), value - (1 << 64) if signed and high >> 31 else value

    def _place(self, type_id: int) -> int:
        return self._offsets[type_id - self._first_id]

    def _record(self, type_id: int) -> tuple[int, int, int]:
        """The three words of a record's head: name offset, info, size or type id."""
        index = type_id - self._first_id
        if not 0 <= index < len(self._offsets):
            raise self._malformed(
                f"there is no type {type_id}; the last is {self.end_id - 1}", self._types_end
            )
        words: tuple[int, int, int] = _RECORD.unpack_from(self._data, self._offsets[index])
        return words

    def _decode(self, type_id: int) -> Type:
        if self.base is not None and type_id < self._first_id:
            found = self.base.type(type_id)
            # What the kernel only declares, the module may define.
            return self._complete(found) if isinstance(found, ForwardType) else found
        name, info, size = self._record(type_id)
        kind = info >> 24 & 0x1F
        for _ in range(_CHAIN_LIMIT):
            if kind not in _TRANSPARENT:
                break
            if size < self._first_id:
                return self.type(size)
            type_id = size
            name, info, size = self._record(type_id)
            kind = info >> 24 & 0x1F
        decode = _DECODERS.get(kind)
        at = self._place(type_id)
        if decode is None:
            raise self._malformed(f"type {type_id} ({Kind(kind).name}) is not the type of a value", at)
        if type_id in self._types:
            return self._types[type_id]
        return self._types.setdefault(
            type_id, decode(self, _Record(type_id, at, self._string(name, at), info, size))
        )

    def _decode_int(self, record: _Record) -> Type:
        (word,) = _WORD.unpack_from(self._data, record.at + 12)
        encoding, shift, bits = word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF
        if shift or bits != record.size * 8:
            raise self._malformed(
                f"integer {record.name} is a bitfield by itself, which Linux does not use", record.at
            )
        return IntType(record.name, record.size, bool(encoding & _INT_SIGNED), bool(encoding & _INT_BOOL))

    def _decode_float(self, record: _Record) -> Type:
        return FloatType(record.name, record.size)

    def _decode_pointer(self, record: _Record) -> Type:
        return PointerType(self, record.size)

    def _decode_array(self, record: _Record) -> Type:
        element, _index_type, length = _TRIPLE.unpack_from(self._data, record.at + 12)
        return ArrayType(self, element, length)

    def _decode_struct(self, record: _Record) -> Type:
        keyword = "union" if record.info >> 24 & 0x1F == Kind.UNION else "struct"
        return StructType(self, record.type_id, record.name, keyword, record.size)

    def _decode_enum(self, record: _Record) -> Type:
        enumerators = dict(self._enumerators(record.at, record.info >> 24 & 0x1F, record.info))
        return EnumType(record.name, record.size, record.flag, enumerators)

    def _decode_forward(self, record: _Record) -> Type:
        return self._complete(ForwardType(record.name, "union" if record.flag else "struct"))

    def _decode_prototype(self, record: _Record) -> Type:
        count = record.info & 0xFFFF
        words = list(_PAIR.iter_unpack(self._data[record.at + 12 : record.at + 12 + 8 * count]))
        # Two zeros at the end stand for "...".
        variadic = bool(words) and words[-1] == (0, 0)
        if variadic:
            words.pop()
        parameters = tuple(
            Parameter(self, self._string(parameter, record.at), type_id) for parameter, type_id in words
        )
        return Prototype(self, "", record.size, parameters, variadic)

    def _complete(self, forward: ForwardType) -> Type:
        """The definition of what is only declared, by name; the declaration itself where there is none."""
        for btf in self._layers():
            if (type_id := btf._index.structs.get(forward.name)) is not None:
                return btf.type(type_id)
        return forward

    def flatten(
        self, type_id: int, outer: tuple[int, ...] = (), bits: int = 0
    ) -> Iterator[tuple[str, Field]]:
        """The named fields of a struct record and those inside its anonymous members, ``bits`` further on."""
        if self.base is not None and type_id < self._first_id:
            yield from self.base.flatten(type_id, outer, bits)
            return
        _, info, _ = self._record(type_id)
        at = self._place(type_id)
        if type_id in outer:
            raise self._malformed(f"struct type {type_id} contains itself", at)
        members = self._data[at + 12 : at + 12 + 12 * (info & 0xFFFF)]
        for name_offset, member_id, offset in _TRIPLE.iter_unpack(members):
            width, start = (offset >> 24, offset & 0xFFFFFF) if info & _KIND_FLAG else (0, offset)
            member = self.type(member_id)
            if name_offset:
                yield self._string(name_offset, at), Field(bits + start, width, member)
            elif isinstance(member, StructType):
                yield from member.btf.flatten(member.type_id, (*outer, type_id), bits + start)


_DECODERS: Mapping[int, Callable[[Btf, _Record], Type]] = {
    Kind.INT: Btf._decode_int,
    Kind.FLOAT: Btf._decode_float,
    Kind.PTR: Btf._decode_pointer,
    Kind.ARRAY: Btf._decode_array,
    Kind.STRUCT: Btf._decode_struct,
    Kind.UNION: Btf._decode_struct,
    Kind.ENUM: Btf._decode_enum,
    Kind.ENUM64: Btf._decode_enum,
    Kind.FWD: Btf._decode_forward,
    Kind.FUNC_PROTO: Btf._decode_prototype,
}
