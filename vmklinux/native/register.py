"""Registers of a device, written down as the datasheet's tables have them.

A class is a register, its attributes are the fields::

    class CTRL(Register):
        \"\"\"Device Control (13.4.1).\"\"\"

        offset, width = 0x0000, 32
        FD = bit(0)
        SPEED = bits(8, 9)

An instance is a value of that register: ``CTRL(FD=1, SPEED=2)``. It never changes and touches no hardware; reading and
writing a device are calls to ``Registers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeVar, cast, overload

from vmkernel_core._core import lib
from vmkernel_core.errors import DeviceGone, TimedOut, UsageError
from vmklinux.native.context import in_atomic
from vmklinux.native.timer import msleep

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTHS = (8, 16, 32, 64)
#: A wait asks without a pause for so long (ns): most bits change within it. Afterwards it sleeps between questions, from
#: FIRST_PAUSE to LAST_PAUSE milliseconds.
EAGER_NS, FIRST_PAUSE, LAST_PAUSE = 200_000, 0.1, 10.0

R = TypeVar("R", bound="Register")
T = TypeVar("T")


class FieldError(UsageError):
    """A field was declared where there is none, is not known, or was given a value that does not fit it."""


class RegisterTimeout(TimedOut):
    """A register did not become what was waited for."""


class Bits:
    """A field of a register: bits ``low`` to ``high``. Of a value it is an int, of the class this object."""

    def __init__(self, low: int, high: int) -> None:
        """FieldError unless 0 <= low <= high."""
        if not 0 <= low <= high:
            raise FieldError(f"bits({low}, {high}) is no field", remedy="the lower bit comes first")
        self.low, self.high = low, high
        #: The greatest value.
        self.most = (1 << high - low + 1) - 1
        #: Its bits in the register.
        self.mask = self.most << low

    @overload
    def __get__(self, value: None, owner: type) -> Self: ...
    @overload
    def __get__(self, value: Register, owner: type) -> int: ...
    def __get__(self, value: Register | None, owner: type) -> Self | int:
        """The field of a value."""
        return self if value is None else value.raw >> self.low & self.most


def bit(number: int) -> Bits:
    """A field of one bit."""
    return Bits(number, number)


def bits(low: int, high: int) -> Bits:
    """A field from bit ``low`` to bit ``high``, both included, the lower one first."""
    return Bits(low, high)


class _RegisterType(type):
    """The type of register classes: looks at what is declared, and counts arrays."""

    fields: Mapping[str, Bits]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, object]) -> None:
        super().__init__(name, bases, namespace)
        cls.fields = {
            key: value
            for base in reversed(cls.__mro__)
            for key, value in vars(base).items()
            if isinstance(value, Bits)
        }
        taken = 0
        for key, field in cls.fields.items():
            if field.high >= cls.width or cls.width not in WIDTHS:
                raise FieldError(f"{name} has {cls.width} bits, {key} is bits {field.low} to {field.high}")
            if field.mask & taken:
                raise FieldError(f"{key} of {name} shares bits with another field")
            taken |= field.mask
        cls.elements: dict[int, _RegisterType] = {}

    offset: int
    width: int
    count: int
    stride: int

    def __getitem__(cls: type[T], index: int) -> type[T]:
        """One register of an array, as a class of its own. FieldError out of range."""
        return cast("type[T]", _element(cast("_RegisterType", cls), index))


def _element(array: _RegisterType, index: int) -> _RegisterType:
    if index not in array.elements:
        if not 0 <= index < array.count:
            raise FieldError(f"there is no {array.__name__}[{index}]", where=f"{array.count} of them")
        place: dict[str, object] = {
            "__doc__": array.__doc__,
            "offset": array.offset + index * array.stride,
            "count": 1,
        }
        array.elements[index] = _RegisterType(f"{array.__name__}[{index}]", (array,), place)
    return array.elements[index]


class Register(metaclass=_RegisterType):
    """A register; an instance is a value of it.

    ``offset``: where it is, in bytes (an index, where a device counts registers). ``width``: its bits, 8, 16, 32 or
    64. An array has ``count`` of them, one each ``stride`` bytes: ``RAL[3]`` is the fourth. ``fields``: by name.
    """

    offset: ClassVar[int]
    width: ClassVar[int] = 32
    count: ClassVar[int] = 1
    stride: ClassVar[int] = 0

    __slots__ = ("raw",)

    def __init__(self, raw: int = 0, /, **fields: int) -> None:
        """The value ``raw`` with the fields that are named. FieldError when something is not known or does not fit."""
        if raw >> self.width:  # also what is negative
            raise FieldError(f"{raw:#x} does not fit the {self.width} bits of {type(self).__name__}")
        for name, value in fields.items():
            field = type(self).fields.get(name)
            if field is None:
                known = ", ".join(type(self).fields)
                raise FieldError(
                    f"{type(self).__name__} has no field {name}", remedy=f"it has {known or 'none'}"
                )
            if not 0 <= value <= field.most:
                raise FieldError(
                    f"{value} is not 0 to {field.most}", where=f"{name} of {type(self).__name__}"
                )
            raw = raw & ~field.mask | value << field.low
        self.raw = raw

    def replace(self, **fields: int) -> Self:
        """The value with other fields. FieldError."""
        return type(self)(self.raw, **fields)

    def __int__(self) -> int:
        """All bits."""
        return self.raw

    __index__ = __int__

    def __bool__(self) -> bool:
        """Whether any bit is set."""
        return self.raw != 0

    def __eq__(self, other: object) -> bool:
        """Same register, same bits."""
        return isinstance(other, Register) and type(self) is type(other) and self.raw == other.raw

    def __hash__(self) -> int:
        """As they are equal."""
        return hash((type(self), self.raw))

    def __repr__(self) -> str:
        """The value, and its fields that are not 0."""
        shown = "".join(f" {name}={value}" for name in type(self).fields if (value := getattr(self, name)))
        return f"<{type(self).__name__} {self.raw:#0{self.width // 4 + 2}x}{shown}>"


class RegisterWindow(Protocol):
    """Where registers are reached: a BAR (``pci.Window``). Offsets and sizes in bytes."""

    @property
    def gone(self) -> bool:
        """Whether nothing answers any more."""

    def read(self, offset: int, size: int) -> int:
        """Read."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Write."""


