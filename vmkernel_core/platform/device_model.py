"""Device models: PCI functions that live in this process, as Python objects.

A model is driven from outside through four doors: configuration space, its BARs, ``reset`` and (for
network devices) the wire. It reaches out through two: DMA into machine memory and its interrupt pin.
Configuration space behaves as the PCI Local Bus Specification 3.0, chapter 6, says.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmkernel_core.bus import Space

CONFIG_SIZE = 256

# Offsets of a type 0 header (PCI 3.0, section 6.1).
_COMMAND = 0x04
_STATUS = 0x06
_BAR0 = 0x10
_FIRST_CAPABILITY = 0x34
_PIN = 0x3D

# Command (section 6.2.2) and status (section 6.2.3) bits.
_COMMAND_IO = 1 << 0
_COMMAND_MEMORY = 1 << 1
_COMMAND_MASTER = 1 << 2
_COMMAND_NO_INTX = 1 << 10
_STATUS_INTERRUPT = 1 << 3
_STATUS_CAPABILITIES = 1 << 4
_STATUS_MASTER_ABORT = 1 << 13

#: Header fields that software may write: offset, size in bytes, writable bits.
_WRITABLE = (
    (_COMMAND, 2, 0x0557),  # I/O, memory, master, MWI, parity, SERR#, interrupt disable
    (0x0C, 1, 0xFF),  # cache line size
    (0x0D, 1, 0xFF),  # latency timer
    (0x3C, 1, 0xFF),  # interrupt line
)
#: Status bits that writing 1 clears: the error bits.
_STATUS_CLEARED_BY_ONE = 0xF900

POWER_MANAGEMENT = 0x01
_PMCSR = 4
_PMCSR_STATE = 3


@dataclass(frozen=True, slots=True)
class PciIdentity:
    """Who a function says it is; ``class_code`` has 24 bits (base class, subclass, programming interface)."""

    vendor: int
    device: int
    revision: int
    class_code: int
    subsystem_vendor: int
    subsystem: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A base address register: its number 0…5, the bytes it decodes (a power of two), and the space."""

    index: int
    size: int
    space: Space


@dataclass(frozen=True, slots=True)
class Capability:
    """An entry of the capability list: where it lies, its id, and what follows its two-byte header.

    ``writable`` and ``cleared_by_one`` are bit masks as long as ``body``.
    """

    offset: int
    id: int
    body: bytes
    writable: bytes
    cleared_by_one: bytes


def power_management(offset: int) -> Capability:
    """The PCI power management capability (version 2, D0 and D3hot): its state, PME enable and PME status."""
    return Capability(
        offset,
        POWER_MANAGEMENT,
        body=bytes.fromhex("220000000000"),
        writable=bytes.fromhex("000003010000"),
        cleared_by_one=bytes.fromhex("000000800000"),
    )


@dataclass(frozen=True, slots=True)
class Window:
    """Bus addresses ``start`` up to ``end`` (exclusive) of a space that a BAR decodes now."""

    space: Space
    start: int
    end: int
    bar: int


