"""The serial EEPROM of an 8255x: a 93C46 or 93C66, clocked bit by bit through EEPROM_CONTROL (6.3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e100.registers import EEPROM_CONTROL
from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from vmklinux.native.register import Registers

#: The start bit and the opcode of READ (93C46 datasheet, instruction set).
_READ, _READ_BITS = 0b110, 3
_MOST_ADDRESS_BITS = 8
#: The sum of all words (manual, 5).
_SUM = 0xBABA

#: The offset of the ID word in bytes, and its bit that has magic packets wake the machine from the start (manual, 5).
ID, ID_WAKE = 0x0A * 2, 0x0020


class EepromDamaged(VmkError):
    """The EEPROM's checksum is wrong."""


def read_eeprom(registers: Registers, *, damaged: bool = False) -> bytes:
    """All its bytes. EepromDamaged, unless it may be ``damaged``."""
    address_bits = _address_bits(registers)
    words = [_read_word(registers, address_bits, number) for number in range(1 << address_bits)]
    if sum(words) & 0xFFFF != _SUM and not damaged:
        raise EepromDamaged(
            "the EEPROM's checksum is wrong",
            where=registers.name,
            remedy="eeprom_bad_csum_allow=1 takes the device all the same",
        )
    return b"".join(word.to_bytes(2, "little") for word in words)


def _clock_in(registers: Registers, value: int, count: int) -> None:
    """Give it the lower ``count`` bits of the value, the highest first."""
    for place in reversed(range(count)):
        bit = value >> place & 1
        registers.write(EEPROM_CONTROL(EECS=1, EEDI=bit))
        registers.write(EEPROM_CONTROL(EECS=1, EEDI=bit, EESK=1))


def _clock_out(registers: Registers) -> int:
    """The next bit that it gives."""
    registers.write(EEPROM_CONTROL(EECS=1))
    registers.write(EEPROM_CONTROL(EECS=1, EESK=1))
    return registers.read(EEPROM_CONTROL).EEDO


def _select(registers: Registers) -> None:
    registers.write(EEPROM_CONTROL(EECS=1))
    _clock_in(registers, _READ, _READ_BITS)


def _deselect(registers: Registers) -> None:
    registers.write(EEPROM_CONTROL())


def _address_bits(registers: Registers) -> int:
    """How many bits an address has: after the last it answers with a 0."""
    _select(registers)
    bits = 1
    _clock_in(registers, 0, 1)
    while registers.read(EEPROM_CONTROL).EEDO and bits <= _MOST_ADDRESS_BITS:
        _clock_in(registers, 0, 1)
        bits += 1
    _deselect(registers)
    if bits > _MOST_ADDRESS_BITS:
        raise EepromDamaged("no EEPROM answers", where=registers.name)
    return bits


def _read_word(registers: Registers, address_bits: int, number: int) -> int:
    _select(registers)
    _clock_in(registers, number, address_bits)
    word = 0
    for _ in range(16):
        word = word << 1 | _clock_out(registers)
    _deselect(registers)
    return word
