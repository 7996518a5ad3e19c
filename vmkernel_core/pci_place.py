"""Giving addresses to BARs and to the windows of bridges, the largest first, all platform-neutral.

A bridge's window is a range like a BAR: it holds what lies behind the bridge, packed in the same way. A window of
I/O space comes in units of 4 KiB, one of memory in units of 1 MiB (PCI-to-PCI Bridge Architecture 1.2, 3.2.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from vmkernel_core.pci_function import (
    BASE_ADDRESS_0,
    ROM,
    ROM_ADDRESS,
    Bar,
    BarKind,
    PciError,
    PciFunction,
    Space,
)
from vmkernel_core.pci_identify import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vmkernel_core.platform.base import PciAddress, Platform

# Registers of a bridge (PCI-to-PCI Bridge Architecture 1.2, 3.2.5): base and limit in one, then what is above them.
_IO_WINDOW, _IO_UPPER = 0x1C, 0x30
_MEMORY_WINDOW = 0x20
_PREFETCH_WINDOW, _PREFETCH_UPPER_BASE, _PREFETCH_UPPER_LIMIT = 0x24, 0x28, 0x2C

#: The unit in which a window begins and ends, in bytes.
UNIT = {Space.IO: 0x1000, Space.MEMORY: 0x10_0000, Space.PREFETCHABLE: 0x10_0000}
#: What a slot that a device may be plugged into gets at least, in bytes, while there is room.
RESERVE = {Space.IO: 0x1000, Space.MEMORY: 0x80_0000, Space.PREFETCHABLE: 0x80_0000}

Buses = dict[tuple[int, int], list[PciFunction]]
#: (bus address, size) of a BAR or window by the function it belongs to and its BAR's index or its space.
Places = dict[tuple["PciAddress", int | Space], tuple[int, int]]


@dataclass
class _Piece:
    """A BAR, or the window of a bridge with what lies in it; ``key`` names it among the function's."""

    function: PciFunction
    key: int | Space
    size: int
    align: int
    what: str
    inside: list[_Piece] = field(default_factory=list)


def place(platform: Platform, functions: Sequence[PciFunction]) -> list[PciFunction]:
    """Place everything in the platform's apertures and program it. PciError: there is no room."""
    roots = [function for function in functions if not _above(function, functions)]
    memory, io = platform.apertures.memory, platform.apertures.io
    try:
        places = _places(roots, functions, {Space.MEMORY: memory, Space.IO: io}, RESERVE)
    except PciError:  # perhaps there is room without what slots would get for what is not there yet
        places = _places(roots, functions, {Space.MEMORY: memory, Space.IO: io}, {})
    return [_assign(platform, function, places) for function in functions]


def place_behind(
    platform: Platform, port: PciFunction, functions: Sequence[PciFunction]
) -> list[PciFunction]:
    """Place functions that came behind a port in the windows that it has. PciError: there is no room."""
    if port.bridge is None:
        raise PciError("nothing can be behind it: it is no bridge", where=str(port))
    behind = [function for function in functions if function.address.bus == port.bridge.secondary]
    ranges = {space: window for space, window in port.bridge.windows.items() if window[1]}
    places = _places(behind, functions, ranges, {})
    return [_assign(platform, function, places) for function in functions]


def _above(function: PciFunction, functions: Iterable[PciFunction]) -> PciFunction | None:
    """The bridge whose secondary bus the function is on."""
    place = (function.address.domain, function.address.bus)
    return next((f for f in functions if f.bridge and (f.address.domain, f.bridge.secondary) == place), None)


def _places(
    top: Sequence[PciFunction],
    functions: Sequence[PciFunction],
    ranges: Mapping[Space, tuple[int, int]],
    reserve: Mapping[Space, int],
) -> Places:
    buses: Buses = {}
    for place, group in groupby(functions, lambda f: (f.address.domain, f.address.bus)):
        buses.setdefault(place, []).extend(group)
    places: Places = {}
    spaces = [space for space in Space if space in ranges]
    for space in spaces:
        pieces = _pieces(top, buses, space, reserve)
        if space is Space.MEMORY and Space.PREFETCHABLE not in ranges:
            pieces += _pieces(top, buses, Space.PREFETCHABLE, reserve)
        start, length = ranges[space]
        _pack(pieces, start, start + length, places)
    return places


def _space(bar: Bar) -> Space:
    if bar.kind is BarKind.IO:
        return Space.IO
    return Space.PREFETCHABLE if bar.prefetchable else Space.MEMORY


