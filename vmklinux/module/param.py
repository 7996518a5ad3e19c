"""Module parameters: what a module takes, and which bytes a setting such as ``debug=16`` writes into it.

The syntax is that of Linux (kernel/params.c, lib/kstrtox.c): whole numbers in decimal, ``0x`` hexadecimal or
``0`` octal; lists with commas; ``-`` and ``_`` are the same in names. Deviations: a truth value is a whole
word, where Linux looks at its first letters only; and a parameter that the driver reads by a function of its
own cannot be set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from struct import Struct
from typing import Final, Protocol

from vmklinux.module.elf import ModuleFile, Reference
from vmklinux.module.errors import BadParameter, CorruptModule
from vmklinux.module.layout import Section

Value = int | str
"""One value of a parameter."""


class Types(Protocol):
    """Where the kernel's fields are, in bytes; vmklinux.btf.Btf is one."""

    def offsetof(self, struct: str, path: str, /) -> int:
        """The place of a field in a struct."""

    def sizeof(self, name: str, /) -> int:
        """The size of a type."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes to store at an offset from the module's base."""

    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class StringWrite:
    """A pointer to store at an offset from the module's base: to a copy of ``text`` that outlives the module.

    ``text`` ends with its NUL.
    """

    offset: int
    text: bytes


_DIGITS: Final = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<octal>0[0-7]*)|(?P<decimal>[1-9][0-9]*))"
)
_LONGEST: Final = 24
"""Characters; the longest 64-bit number (octal, with its sign) has 24."""
_BASES: Final = {"hex": 16, "octal": 8, "decimal": 10}
_TRUTH: Final = {
    **dict.fromkeys(("y", "yes", "1", "on", "t", "true"), 1),
    **dict.fromkeys(("n", "no", "0", "off", "f", "false"), 0),
}
_CHARP_LIMIT: Final = 1024
"""Characters that param_set_charp takes."""


def _number(text: str) -> int | None:
    match = _DIGITS.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    base = match.lastgroup or "decimal"
    value = int(match[base], _BASES[base])
    return -value if match["sign"] == "-" else value


def _truth(text: str) -> int | None:
    return _TRUTH.get(text.lower())


def _untruth(text: str) -> int | None:
    value = _truth(text)
    return None if value is None else 1 - value


@dataclass(frozen=True, slots=True)
class ParameterType:
    """A kind of parameter, named as in module_param().

    ``parse`` gives None for what is no such value; ``field`` is its memory; ``bare`` says whether the name
    alone sets it, as ``=1`` would.
    """

    name: str
    expects: str
    parse: Callable[[str], Value | None]
    field: Struct
    bare: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest number that the field holds."""
        bits = self.field.size * 8
        if self.field.format.islower():
            return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return 0, (1 << bits) - 1


_POINTER: Final = Struct("<Q")
_WHOLE: Final = "a whole number"
_YES_NO: Final = "y or n"
_TEXT: Final = "text"

TYPES: Final[Mapping[str, ParameterType]] = {
    f"param_ops_{row.name}": row
    for row in (
        ParameterType("byte", _WHOLE, _number, Struct("<B")),
        ParameterType("short", _WHOLE, _number, Struct("<h")),
        ParameterType("ushort", _WHOLE, _number, Struct("<H")),
        ParameterType("int", _WHOLE, _number, Struct("<i")),
        ParameterType("uint", _WHOLE, _number, Struct("<I")),
        ParameterType("long", _WHOLE, _number, Struct("<q")),
        ParameterType("ulong", _WHOLE, _number, Struct("<Q")),
        ParameterType("ullong", _WHOLE, _number, Struct("<Q")),
        ParameterType("hexint", _WHOLE, _number, Struct("<I")),
        ParameterType("bool", _YES_NO, _truth, Struct("<B"), bare=True),
        ParameterType("invbool", _YES_NO, _untruth, Struct("<B")),
        ParameterType("bint", _YES_NO, _truth, Struct("<i"), bare=True),
        ParameterType("charp", _TEXT, str, _POINTER),
        ParameterType("string", _TEXT, str, Struct("")),
    )
}
"""By what ``__param`` refers to (kernel/params.c). ``charp`` is a pointer, ``string`` a buffer."""

CUSTOM: Final = ParameterType("custom", "what its driver says", lambda _text: None, Struct(""))
"""A parameter that the driver reads by a function of its own."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a module.

    ``count`` is the most values it takes, 1 unless ``array``. ``offset`` is the place of its first value from
    the module's base (0 for a CUSTOM one), ``stride`` the distance to the next in bytes, ``count_offset`` the
    place of the number of values given (None: the driver does not ask), ``capacity`` the size of a
    ``string``'s buffer with its NUL.
    """

    module: str
    name: str
    type: ParameterType
    description: str
    array: bool = False
    count: int = 1
    offset: int = 0
    stride: int = 0
    count_offset: int | None = None
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter and the values that it is given."""

    parameter: Parameter
    values: tuple[Value, ...]


