"""Registers as native drivers declare them.

Independent side: fields are cut and put together here bit by bit, as text of binary digits; windows are lists of bytes.
"""

from __future__ import annotations

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel_core.errors import DeviceGone
from vmklinux.native.register import Bits, FieldError, Register, Registers, RegisterTimeout, bit, bits


class CTRL(Register):
    """Control."""

    offset, width = 0x10, 32
    FD = bit(0)
    SPEED = bits(8, 9)
    RST = bit(26)
    HIGH = bits(30, 31)


class RAL(Register):
    """An array of addresses."""

    offset, width, count, stride = 0x40, 16, 4, 8
    ADDRESS = bits(0, 15)


class Window:
    """Registers that are memory; ``script`` has values that reads of 0x10 give first."""

    def __init__(self, *script: int) -> None:
        self.memory = bytearray(0x80)
        self.script = list(script)
        self.gone = False
        self.reads = 0

    def read(self, offset: int, size: int) -> int:
        self.reads += 1
        if self.gone:
            return (1 << size * 8) - 1
        if self.script:
            return self.script.pop(0)
        return int.from_bytes(self.memory[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.memory[offset : offset + size] = value.to_bytes(size, "little")


def declare(name: str, base: type[Register] = Register, **contents: object) -> type[Register]:
    """A register that a test makes up; a Bits that is not declared in a class body has no type."""
    made: type[Register] = types.new_class(name, (base,), exec_body=lambda space: space.update(contents))
    return made


def test_a_value_has_its_fields() -> None:
    value = CTRL(0x0400_0301)
    assert (value.FD, value.SPEED, value.RST, value.HIGH) == (1, 3, 1, 0)
    assert int(value) == 0x0400_0301
    assert value.replace(FD=0, HIGH=2) == CTRL(0x8400_0300)
    assert value == CTRL(0x0400_0301)  # it did not change
    assert CTRL(FD=1, SPEED=2) == CTRL(0x201)
    assert repr(CTRL(FD=1, SPEED=2)) == "<CTRL 0x00000201 FD=1 SPEED=2>"
    assert CTRL(0x201) != RAL(0x201)
    assert CTRL(1)
    assert not CTRL()
    assert CTRL.SPEED.mask == 0x300


@given(raw=st.integers(0, 2**32 - 1), low=st.integers(0, 31), data=st.data())
def test_fields_are_the_bits_of_the_register(raw: int, low: int, data: st.DataObject) -> None:
    high = data.draw(st.integers(low, 31))
    value = data.draw(st.integers(0, 2 ** (high - low + 1) - 1))
    kind = declare("KIND", offset=0, F=Bits(low, high))
    text = f"{raw:032b}"
    assert getattr(kind(raw), "F") == int(text[31 - high : 32 - low], 2)  # noqa: B009  # the class is made here
    changed = text[: 31 - high] + f"{value:0{high - low + 1}b}" + text[32 - low :]
    assert int(kind(raw).replace(F=value)) == int(changed, 2)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: CTRL(SPEED=4), "4 is not 0 to 3 (SPEED of CTRL)"),
        (lambda: CTRL(FD=-1), "-1 is not 0 to 1"),
        (lambda: CTRL(FDX=1), "CTRL has no field FDX; it has FD, SPEED, RST, HIGH"),
        (lambda: CTRL(1 << 32), "0x100000000 does not fit the 32 bits of CTRL"),
        (lambda: RAL(-1), "does not fit"),
        (lambda: RAL[4], "there is no RAL[4] (4 of them)"),
        (lambda: bits(9, 8), "bits(9, 8) is no field"),
        (
            lambda: declare("BAD", offset=0, width=8, F=bit(8)),
            "BAD has 8 bits",
        ),
        (lambda: declare("BAD", CTRL, F=bits(1, 8)), "F of BAD shares bits"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, names: str) -> None:
    assert callable(make)
    with pytest.raises(FieldError) as caught:
        make()
    assert names in str(caught.value)


def test_reading_and_writing_go_to_the_window() -> None:
    window = Window()
    regs = Registers(window, "0000:00:05.0")
    regs.write(CTRL(RST=1))
    assert window.memory[0x10:0x14] == bytes([0, 0, 0, 4])
    assert regs.modify(CTRL, RST=0, FD=1) == CTRL(FD=1) == regs.read(CTRL)
    regs.write(RAL[3](0x1234))
    assert window.memory[0x58:0x5A] == bytes([0x34, 0x12])
    assert regs.read(RAL[3]).ADDRESS == 0x1234
    assert repr(regs.read(RAL[3])) == "<RAL[3] 0x1234 ADDRESS=4660>"
    assert RAL[3] is RAL[3]


def test_a_subclass_reaches_registers_otherwise() -> None:
    class Indexed(Registers):
        def load(self, register: type[Register]) -> int:
            self.window.write(0, 1, register.offset)
            return self.window.read(4, register.width >> 3)

    window = Window()
    window.memory[4:8] = bytes([1, 0, 0, 0])
    assert Indexed(window, "device").read(CTRL).FD == 1
    assert window.memory[0] == 0x10


def test_a_wait_ends_when_the_fields_are_as_wanted() -> None:
    window = Window(*[0x0400_0001] * 20, 0x0000_0201)
    value = Registers(window, "device").wait(CTRL, 10, RST=0, FD=1)
    assert value.SPEED == 2
    assert window.reads == 21


def test_a_wait_has_a_limit_and_names_the_register() -> None:
    window = Window()
    regs = Registers(window, "0000:00:05.0")
    regs.write(CTRL(RST=1))
    with pytest.raises(RegisterTimeout) as caught:
        regs.wait(CTRL, 0.01, RST=0)
    assert (
        str(caught.value) == "CTRL did not become RST=0 within 0.01 s: <CTRL 0x04000000 RST=1> (0000:00:05.0)"
    )
    assert window.reads > 1


def test_a_wait_ends_when_the_device_is_gone() -> None:
    window = Window()
    window.gone = True
    with pytest.raises(DeviceGone):
        Registers(window, "device").wait(CTRL, 100, RST=0)
