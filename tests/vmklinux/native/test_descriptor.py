"""Structures in memory as native drivers declare them, and the walk over them in C.

Independent side: numbers are cut out of bytes here with int.from_bytes; what C stores is read back by Python and the
other way round.
"""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmklinux.native.descriptor import Descriptor, Field, Table, octets, u8, u16, u32be, u64
from vmklinux.native.device import Device
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.register import FieldError


class TDESC(Descriptor):
    """As the e1000 has it."""

    size = 16
    buffer, length = u64(0), u16(8)
    EOP, DD = u8(11).bit(0), u8(12).bit(0)


class FRAME(Descriptor):
    """A message frame."""

    size = 24
    command, flags = u8(0), u16(2).bits(3, 12)
    block = u32be(4)
    cdb = octets(8, 16)


class MIXED(Descriptor):
    """Of both byte orders."""

    size = 8
    small, large = u16(0), u32be(4)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with MachineMemory(16 << 20) as memory:
        device = Device("device", "driver", memory, IdleLoop(lambda _event: None, lambda: None))
        yield device
        device.devres.release_all()


def test_fields_lie_where_they_are_declared() -> None:
    descriptor = TDESC(buffer=0x1122334455667788, length=0xABCD, EOP=1)
    assert bytes(descriptor) == bytes.fromhex("8877665544332211 cdab 00 01 00 000000")
    descriptor.DD = 1
    descriptor.length -= 1
    assert bytes(descriptor)[8:] == bytes.fromhex("ccab 00 01 01 000000")
    assert repr(descriptor) == "<TDESC buffer=0x1122334455667788 length=0xabcc EOP=0x1 DD=0x1>"
    frame = FRAME(block=0x01020304, cdb=b"\x28\x00", flags=0x3FF)
    assert bytes(frame)[:10] == bytes.fromhex("0000 f81f 01020304 2800")
    assert frame.cdb == b"\x28" + bytes(15)
    assert repr(TDESC.EOP) == "<field EOP: bits 0 to 0 of 1 bytes at 11>"


def test_a_structure_in_shared_memory_is_that_memory() -> None:
    memory = memoryview(bytearray(64))
    frame = FRAME.at(memory, 32)
    frame.command = 7
    assert memory[32] == 7
    memory[36:40] = bytes([0, 0, 1, 0])
    assert frame.block == 0x100


@pytest.mark.parametrize(
    ("act", "names"),
    [
        (lambda: TDESC(EOP=2), "2 is not 0 to 1 (EOP of TDESC)"),
        (lambda: TDESC(length=-1), "-1 is not 0 to 65535"),
        (lambda: TDESC(size=1), "TDESC has no field size; it has buffer, length, EOP, DD"),
        (lambda: FRAME(cdb=bytes(17)), "17 bytes do not fit 16 (cdb of FRAME)"),
        (lambda: FRAME.at(memoryview(bytearray(40)), 20), "no FRAME of 24 bytes lies at 20 of 40 bytes"),
        (lambda: u8(0).bit(8), "bits 8 to 8 do not lie in the 8 bits at 0"),
        (lambda: TDESC.packed(TDESC.length, TDESC.buffer), "buffer of TDESC cannot be packed"),
        (lambda: TDESC.packed(TDESC.EOP), "EOP of TDESC cannot be packed"),
        (lambda: MIXED.packed(MIXED.small, MIXED.large), "small of MIXED cannot be packed"),
        (lambda: octets(3, 0), "there are no 0 bytes at 3"),
        (lambda: type("BAD", (Descriptor,), {"size": 8, "F": u16(7)}), "F ends behind the 8 bytes of BAD"),
    ],
)
def test_what_does_not_fit_is_refused(act: object, names: str) -> None:
    assert callable(act)
    with pytest.raises(FieldError) as caught:
        act()
    assert names in str(caught.value)


