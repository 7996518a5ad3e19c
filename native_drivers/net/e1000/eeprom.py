"""The EEPROM: words of 16 bits, read by the EERD register or over its Microwire pins (SDM 5.3 to 5.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import EECD, EERD, EERD_82574
from vmkernel_core.errors import VmkError
from vmklinux.native.timer import msleep, udelay

if TYPE_CHECKING:
    from native_drivers.net.e1000.chips import Chip
    from vmklinux.native.register import Registers

#: Words by their meaning (SDM table 5-1).
MAC_ADDRESS, INIT_CONTROL_2, INIT_CONTROL_3, CHECKSUM = 0x00, 0x0F, 0x14, 0x3F
#: What words 0 to 0x3F add up to (SDM 5.6.35).
SUM = 0xBABA
#: Seconds that a word, and the grant of the pins, may take.
_READ_LIMIT, _GRANT_LIMIT = 0.1, 1.0
#: Microseconds between two edges of the Microwire clock: a 93C46 takes 1 MHz (its data sheet).
_HALF_CLOCK = 1
#: Milliseconds between words, for others who have something to do: a word takes some too.
_REST = 0.05
_READ_COMMAND, _COMMAND_BITS = 0b110, 3


class EepromError(VmkError):
    """The EEPROM does not answer, or holds what cannot be."""


class Eeprom:
    """A chip's EEPROM; ``words`` is how many it has."""

    def __init__(self, registers: Registers, chip: Chip) -> None:
        """Reads its size."""
        self._registers = registers
        self._form = None if chip.early else EERD_82574 if chip.express else EERD
        large = bool(registers.read(EECD).SIZE) and not chip.express
        self.words = 256 if large else 64
        self._address_bits = 8 if large else 6

    def read(self, at: int, count: int = 1) -> list[int]:
        """Words from an address on. RegisterTimeout."""
        read = self._by_pins if self._form is None else self._by_register
        return [read(word) for word in range(at, at + count)]

    @property
    def checksum_is_good(self) -> bool:
        """Whether the first 64 words add up."""
        return sum(self.read(0, CHECKSUM + 1)) & 0xFFFF == SUM

    def mac_address(self) -> bytes:
        """The station address. EepromError when the checksum is wrong, or it is no address."""
        if not self.checksum_is_good:
            raise EepromError("the EEPROM's checksum is wrong", where=self._registers.name)
        mac = b"".join(word.to_bytes(2, "little") for word in self.read(MAC_ADDRESS, 3))
        if mac[0] & 1 or not any(mac):
            raise EepromError(
                f"the EEPROM has no station address but {mac.hex(':')}", where=self._registers.name
            )
        return mac

    def _by_register(self, word: int) -> int:
        assert self._form is not None
        self._registers.write(self._form(START=1, ADDR=word))
        return int(self._registers.wait(self._form, _READ_LIMIT, DONE=1)) >> 16  # DATA, in either form

    def _by_pins(self, word: int) -> int:
        self._registers.modify(EECD, REQ=1)
        try:
            self._pins = self._registers.wait(EECD, _GRANT_LIMIT, GNT=1).replace(SK=0, DI=0, CS=0)
            self._set(CS=1)
            self._send(_READ_COMMAND, _COMMAND_BITS)
            self._send(word, self._address_bits)
            value = 0
            for _ in range(16):
                value = value << 1 | self._set(SK=1).DO
                self._set(SK=0)
            self._set(CS=0)
            self._clock()
            return value
        finally:
            self._registers.modify(EECD, REQ=0)
            msleep(_REST)

    def _send(self, value: int, count: int) -> None:
        for number in reversed(range(count)):
            self._set(DI=value >> number & 1)
            self._clock()
        self._set(DI=0)

    def _clock(self) -> None:
        self._set(SK=1)
        self._set(SK=0)

    def _set(self, **pins: int) -> EECD:
        """Move pins; what all of them are once the chip has seen it."""
        self._pins = self._pins.replace(**pins)
        self._registers.write(self._pins)
        seen = self._registers.read(EECD)
        udelay(_HALF_CLOCK)
        return seen