class DeviceModel(ABC):
    """A PCI function without hardware.

    Life cycle: ``start``, use, ``stop``; it may be started again. ``unplug`` ends it early: from then on it
    answers all ones and takes no writes, as an empty slot does. Whoever calls it from several threads holds
    ``lock``; nothing in a model takes the lock itself.
    """

    def __init__(
        self,
        identity: PciIdentity,
        bars: Sequence[Bar],
        capabilities: Sequence[Capability] = (),
        *,
        interrupt_pin: int = 1,
        status: int = 0x0200,
    ) -> None:
        """``interrupt_pin`` is 1…4 (INTA…INTD), 0: none; ``status`` the PCI status register after reset."""
        self.identity = identity
        self.bars = tuple(bars)
        self.lock = threading.Lock()
        self.unplugged = False
        #: Machine memory as the device reaches it: empty while bus mastering is off.
        self.dma = memoryview(b"")
        #: The same as native 64-bit words, so that a descriptor's half is read or written at one stroke.
        self.dma_words = self.dma.cast("Q")
        self._memory = self.dma
        self._raise_line: Callable[[bool], None] = _no_line
        self._interrupt = False
        self._power_offset = 0
        self._capabilities = tuple(capabilities)
        self._interrupt_pin = interrupt_pin
        self._status = status
        self._config = bytearray(CONFIG_SIZE)
        self._writable = bytearray(CONFIG_SIZE)
        self._cleared_by_one = bytearray(CONFIG_SIZE)
        self._lay_out_config()

    # ---- life cycle ----

    def start(self, memory: memoryview, raise_line: Callable[[bool], None]) -> None:
        """Power on: DMA goes to ``memory``; each change of the interrupt pin is told to ``raise_line``."""
        self._memory = memory
        self._raise_line = raise_line
        self.unplugged = False
        self._lay_out_config()
        self._master_changed()
        self.power_on()

    def stop(self) -> None:
        """Power off: the pin is released and machine memory let go. May be called twice."""
        self.set_interrupt(False)
        self._raise_line = _no_line
        self._detach_memory()
        self._memory = self.dma

    def unplug(self) -> None:
        """Pull the card out of its slot while it runs."""
        self.stop()
        self.unplugged = True

    @abstractmethod
    def power_on(self) -> None:
        """Bring all state to what it is after power-on, configuration space aside."""

    @abstractmethod
    def reset(self) -> None:
        """Reset as a change from D3hot to D0 does: all but what outlives a reset of the function."""

    # ---- configuration space ----

    def config_read(self, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of configuration space; all ones beyond its 256 bytes."""
        if self.unplugged or offset + size > CONFIG_SIZE:
            return (1 << size * 8) - 1
        return int.from_bytes(self._config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of configuration space; read-only bits keep their value."""
        if self.unplugged or offset + size > CONFIG_SIZE:
            return
        asleep = self._asleep()
        for place, byte in enumerate(value.to_bytes(size, "little"), offset):
            writable = self._writable[place]
            kept = self._config[place] & ~(byte & self._cleared_by_one[place])
            self._config[place] = (kept & ~writable) | (byte & writable)
        self._master_changed()
        self._drive_line()
        if asleep and not self._asleep():
            self.reset()

    def windows(self) -> list[Window]:
        """What the BARs decode now: nothing of a space that the command register has off or in D3hot."""
        command = self._word(_COMMAND)
        if self.unplugged or self._asleep():
            return []
        decoded = {Space.MEMORY: command & _COMMAND_MEMORY, Space.IO: command & _COMMAND_IO}
        found = []
        for bar in self.bars:
            start = self.config_read(_BAR0 + 4 * bar.index, 4) & -bar.size
            if start and decoded[bar.space]:
                found.append(Window(bar.space, start, start + bar.size, bar.index))
        return found

    # ---- registers ----

    @abstractmethod
    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Read ``size`` bytes of BAR number ``bar``."""

    @abstractmethod
    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes of BAR number ``bar``."""

    # ---- DMA ----

    def dma_reaches(self, address: int, length: int) -> bool:
        """Whether DMA may go to all of ``length`` bytes; a master abort is recorded when it may not."""
        if address + length <= len(self.dma):
            return True
        self._set_word(_STATUS, self._word(_STATUS) | _STATUS_MASTER_ABORT)
        return False

    def dma_read(self, address: int, length: int) -> bytes:
        """Read machine memory; all ones where nobody answers."""
        if self.dma_reaches(address, length):
            return bytes(self.dma[address : address + length])
        return b"\xff" * length

    def dma_write(self, address: int, data: bytes) -> None:
        """Write machine memory; lost where nobody answers."""
        if self.dma_reaches(address, len(data)):
            self.dma[address : address + len(data)] = data

    # ---- interrupt pin ----

    def set_interrupt(self, level: bool) -> None:
        """Assert or release the interrupt; the pin follows unless the command register disables it."""
        if level != self._interrupt:
            self._interrupt = level
            self._drive_line()

    # ---- inner workings ----

    def _lay_out_config(self) -> None:
        who = self.identity
        for field in (self._config, self._writable, self._cleared_by_one):
            field[:] = bytes(CONFIG_SIZE)
        for offset, size, value in (
            (0x00, 2, who.vendor),
            (0x02, 2, who.device),
            (_STATUS, 2, self._status),
            (0x08, 1, who.revision),
            (0x09, 3, who.class_code),
            (0x2C, 2, who.subsystem_vendor),
            (0x2E, 2, who.subsystem),
            (_PIN, 1, self._interrupt_pin),
        ):
            self._config[offset : offset + size] = value.to_bytes(size, "little")
        for offset, size, value in _WRITABLE:
            self._writable[offset : offset + size] = value.to_bytes(size, "little")
        self._cleared_by_one[_STATUS : _STATUS + 2] = _STATUS_CLEARED_BY_ONE.to_bytes(2, "little")
        for bar in self.bars:
            offset = _BAR0 + 4 * bar.index
            self._config[offset] = 1 if bar.space == Space.IO else 0
            self._writable[offset : offset + 4] = (-bar.size & 0xFFFF_FFFF).to_bytes(4, "little")
        link = _FIRST_CAPABILITY
        for capability in self._capabilities:
            self._config[link] = capability.offset
            self._set_word(_STATUS, self._word(_STATUS) | _STATUS_CAPABILITIES)
            start, end = capability.offset + 2, capability.offset + 2 + len(capability.body)
            self._config[capability.offset] = capability.id
            self._config[start:end] = capability.body
            self._writable[start:end] = capability.writable
            self._cleared_by_one[start:end] = capability.cleared_by_one
            if capability.id == POWER_MANAGEMENT:
                self._power_offset = capability.offset
            link = capability.offset + 1

    def _word(self, offset: int) -> int:
        return self._config[offset] | self._config[offset + 1] << 8

    def _set_word(self, offset: int, value: int) -> None:
        self._config[offset : offset + 2] = value.to_bytes(2, "little")

    def _asleep(self) -> bool:
        return bool(self._power_offset and self._config[self._power_offset + _PMCSR] & _PMCSR_STATE)

    def _detach_memory(self) -> None:
        # A view outlives the mapping of machine memory; an access through it would be a real fault then.
        self.dma_words.release()
        self.dma = memoryview(b"")
        self.dma_words = self.dma.cast("Q")

    def _master_changed(self) -> None:
        masters = bool(self._word(_COMMAND) & _COMMAND_MASTER) and not self._asleep()
        if masters != bool(self.dma):
            self._detach_memory()
            if masters:
                self.dma = self._memory
                self.dma_words = self._memory[: len(self._memory) & ~7].cast("Q")

    def _drive_line(self) -> None:
        status = self._word(_STATUS) & ~_STATUS_INTERRUPT
        self._set_word(_STATUS, status | (_STATUS_INTERRUPT if self._interrupt else 0))
        self._raise_line(self._interrupt and not self._word(_COMMAND) & _COMMAND_NO_INTX)


class NetworkModel(DeviceModel):
    """A network card: a device model with a wire.

    Both directions of the wire have back-pressure, as IEEE 802.3x PAUSE gives it to a real cable: whoever is
    handed frames says how many it took, and keeps none of the rest.
    """

    def __init__(
        self,
        identity: PciIdentity,
        bars: Sequence[Bar],
        capabilities: Sequence[Capability] = (),
        *,
        interrupt_pin: int = 1,
        status: int = 0x0200,
    ) -> None:
        """``interrupt_pin`` is 1…4 (INTA…INTD), 0: none; ``status`` the PCI status register after reset."""
        super().__init__(identity, bars, capabilities, interrupt_pin=interrupt_pin, status=status)
        self.disconnect()

    def connect(self, wire: Callable[[Sequence[bytes]], int], changed: Callable[[], None]) -> None:
        """Attach a wire. ``wire`` is given sent frames (no FCS) and answers how many it took.

        ``changed`` is called, with ``lock`` held, when ``receive_paused`` or ``transmit_paused`` changes.
        """
        self.wire = wire
        self.wire_changed = changed

    def disconnect(self) -> None:
        """Detach the wire: what is sent is lost."""
        self.connect(len, _nobody_listens)

    @property
    @abstractmethod
    def receive_paused(self) -> bool:
        """Whether the card asks the other end to hold its frames back."""

    @property
    @abstractmethod
    def transmit_paused(self) -> bool:
        """Whether the card holds frames that the wire did not take; ``resume_transmit`` tries again."""

    @abstractmethod
    def receive(self, frames: Sequence[bytes]) -> int:
        """Frames arrive (from destination address to payload, no FCS); how many of them the card took."""

    @abstractmethod
    def resume_transmit(self) -> None:
        """The wire has room again."""

    @abstractmethod
    def set_link(self, up: bool) -> None:
        """Plug or pull the network cable."""


def _no_line(level: bool) -> None:
    """A pin that is connected to nothing."""


def _nobody_listens() -> None:
    """A wire's news that nobody asked for."""
