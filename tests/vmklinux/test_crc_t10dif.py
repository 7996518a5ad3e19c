"""The checksum of protection information. Independent side: the examples of T10's own standard (SBC-3, 4.22.4), and the
check value of the catalogue of CRCs for "123456789"."""

from __future__ import annotations

import pytest

from vmkernel_core.memory import store_bytes
from vmklinux.linux import Linux

EXAMPLES = {
    bytes(32): 0x0000,
    b"\xff" * 32: 0xA293,
    bytes(range(32)): 0x0224,
    b"\xff\xff" + bytes(30): 0x21B8,
    bytes(range(0xFF, 0xDF, -1)): 0xA0B7,
    b"123456789": 0xD0DB,
}


@pytest.mark.parametrize("data", EXAMPLES, ids=lambda data: data[:4].hex())
def test_what_the_standard_says(linux: Linux, scratch: int, data: bytes) -> None:
    def crc(name: str, *arguments: int) -> int:
        return linux.call(linux.entry(name), *arguments) & 0xFFFF

    store_bytes(scratch, data)
    assert crc("crc_t10dif", scratch, len(data)) == EXAMPLES[data]
    first = crc("crc_t10dif_update", 0, scratch, 5)
    assert crc("crc_t10dif_update", first, scratch + 5, len(data) - 5) == EXAMPLES[data]
