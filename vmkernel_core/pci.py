"""The PCI bus scan: which functions answer, what their configuration space says, and where their BARs go."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vmkernel_core.platform.base import PciAddress, Platform

_log = logging.getLogger(__name__)

# Configuration space, PCI Local Bus Specification 3.0, chapter 6 and appendix D.
VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION_ID = 0x08
CLASS_CODE = 0x09
HEADER_TYPE = 0x0E
BASE_ADDRESS_0 = 0x10
SUBSYSTEM_VENDOR_ID = 0x2C
SUBSYSTEM_ID = 0x2E
CAPABILITIES_POINTER = 0x34
INTERRUPT_PIN = 0x3D
EXTENDED_CONFIG = 0x100
CONFIG_END = 0x1000

COMMAND_IO = 0x1
COMMAND_MEMORY = 0x2
STATUS_CAPABILITIES = 0x10
MULTI_FUNCTION = 0x80
NO_VENDOR = (0x0000, 0xFFFF)

#: Capability ids (PCI Code and ID Assignment Specification) that this layer itself needs.
CAPABILITY_PCI_EXPRESS = 0x10

#: The expansion ROM's base address register of a device and of a PCI-to-PCI bridge; the bits that are no address.
ROM_ADDRESS = {0: 0x30, 1: 0x38}
ROM_MASK = 0x7FF
#: The number that stands for it among BARs.
ROM = 6

#: BARs of each header layout: a device has six, a PCI-to-PCI bridge two, a CardBus bridge one.
_BAR_COUNT = {0: 6, 1: 2, 2: 1}


class PciError(VmkError):
    """The PCI bus cannot be set up."""


class BarKind(StrEnum):
    """What a base address register decodes."""

    IO = "io"
    MEMORY32 = "memory32"
    MEMORY64 = "memory64"


@dataclass(frozen=True, slots=True)
class Bar:
    """One base address register: ``index`` 0…5, ``ROM`` for the expansion ROM's; bus ``address`` and ``size`` in bytes
    (a power of two)."""

    index: int
    kind: BarKind
    prefetchable: bool
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability: its id, its offset in configuration space, whether it is an extended one."""

    id: int
    offset: int
    extended: bool


@dataclass(frozen=True, slots=True)
class PciFunction:
    """What the scan learned about one function. ``class_code`` has 24 bits: class, subclass, interface.

    ``header_type`` is without the multi-function bit, ``interrupt_pin`` 0 for none, 1…4 for INTA…INTD.
    ``secondary`` and ``subordinate`` are the first and the last bus behind a bridge; 0 for everything else.
    """

    address: PciAddress
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    class_code: int
    revision: int
    header_type: int
    interrupt_pin: int
    bars: tuple[Bar, ...]
    capabilities: tuple[Capability, ...]
    multifunction: bool = False
    rom: Bar | None = None
    secondary: int = 0
    subordinate: int = 0

    def __str__(self) -> str:
        """Address and ids, as ``0000:00:05.0 [8086:100e]``."""
        return f"{self.address} [{self.vendor:04x}:{self.device:04x}]"

    def bar(self, index: int) -> Bar | None:
        """The BAR of that index, or None."""
        return next((bar for bar in self.bars if bar.index == index), None)

    def capability(self, id: int, *, extended: bool = False) -> Capability | None:
        """The first capability of that id, or None."""
        return next((c for c in self.capabilities if (c.id, c.extended) == (id, extended)), None)


def scan(platform: Platform) -> list[PciFunction]:
    """Find the platform's functions, give every BAR an address, and switch nothing on.

    Decoding stays off for a function with BARs, bus mastering is left alone. Configuration space that makes
    no sense costs a warning that names the function, and the piece concerned; PciError: there is no room.
    """
    return _place(platform, [_identify(platform, address) for address in _answering(platform)])


def _answering(platform: Platform) -> Iterator[PciAddress]:
    """The addresses where a function is. Functions 1…7 exist only beside a function 0 that says so."""
    single: set[tuple[int, int, int]] = set()
    for address in sorted(platform.functions()):
        slot = (address.domain, address.bus, address.device)
        if address.function and slot in single:
            continue
        here = platform.config_read(address, VENDOR_ID, 2) not in NO_VENDOR
        if here:
            yield address
        if address.function == 0 and not (
            here and platform.config_read(address, HEADER_TYPE, 1) & MULTI_FUNCTION
        ):
            single.add(slot)


