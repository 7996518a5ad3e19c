"""Reading one function's configuration space: ids, the sizes of its BARs, its capabilities."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmkernel_core.pci_function import (
    BASE_ADDRESS_0,
    CAPABILITIES_POINTER,
    CAPABILITY_PCI_EXPRESS,
    COMMAND,
    COMMAND_IO,
    COMMAND_MEMORY,
    CONFIG_END,
    DEVICE_ID,
    EXTENDED_CONFIG,
    HEADER_TYPE,
    INTERRUPT_PIN,
    MULTI_FUNCTION,
    REVISION_ID,
    ROM,
    ROM_ADDRESS,
    ROM_MASK,
    STATUS,
    STATUS_CAPABILITIES,
    SUBSYSTEM_ID,
    SUBSYSTEM_VENDOR_ID,
    VENDOR_ID,
    Bar,
    BarKind,
    Capability,
    PciFunction,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vmkernel_core.platform.base import PciAddress, Platform

_log = logging.getLogger(__name__)

#: BARs of each header layout: a device has six, a PCI-to-PCI bridge two, a CardBus bridge one.
_BAR_COUNT = {0: 6, 1: 2, 2: 1}


def identify(platform: Platform, address: PciAddress) -> PciFunction:
    """Read the function there and size its BARs, which are left undecoded, their addresses to be chosen."""

    def read(offset: int, size: int) -> int:
        return platform.config_read(address, offset, size)

    multifunction = bool(read(HEADER_TYPE, 1) & MULTI_FUNCTION)
    header_type = read(HEADER_TYPE, 1) & ~MULTI_FUNCTION
    pin = read(INTERRUPT_PIN, 1)
    if pin > 4:
        warn(address, f"interrupt pin {pin} does not exist, taken for none")
        pin = 0
    if header_type not in _BAR_COUNT:
        warn(address, f"header type {header_type:#x} is unknown, its BARs are left alone")
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
                warn(address, f"BAR {index} is of the impossible type {type_}, ignored")
                return None
    size = (~mask & (1 << width) - 1) + 1
    if size & (size - 1) or size == 1 << width:
        warn(address, f"BAR {index} answers the size probe with {ones:#x}, which is no size; ignored")
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
            warn(address, f"a capability list leads to {offset:#x}, where none can be; cut there")
            return
        if offset in seen:
            warn(address, f"a capability list leads back to {offset:#x}; cut there")
            return
        seen.add(offset)
        header = platform.config_read(address, offset, 4 if extended else 2)
        if header in (0, 0xFFFF_FFFF if extended else 0xFFFF):
            if not (extended and offset == EXTENDED_CONFIG):  # how an empty extended list looks
                warn(address, f"the capability at {offset:#x} reads as {header:#x}; the list is cut there")
            return
        yield Capability(header & (0xFFFF if extended else 0xFF), offset, extended)
        offset = header >> 20 & 0xFFC if extended else header >> 8 & 0xFC


def warn(address: PciAddress, text: str) -> None:
    """Log what is wrong with the function there."""
    _log.warning("%s: %s", address, text)
