"""All symbols of a kernel image, exported or not, from the table that it carries for its own messages.

Layout (Linux kernel/kallsyms.c, scripts/kallsyms.c): ``kallsyms_names`` has for each symbol a length (two bytes when
the first has its top bit set) and as many bytes, each an index into 256 tokens; the tokens together are a type letter
and the name. ``kallsyms_markers`` has the place of each 256th symbol, ``kallsyms_offsets`` the addresses: a number >= 0
is itself (per-CPU data), a negative one is relative to ``kallsyms_relative_base``. The tables lie one after the other,
aligned to 8 bytes: up to 6.3 offsets, base, count, names, markers, tokens, token index; later the first two come last.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from vmkernel_core.memory import store_bytes
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmklinux.linux import Linux

#: The single-character tokens of digits and capital letters come in their order, each with its zero.
_DIGITS = b"".join(bytes([c, 0]) for c in range(ord("0"), ord("9") + 1))
_TOKENS = 256
_MARKED = 256
#: Most bytes of a name in the table, on the average of 256; fewest markers that a kernel has; how far before the
#: tokens they may begin (6.1 has three bytes for each symbol in between).
_LONGEST, _FEWEST, _REACH = 64, 64, 2 << 20
_HEADER = struct.Struct("<II")


class KallsymsError(ValueError):
    """The image's table of symbols was not found, or is not of a known form."""


def decode(memory: bytes | bytearray, base: int) -> dict[str, int]:
    """Name to address of every symbol of an image relocated to ``base``; the first, where a name occurs twice.

    Raises KallsymsError.
    """
    tokens_at, tokens, after = _tokens(memory)
    names_at, count = _names(memory, *_markers(memory, tokens_at))
    offsets, relative = _addresses(memory, names_at, after, count, range(base, base + len(memory)))
    found: dict[str, int] = {}
    at = names_at
    for offset in offsets:
        length = memory[at]
        at += 1
        if length & 0x80:
            length = length & 0x7F | memory[at] << 7
            at += 1
        name = b"".join([tokens[byte] for byte in memory[at : at + length]])[1:].decode("ascii", "replace")
        at += length
        found.setdefault(name, offset if offset >= 0 else relative - 1 - offset)
    return found