class _Reader:
    """Reads __param of one module."""

    def __init__(self, module: ModuleFile, types: Types) -> None:
        self._module = module
        self._types = types
        self._storages: dict[str, Callable[[Parameter, Reference], Parameter]] = {
            **dict.fromkeys(TYPES, self._variable),
            "param_ops_string": self._buffer,
            "param_array_ops": self._array,
        }

    def entry(self, section: Section, start: int) -> Parameter:
        """The struct kernel_param at ``start``."""
        name = self._module.text(self._pointer(section, start, "kernel_param", "name"))
        operations = self._pointer(section, start, "kernel_param", "ops").symbol
        parameter = Parameter(
            self._module.name,
            name,
            TYPES.get(operations, CUSTOM),
            self._module.info.parameters.get(name, ""),
        )
        complete = self._storages.get(operations)
        if complete is not None:
            argument = self._pointer(section, start, "kernel_param", "arg")
            parameter = complete(parameter, argument)
        self._check_declared(parameter)
        return parameter

    def _variable(self, parameter: Parameter, place: Reference) -> Parameter:
        return replace(parameter, offset=self._room(parameter, place, parameter.type.field.size))

    def _buffer(self, parameter: Parameter, place: Reference) -> Parameter:
        home, at = self._inside(place)
        capacity = self._uint(home, at, "kparam_string", "maxlen")
        string = self._pointer(home, at, "kparam_string", "string")
        return replace(parameter, offset=self._room(parameter, string, capacity), capacity=capacity)

    def _array(self, parameter: Parameter, place: Reference) -> Parameter:
        home, at = self._inside(place)
        count = self._uint(home, at, "kparam_array", "max")
        stride = self._uint(home, at, "kparam_array", "elemsize")
        kind = TYPES.get(self._pointer(home, at, "kparam_array", "ops").symbol, CUSTOM)
        elements = self._pointer(home, at, "kparam_array", "elem")
        given = self._module.reference(home, at + self._types.offsetof("kparam_array", "num"))
        return replace(
            parameter,
            type=kind,
            array=True,
            count=count,
            offset=self._room(parameter, elements, count * max(stride, kind.field.size)),
            stride=stride,
            count_offset=None if given is None else self._room(parameter, given, 4),
        )

    def _check_declared(self, parameter: Parameter) -> None:
        declared = self._module.info.parameter_types.get(parameter.name)
        if declared is None or parameter.type is CUSTOM:
            return
        found = f"array of {parameter.type.name}" if parameter.array else parameter.type.name
        if declared != found:
            raise CorruptModule(
                self._module.name,
                f"parameter {parameter.name} is {found} but declared {declared}",
                where=".modinfo",
            )

    def _pointer(self, section: Section, start: int, struct: str, field: str) -> Reference:
        found = self._module.reference(section, start + self._types.offsetof(struct, field))
        if found is None:
            raise CorruptModule(
                self._module.name, f"{struct}.{field} is empty", where=f"{section.name}+{start:#x}"
            )
        return found

    def _uint(self, section: Section, start: int, struct: str, field: str) -> int:
        return self._module.integer(section, start + self._types.offsetof(struct, field), 4)

    def _inside(self, place: Reference) -> tuple[Section, int]:
        if place.section is None:
            raise CorruptModule(
                self._module.name, f"{place.symbol} is not in the module", where="section __param"
            )
        return place.section, place.offset

    def _room(self, parameter: Parameter, place: Reference, size: int) -> int:
        section, at = self._inside(place)
        if not 0 <= at <= section.size - size:
            raise CorruptModule(
                self._module.name, f"parameter {parameter.name} lies outside its section", where=section.name
            )
        return section.offset + at