def _pieces(
    functions: Sequence[PciFunction], buses: Buses, space: Space, reserve: Mapping[Space, int]
) -> list[_Piece]:
    """What these functions want of a space, for themselves and for what is behind them."""
    pieces = [
        _Piece(function, bar.index, bar.size, bar.size, f"BAR {bar.index} ({bar.kind}, {bar.size:#x} bytes)")
        for function in functions
        for bar in function.all_bars
        if _space(bar) is space
    ]
    for function in functions:
        bridge = function.bridge
        if bridge is None or space not in bridge.windows:
            continue
        behind = buses.get((function.address.domain, bridge.secondary), [])
        inside = _pieces(behind, buses, space, reserve)
        if space is Space.MEMORY and Space.PREFETCHABLE not in bridge.windows:
            inside += _pieces(behind, buses, Space.PREFETCHABLE, reserve)
        unit = UNIT[space]
        align = max([unit, *(piece.align for piece in inside)])
        needed = max(_pack(inside, 0, None, {}), reserve.get(space, 0) if bridge.hotplug else 0)
        size = -(-needed // unit) * unit
        if size:
            what = f"the {space} window of a bridge ({size:#x} bytes)"
            pieces.append(_Piece(function, space, size, align, what, inside))
    return pieces


def _pack(pieces: list[_Piece], start: int, end: int | None, places: Places) -> int:
    """Place the pieces one after the other, the largest alignment first; where they end."""
    at = start
    for piece in sorted(pieces, key=lambda piece: (-piece.align, -piece.size)):
        at = -(-at // piece.align) * piece.align
        if end is not None and at + piece.size > end:
            raise PciError(
                f"no room for {piece.what}",
                where=str(piece.function),
                remedy=f"use fewer or smaller devices; there are {end - start:#x} bytes from {start:#x}",
            )
        places[piece.function.address, piece.key] = (at, piece.size)
        _pack(piece.inside, at, at + piece.size, places)
        at += piece.size
    return at


def _assign(platform: Platform, function: PciFunction, places: Places) -> PciFunction:
    """Write the places of a function's BARs and windows into its registers.

    What is left without a place, because no bridge passes its space on, is as if it were not there.
    """
    address = function.address
    for bar in function.all_bars:
        if (address, bar.index) not in places:
            warn(
                address, f"BAR {bar.index} ({bar.kind}) is not reached: no bridge above passes it on; ignored"
            )
    bars = tuple(
        replace(bar, address=places[address, bar.index][0])
        for bar in function.bars
        if (address, bar.index) in places
    )
    for bar in bars:
        offset = BASE_ADDRESS_0 + 4 * bar.index
        platform.config_write(address, offset, 4, bar.address & 0xFFFF_FFFF)
        if bar.kind == BarKind.MEMORY64:
            platform.config_write(address, offset + 4, 4, bar.address >> 32)
    rom = None
    if function.rom and (address, ROM) in places:
        rom = replace(function.rom, address=places[address, ROM][0])
        platform.config_write(address, ROM_ADDRESS[function.header_type], 4, rom.address)
    bridge = function.bridge
    if bridge:
        windows = {space: places.get((address, space), (0, 0)) for space in bridge.windows}
        for space, (start, size) in windows.items():
            _open(platform, address, space, start, size)
        bridge = replace(bridge, windows=windows)
    return replace(function, bars=bars, rom=rom, bridge=bridge)


def _open(platform: Platform, address: PciAddress, space: Space, start: int, size: int) -> None:
    """Program a window; one of size 0 is closed by a base above its limit."""
    last = start + size - 1
    if space is Space.IO:
        value = start >> 8 & 0xF0 | last & 0xF000 if size else 0x00F0
        upper = start >> 16 | last >> 16 << 16 if size else 0
        platform.config_write(address, _IO_UPPER, 4, upper)
        platform.config_write(address, _IO_WINDOW, 2, value)
        return
    value = start >> 16 & 0xFFF0 | last & 0xFFF0_0000 if size else 0x0000_FFF0
    if space is Space.MEMORY:
        platform.config_write(address, _MEMORY_WINDOW, 4, value)
        return
    platform.config_write(address, _PREFETCH_UPPER_BASE, 4, start >> 32 if size else 0)
    platform.config_write(address, _PREFETCH_UPPER_LIMIT, 4, last >> 32 if size else 0)
    platform.config_write(address, _PREFETCH_WINDOW, 4, value)


def windows_of(platform: Platform, address: PciAddress) -> dict[Space, tuple[int, int]]:
    """The windows that the bridge there has, all closed now: that of memory is a must, the others are optional."""
    found: dict[Space, tuple[int, int]] = {Space.MEMORY: (0, 0)}
    for space, register, probe in (
        (Space.IO, _IO_WINDOW, 0xF0F0),
        (Space.PREFETCHABLE, _PREFETCH_WINDOW, 0xFFF0_FFF0),
    ):
        size = 2 if space is Space.IO else 4
        platform.config_write(address, register, size, probe)
        if platform.config_read(address, register, size) & probe:
            found[space] = (0, 0)
    for space in found:
        _open(platform, address, space, 0, 0)
    return found
