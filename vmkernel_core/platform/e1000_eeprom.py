"""The 82540EM's EEPROM: a 93C46, 64 words of 16 bits behind four Microwire pins.

Protocol: the 93C46's data sheet (start bit 1, two opcode bits, six address bits, data; all on the rising
clock, chip select high). Contents: the EEPROM address map in Intel's "PCI/PCI-X Family of Gigabit Ethernet
Controllers Software Developer's Manual" (SDM below).
"""

from __future__ import annotations

from collections.abc import Callable

WORDS = 64
_ADDRESS_BITS = 6
_COMMAND_BITS = 2 + _ADDRESS_BITS
_CHECKSUM_WORD = 0x3F
#: What all 64 words add up to (SDM, Checksum Word Calculation).
_SUM = 0xBABA


def image(mac: bytes, *, vendor: int, device: int, subsystem_vendor: int, subsystem: int) -> list[int]:
    """The 64 words of an 82540EM's EEPROM for a six-byte MAC address; words that say nothing are zero."""
    words = [0] * WORDS
    words[0x00:0x03] = [mac[i] | mac[i + 1] << 8 for i in (0, 2, 4)]
    words[0x0A] = 0x4003  # Initialization Control 1: signature 01, load the ids below
    words[0x0B:0x0F] = [subsystem, subsystem_vendor, device, vendor]
    words[0x0F] = 0x3000  # Initialization Control 2: symmetric and asymmetric PAUSE
    words[_CHECKSUM_WORD] = (_SUM - sum(words)) & 0xFFFF
    return words


class MicrowireEeprom:
    """The chip: ``words`` are its contents; ``data_out`` is the level of its DO pin."""

    def __init__(self, words: list[int]) -> None:
        """The 64 words are changed in place by what is written."""
        self.words = words
        self.data_out = 1
        self._select = 0
        self._clock = 0
        self._write_enabled = False
        self._execute: Callable[[], None] | None = None
        self._await_start()

    def drive(self, select: int, clock: int, data_in: int) -> None:
        """Set the chip's three input pins, each 0 or 1."""
        rising = clock and not self._clock
        self._clock = clock
        if select != self._select:
            self._select = select
            self._selection_changed()
        elif select and rising:
            self._shift(data_in)

    def _await_start(self) -> None:
        self._started = False
        self._bits = 0
        self._shifted = 0
        self._wanted = _COMMAND_BITS
        self._address = 0
        self._all = False
        self._reading = False

    def _selection_changed(self) -> None:
        # The chip does what it was told when the select pin falls, and is ready (DO high) at once.
        if not self._select and self._execute:
            self._execute()
        self._execute = None
        self.data_out = 1
        self._await_start()

    def _shift(self, data_in: int) -> None:
        if self._reading:
            self._shift_out()
            return
        if not self._started:
            self._started = bool(data_in)
            return
        if self._shifted < self._wanted:
            self._bits = self._bits << 1 | data_in
            self._shifted += 1
            if self._shifted == self._wanted:
                self._complete()

    def _shift_out(self) -> None:
        if not self._shifted:
            self._bits = self.words[self._address]
            self._address = (self._address + 1) % WORDS
            self._shifted = 16
        self._shifted -= 1
        self.data_out = self._bits >> self._shifted & 1

    def _complete(self) -> None:
        """All bits of an instruction, or of the data that it takes, have arrived."""
        if self._wanted == 16:
            data = self._bits
            self._execute = lambda: self._store(range(WORDS) if self._all else (self._address,), data)
            return
        opcode, self._address = divmod(self._bits, 1 << _ADDRESS_BITS)
        extended = self._address >> _ADDRESS_BITS - 2
        self._all = opcode == 0
        instructions: dict[tuple[int, int], Callable[[], None]] = {
            (0b00, 0b00): lambda: self._enable_writes(False),  # EWDS
            (0b00, 0b01): self._take_data,  # WRAL
            (0b00, 0b10): lambda: self._arm(range(WORDS)),  # ERAL
            (0b00, 0b11): lambda: self._enable_writes(True),  # EWEN
            (0b01, 0): self._take_data,  # WRITE
            (0b10, 0): self._read,  # READ
            (0b11, 0): lambda: self._arm((self._address,)),  # ERASE
        }
        instructions[opcode, 0 if opcode else extended]()

    def _enable_writes(self, enabled: bool) -> None:
        self._write_enabled = enabled

    def _take_data(self) -> None:
        self._bits, self._shifted, self._wanted = 0, 0, 16

    def _read(self) -> None:
        self._reading = True
        self._shifted = 0
        self.data_out = 0  # the dummy bit that precedes the data

    def _arm(self, addresses: range | tuple[int, ...]) -> None:
        self._execute = lambda: self._store(addresses, 0xFFFF)

    def _store(self, addresses: range | tuple[int, ...], data: int) -> None:
        if self._write_enabled:
            for address in addresses:
                self.words[address] = data