def test_packed_writes_what_setting_writes() -> None:
    memory = memoryview(bytearray(b"\xff" * 40))
    compiled = FRAME.packed(FRAME.command, FRAME.block, FRAME.cdb)
    compiled.pack_into(memory, 4, 7, 0x01020304, b"\x28\x01")
    frame = FRAME(command=7, block=0x01020304, cdb=b"\x28\x01")
    assert bytes(memory) == b"\xff" * 4 + bytes(frame) + b"\xff" * 12
    assert compiled.unpack_from(memory, 4) == (7, 0x01020304, b"\x28\x01" + bytes(14))
    assert TDESC.packed(TDESC.length).size == 10


@given(data=st.data(), contents=st.binary(min_size=96, max_size=96))
def test_c_and_python_agree_about_every_field(device: Device, data: st.DataObject, contents: bytes) -> None:
    size = data.draw(st.sampled_from([1, 2, 4, 8]))
    offset = data.draw(st.integers(0, 16 - size))
    shift = data.draw(st.integers(0, size * 8 - 1))
    width = data.draw(st.integers(1, size * 8 - shift))
    big = data.draw(st.booleans())
    field = Field(offset, size, shift, width, big=big)
    kind: type[Descriptor] = types.new_class(
        "KIND", (Descriptor,), exec_body=lambda space: space.update(size=16, F=field)
    )
    memory = dma_alloc_coherent(device, 96)
    memory.view[:96] = contents
    table = Table(kind, memory, 5, offset=8, stride=17)
    slots = data.draw(st.lists(st.integers(0, 12), max_size=7))

    def word(slot: int) -> int:
        at = 8 + slot % 5 * 17 + offset
        return int.from_bytes(memory.view[at : at + size], "big" if big else "little")

    expected = [word(slot) // 2**shift % 2**width for slot in slots]
    assert table.load(slots, field, field) == (expected, expected)
    assert [getattr(table[slot], "F") for slot in slots] == expected  # noqa: B009  # the class is made here

    values = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=len(slots), max_size=len(slots)))
    before = [bytes(table[slot]) for slot in range(5)]
    table.store(slots, {field: values})
    stored = dict(zip((slot % 5 for slot in slots), values, strict=True))
    copies = [bytearray(one) for one in before]
    for slot, value in stored.items():
        setattr(kind.at(memoryview(copies[slot])), "F", value)  # noqa: B010  # likewise
    # Structures overlap by nothing, and lie one byte apart: the rest is as it was.
    assert [bytes(table[slot]) for slot in range(5)] == [bytes(one) for one in copies]
    memory.release.now()


def test_columns_are_stored_at_once(device: Device) -> None:
    memory = dma_alloc_coherent(device, 64)
    table = Table(TDESC, memory, 4)
    table.store(range(3, 6), {TDESC.buffer: [10, 20, 30], TDESC.EOP: 1, TDESC.DD: 0})
    assert table.load(range(4), TDESC.buffer, TDESC.EOP) == ([20, 30, 0, 10], [1, 1, 0, 1])
    assert table[3].buffer == 10
    assert table.dma(5) == memory.dma + 16
    assert len(table) == 4
    assert table.load([], TDESC.DD) == ([],)


def test_a_column_that_does_not_fit_changes_nothing(device: Device) -> None:
    memory = dma_alloc_coherent(device, 64)
    table = Table(TDESC, memory, 4)
    with pytest.raises(FieldError, match="65536 is not 0 to 65535"):
        table.store(range(2), {TDESC.buffer: [1, 2], TDESC.length: [3, 65536]})
    with pytest.raises(FieldError, match="1 values of length for 2 TDESC"):
        table.store(range(2), {TDESC.buffer: [1, 2], TDESC.length: [3]})
    with pytest.raises(FieldError, match="buffer of TDESC is 0 to"):
        table.store(range(2), {TDESC.buffer: [1, -2]})
    assert bytes(memory.view) == bytes(64)
    with pytest.raises(FieldError, match="5 TDESC do not lie at 0 of 64 bytes"):
        Table(TDESC, memory, 5)