def _identify(platform: Platform, address: PciAddress) -> PciFunction:
    def read(offset: int, size: int) -> int:
        return platform.config_read(address, offset, size)

    multifunction = bool(read(HEADER_TYPE, 1) & MULTI_FUNCTION)
    header_type = read(HEADER_TYPE, 1) & ~MULTI_FUNCTION
    pin = read(INTERRUPT_PIN, 1)
    if pin > 4:
        _warn(address, f"interrupt pin {pin} does not exist, taken for none")
        pin = 0
    if header_type not in _BAR_COUNT:
        _warn(address, f"header type {header_type:#x} is unknown, its BARs are left alone")
    is_device = header_type == 0
    return PciFunction(
        address=address,
        vendor=read(VENDOR_ID, 2),
        device=read(DEVICE_ID, 2),
        subsystem_vendor=read(SUBSYSTEM_VENDOR_ID, 2) if is_device else 0,
        subsystem_device=read(SUBSYSTEM_ID, 2) if is_device else 0,
        class_code=read(REVISION_ID, 4) >> 8,
        revision=read(REVISION_ID, 1),
        header_type=header_type,
        interrupt_pin=pin,
        bars=tuple(_size_bars(platform, address, _BAR_COUNT.get(header_type, 0))),
        capabilities=tuple(_capabilities(platform, address)),
        multifunction=multifunction,
        rom=_size_rom(platform, address, ROM_ADDRESS[header_type]) if header_type in ROM_ADDRESS else None,
    )


def _size_bars(platform: Platform, address: PciAddress, count: int) -> Iterator[Bar]:
    """Size the BARs by writing all ones, with decoding off, and put back what was there.

    A function that turns out to have BARs is left with decoding off: they are about to move.
    """
    command = platform.config_read(address, COMMAND, 2)
    platform.config_write(address, COMMAND, 2, command & ~(COMMAND_IO | COMMAND_MEMORY))
    found = False
    index = 0
    while index < count:
        bar = _size_bar(platform, address, index, count)
        if bar is not None:
            found = True
            yield bar
        index += 2 if bar is not None and bar.kind == BarKind.MEMORY64 else 1
    if not found:
        platform.config_write(address, COMMAND, 2, command)


def _probe(platform: Platform, address: PciAddress, offset: int) -> tuple[int, int]:
    """A register's value, and what it reads as after all ones were written; the value is put back."""
    value = platform.config_read(address, offset, 4)
    platform.config_write(address, offset, 4, 0xFFFF_FFFF)
    ones = platform.config_read(address, offset, 4)
    platform.config_write(address, offset, 4, value)
    return value, ones


def _size_bar(platform: Platform, address: PciAddress, index: int, count: int) -> Bar | None:
    offset = BASE_ADDRESS_0 + 4 * index
    value, ones = _probe(platform, address, offset)
    if ones == 0:
        return None
    if ones & 1:
        kind, prefetchable, mask, width = BarKind.IO, False, ones & ~0x3, 32
        if mask < 1 << 16:  # a function may leave the upper half of an I/O BAR out
            width = 16
    else:
        prefetchable, mask, width = bool(ones & 0x8), ones & ~0xF, 32
        match ones >> 1 & 3:
            case 0 | 1:  # 1 once meant "below 1 MiB"
                kind = BarKind.MEMORY32
            case 2 if index + 1 < count:
                kind, width = BarKind.MEMORY64, 64
                high, high_ones = _probe(platform, address, offset + 4)
                value |= high << 32
                mask |= high_ones << 32
            case type_:
                _warn(address, f"BAR {index} is of the impossible type {type_}, ignored")
                return None
    size = (~mask & (1 << width) - 1) + 1
    if size & (size - 1) or size == 1 << width:
        _warn(address, f"BAR {index} answers the size probe with {ones:#x}, which is no size; ignored")
        return None
    return Bar(index, kind, prefetchable, value & mask, size)