def _aligned(at: int, to: int = 8) -> int:
    return -(-at // to) * to


def _tokens(memory: bytes | bytearray) -> tuple[int, list[bytes], int]:
    """Where the tokens begin, the tokens, and where the tables behind their index begin."""
    for match in re.finditer(re.escape(b"\0" + _DIGITS), memory):
        zero = match.start() + 1  # the token of the character 0, which stands at its own code
        begin = zero
        for _ in range(ord("0")):
            begin = memory.rfind(0, 0, begin - 1) + 1
        end = zero
        for _ in range(_TOKENS - ord("0")):
            end = memory.find(0, end) + 1
        tokens = bytes(memory[begin : end - 1]).split(b"\0")
        index_at = _aligned(end)
        if [*accumulate((len(token) + 1 for token in tokens[:-1]), initial=0)] == [
            *array("H", bytes(memory[index_at : index_at + 2 * _TOKENS]))
        ]:
            return begin, tokens, _aligned(index_at + 2 * _TOKENS)
    raise KallsymsError("no table of tokens")


def _markers(memory: bytes | bytearray, tokens_at: int) -> tuple[int, list[int]]:
    """Where the markers begin, and the markers: 0, then growing by what 256 names may take."""
    words = array("I", bytes(memory[max(0, tokens_at - _REACH) // 8 * 8 : tokens_at // 8 * 8]))
    start = len(words) // 2 * 2
    while (start := start - 2) >= 0:
        if words[start]:
            continue
        end = start + 1
        while end < len(words) and 2 * _MARKED <= words[end] - words[end - 1] <= _LONGEST * _MARKED:
            end += 1
        if end - start >= _FEWEST:
            return tokens_at // 8 * 8 - 4 * (len(words) - start), words[start:end].tolist()
    raise KallsymsError("no markers before the tokens")


def _names(memory: bytes | bytearray, markers_at: int, markers: list[int]) -> tuple[int, int]:
    """Where the names begin, and how many there are: their count lies 8 bytes before them."""
    last = markers_at - markers[-1]
    for start in range(last // 8 * 8, last - _LONGEST * _MARKED, -8):
        count, padding = _HEADER.unpack_from(memory, start - 8)
        if not padding and -(-count // _MARKED) == len(markers) and _fits(memory, start, count, markers):
            return start, count
    raise KallsymsError("no names before the markers")


def _fits(memory: bytes | bytearray, start: int, count: int, markers: list[int]) -> bool:
    at = start
    for number in range(count):
        if not number % _MARKED and at - start != markers[number // _MARKED]:
            return False
        length = memory[at]
        at += 1 + length if not length & 0x80 else 2 + (length & 0x7F | memory[at + 1] << 7)
    return True


def _addresses(
    memory: bytes | bytearray, names_at: int, after: int, count: int, image: range
) -> tuple[array[int], int]:
    """The offsets, and the address that they are relative to: behind the index of tokens, or before the names."""
    size = _aligned(4 * count)
    for at, base_at in ((after, after + size), (names_at - 16 - size, names_at - 16)):
        base = int.from_bytes(memory[base_at : base_at + 8], "little") if at > 0 else 0
        offsets = array("i", bytes(memory[at : at + 4 * count])) if base in image else array("i")
        if len(offsets) == count:
            return offsets, base
    raise KallsymsError("no table of addresses")


class Kallsyms:
    """The symbols of one image. ``address`` finds one by name, ``around`` the one that an address is in."""

    def __init__(self, packed: bytes) -> None:
        """Of what ``pack`` made."""
        count, _ = _HEADER.unpack_from(packed)
        cursor = _HEADER.size
        self._addresses = array("Q", packed[cursor : cursor + 8 * count])
        self._starts = array("I", packed[cursor + 8 * count : cursor + 12 * count])
        self._by_address = array("I", packed[cursor + 12 * count : cursor + 16 * count])
        self._names = packed[cursor + 16 * count :]

    def _name(self, number: int) -> str:
        start = self._starts[number]
        return self._names[start : self._names.index(b"\n", start)].decode()

    def address(self, name: str) -> int | None:
        """Where a symbol is; for per-CPU data its offset into the area. None when there is none of that name."""
        at = bisect_left(range(len(self._starts)), name, key=self._name)
        return self._addresses[at] if at < len(self._starts) and self._name(at) == name else None

    def around(self, address: int) -> tuple[str, int] | None:
        """The last symbol at or before an address, and where it is."""
        at = bisect_right(self._by_address, address, key=self._addresses.__getitem__) - 1
        if at < 0:
            return None
        number = self._by_address[at]
        return self._name(number), self._addresses[number]

    def beginning(self, prefix: str) -> list[str]:
        """The names that begin so, sorted."""
        at = bisect_left(range(len(self._starts)), prefix, key=self._name)
        found = []
        while at < len(self._starts) and (name := self._name(at)).startswith(prefix):
            found.append(name)
            at += 1
        return found


def pack(symbols: Mapping[str, int]) -> bytes:
    """Symbols in the form that Kallsyms reads without work: sorted by name, with an order by address beside it."""
    names = sorted(symbols)
    addresses = array("Q", [symbols[name] for name in names])
    starts, cursor = array("I"), 0
    for name in names:
        starts.append(cursor)
        cursor += len(name.encode()) + 1
    order = array("I", sorted(range(len(names)), key=addresses.__getitem__))
    blob = "".join(f"{name}\n" for name in names).encode()
    return _HEADER.pack(len(names), 0) + addresses.tobytes() + starts.tobytes() + order.tobytes() + blob


@linux_api(note="Without the size of what lies there.")
def sprint_symbol(linux: Linux, buffer: int, address: int) -> int:
    """Write what lies at an address (``fnic_probe+0x1a [fnic]``) into the caller's buffer; its length."""
    text = linux.symbolize(address).encode()
    store_bytes(buffer, text + b"\0")
    return len(text)