def parameters(module: ModuleFile, types: Types) -> dict[str, Parameter]:
    """The parameters that a module takes, by name, in its order; ``types`` is the kernel's BTF.

    Raises CorruptModule when the module's own description of them contradicts itself.
    """
    section = module.section("__param")
    if section is None:
        return {}
    size = types.sizeof("kernel_param")
    reader = _Reader(module, types)
    found = (reader.entry(section, start) for start in range(0, section.size - size + 1, size))
    return {parameter.name: parameter for parameter in found}


def parse_setting(module: str, known: Mapping[str, Parameter], setting: str) -> Setting:
    """Read ``name=value``, or a name alone where that means yes.

    Raises BadParameter: no such parameter, no value of its type, out of range, too many values, too long.
    """
    name, equals, text = setting.partition("=")
    parameter = known.get(name.strip().replace("-", "_"))
    if parameter is None:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known) or 'none'}"
        raise BadParameter(module, f"has no parameter {name!r}", remedy=hint)
    kind = parameter.type
    if kind is CUSTOM:
        raise BadParameter(
            module,
            f"reads parameter {parameter.name} by a function of its own, which is not supported",
            remedy="leave it out",
        )
    if not equals:
        if not kind.bare:
            raise BadParameter(module, f"parameter {parameter.name} needs a value", remedy=f"give {name}=…")
        text = "1"
    texts = text.split(",") if parameter.array else [text]
    if len(texts) > parameter.count:
        raise BadParameter(
            module,
            f"parameter {parameter.name} takes at most {parameter.count} values, not {len(texts)}",
            remedy="leave the last ones out",
        )
    return Setting(parameter, tuple(_value(parameter, text) for text in texts))


def _value(parameter: Parameter, text: str) -> Value:
    kind = parameter.type
    value = kind.parse(text)
    limit = parameter.capacity - 1 if kind.name == "string" else _CHARP_LIMIT
    if isinstance(value, str):
        if len(value.encode()) > limit or "\0" in value:
            raise BadParameter(
                parameter.module,
                f"parameter {parameter.name} takes text of at most {limit} bytes",
                remedy="give a shorter text",
            )
        return value
    low, high = kind.limits
    expects = f"{kind.expects} from {low} to {high}" if kind.expects == _WHOLE else kind.expects
    if value is None or not low <= value <= high:
        raise BadParameter(
            parameter.module,
            f"parameter {parameter.name} ({kind.name}) does not take {text!r}",
            remedy=f"give {expects}",
        )
    return value


def encode(setting: Setting) -> list[Write | StringWrite]:
    """What to store in the linked module, before its init runs, so that the setting holds."""
    parameter = setting.parameter
    writes: list[Write | StringWrite] = []
    if parameter.count_offset is not None:
        writes.append(Write(parameter.count_offset, len(setting.values).to_bytes(4, "little")))
    for number, value in enumerate(setting.values):
        writes.append(_store(parameter, parameter.offset + number * parameter.stride, value))
    return writes


def _store(parameter: Parameter, offset: int, value: Value) -> Write | StringWrite:
    if isinstance(value, int):
        return Write(offset, parameter.type.field.pack(value))
    text = value.encode() + b"\0"
    return Write(offset, text) if parameter.type.name == "string" else StringWrite(offset, text)
