"""The blocks of the demo's disk: each knows its address and its generation, every byte is known from a seed."""

from __future__ import annotations

import struct
from hashlib import shake_256
from typing import Final

#: Bytes of a block.
BLOCK: Final = 512
#: How often a block was written: by the demo when it made the image, and through the driver.
BEFORE, WRITTEN = 0, 1

_HEADER: Final = struct.Struct(">QQ")
_BODY: Final = BLOCK - _HEADER.size
# Coprime to the count of places, so that all of them come up.
_NOISE_STEP, _NOISE_PLACES = 40503, 1 << 16


class BlockPattern:
    """Blocks that begin with their address and generation, 64 bits each, big-endian; noise follows."""

    def __init__(self, seed: str) -> None:
        """Grow the noise of the seed."""
        self._noise = shake_256(seed.encode()).digest(_NOISE_PLACES + _BODY)

    def blocks(self, lba: int, count: int, generation: int) -> bytes:
        """So many blocks from an address on."""
        parts = []
        for address in range(lba, lba + count):
            start = (address * _NOISE_STEP + generation) % _NOISE_PLACES
            parts += [_HEADER.pack(address, generation), self._noise[start : start + _BODY]]
        return b"".join(parts)


def differing(lba: int, found: bytes, expected: bytes) -> list[int]:
    """The addresses of the blocks from ``lba`` on in which the two differ."""
    if found == expected:
        return []
    return [
        lba + at // BLOCK
        for at in range(0, len(expected), BLOCK)
        if found[at : at + BLOCK] != expected[at : at + BLOCK]
    ]