class Registers:
    """The registers of a device behind a window.

    Where a device reaches registers otherwise, by an index register or over a bus to its PHY, a subclass has its own
    ``load`` and ``store``; ``offset`` is then whatever these make of it. Everything needs the baton.
    """

    def __init__(self, window: RegisterWindow, name: str) -> None:
        """``name``: the device, for errors."""
        self.window = window
        self.name = name

    def load(self, register: type[Register]) -> int:
        """Fetch a register's bits."""
        return self.window.read(register.offset, register.width >> 3)

    def store(self, register: type[Register], raw: int) -> None:
        """Store a register's bits. It may be posted: a read afterwards sees to it that the device has it."""
        self.window.write(register.offset, register.width >> 3, raw)

    def read(self, register: type[R]) -> R:
        """Read a register."""
        return register(self.load(register))

    def write(self, value: Register) -> None:
        """Write a value to its register; posted, as with ``store``."""
        self.store(type(value), value.raw)

    def modify(self, register: type[R], **fields: int) -> R:
        """Read a register and write it with other fields; what was written. FieldError."""
        value = self.read(register).replace(**fields)
        self.write(value)
        return value

    def wait(self, register: type[R], seconds: float, **fields: int) -> R:
        """Read a register until the fields have these values; the value.

        It asks busily for the first 0.2 ms and then sleeps in between, without the baton; in an interrupt handler, which
        must not sleep, it goes on asking. RegisterTimeout; DeviceGone when nothing answers any more.
        """
        mask = register(0, **dict.fromkeys(fields, 0)).raw
        for name in fields:
            mask |= register.fields[name].mask
        wanted, begin, pause = register(0, **fields).raw, lib.vmk_now(), FIRST_PAUSE
        while True:
            late = (
                lib.vmk_now() - begin > seconds * 1e9
            )  # before it is read: a world that was away looks once more
            value = self.read(register)
            if value.raw & mask == wanted:
                return value
            if self.window.gone:
                raise DeviceGone("nothing answers there", where=self.name)
            if late:
                asked = ", ".join(f"{name}={bits}" for name, bits in fields.items())
                raise RegisterTimeout(
                    f"{register.__name__} did not become {asked} within {seconds:g} s: {value}",
                    where=self.name,
                )
            if lib.vmk_now() - begin > EAGER_NS and not in_atomic():
                msleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