def _size_rom(platform: Platform, address: PciAddress, offset: int) -> Bar | None:
    """Size the expansion ROM, which is left undecoded: bit 0 is its switch."""
    platform.config_write(address, offset, 4, ~ROM_MASK & 0xFFFF_FFFF)
    mask = platform.config_read(address, offset, 4) & ~ROM_MASK
    platform.config_write(address, offset, 4, 0)
    size = (~mask & 0xFFFF_FFFF) + 1
    if not mask or size & (size - 1):
        return None
    return Bar(ROM, BarKind.MEMORY32, False, 0, size)


def _place(platform: Platform, functions: list[PciFunction]) -> list[PciFunction]:
    """Give the BARs of all functions addresses from the platform's apertures, the largest first."""
    memory, io = platform.apertures.memory, platform.apertures.io
    wanted = [(function, bar) for function in functions for bar in _bars(function)]
    wanted.sort(key=lambda pair: -pair[1].size)
    places: dict[tuple[PciAddress, int], int] = {}
    for start, length, kinds in (
        (*memory, (BarKind.MEMORY32, BarKind.MEMORY64)),
        (*io, (BarKind.IO,)),
    ):
        at = start
        for function, bar in wanted:
            if bar.kind not in kinds:
                continue
            at = -(-at // bar.size) * bar.size
            if at + bar.size > start + length:
                raise PciError(
                    f"no room for BAR {bar.index} ({bar.kind}, {bar.size:#x} bytes)",
                    where=str(function),
                    remedy=f"use fewer or smaller devices; there are {length:#x} bytes from {start:#x}",
                )
            places[function.address, bar.index] = at
            at += bar.size
    return [_assign(platform, function, places) for function in functions]


def _bars(function: PciFunction) -> tuple[Bar, ...]:
    """The BARs, the ROM's among them."""
    return (*function.bars, function.rom) if function.rom else function.bars


def _assign(
    platform: Platform, function: PciFunction, places: dict[tuple[PciAddress, int], int]
) -> PciFunction:
    bars = tuple(replace(bar, address=places[function.address, bar.index]) for bar in function.bars)
    for bar in bars:
        offset = BASE_ADDRESS_0 + 4 * bar.index
        platform.config_write(function.address, offset, 4, bar.address & 0xFFFF_FFFF)
        if bar.kind == BarKind.MEMORY64:
            platform.config_write(function.address, offset + 4, 4, bar.address >> 32)
    rom = function.rom and replace(function.rom, address=places[function.address, ROM])
    if rom:
        platform.config_write(function.address, ROM_ADDRESS[function.header_type], 4, rom.address)
    return replace(function, bars=bars, rom=rom)


def _capabilities(platform: Platform, address: PciAddress) -> list[Capability]:
    found: list[Capability] = []
    if platform.config_read(address, STATUS, 2) & STATUS_CAPABILITIES:
        first = platform.config_read(address, CAPABILITIES_POINTER, 1) & ~3
        found += _chain(platform, address, first, extended=False)
    if any(capability.id == CAPABILITY_PCI_EXPRESS for capability in found):
        found += _chain(platform, address, EXTENDED_CONFIG, extended=True)
    return found


def _chain(platform: Platform, address: PciAddress, offset: int, *, extended: bool) -> Iterable[Capability]:
    """Follow a capability list: of bytes id and next, or, extended, of 16 bits id, 4 version, 12 next."""
    low, high = (EXTENDED_CONFIG, CONFIG_END) if extended else (0x40, EXTENDED_CONFIG)
    seen: set[int] = set()
    while offset:
        if not low <= offset < high:
            _warn(address, f"a capability list leads to {offset:#x}, where none can be; cut there")
            return
        if offset in seen:
            _warn(address, f"a capability list leads back to {offset:#x}; cut there")
            return
        seen.add(offset)
        header = platform.config_read(address, offset, 4 if extended else 2)
        if header in (0, 0xFFFF_FFFF if extended else 0xFFFF):
            if not (extended and offset == EXTENDED_CONFIG):  # how an empty extended list looks
                _warn(address, f"the capability at {offset:#x} reads as {header:#x}; the list is cut there")
            return
        yield Capability(header & (0xFFFF if extended else 0xFF), offset, extended)
        offset = header >> 20 & 0xFFC if extended else header >> 8 & 0xFC


def _warn(address: PciAddress, text: str) -> None:
    _log.warning("%s: %s", address, text)
