"""Reading a GUID partition table (UEFI Specification 2.10, chapter 5.3)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vmkernel_core.console.demo.block_pattern import BLOCK
from vmkernel_core.console.demo.result import NotVerified

if TYPE_CHECKING:
    from collections.abc import Callable

#: Signature, revision, header size, CRC, reserved, own and other LBA, first and last usable LBA, disk GUID, where the
#: entries are, how many, bytes of each, their CRC.
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_CRC_AT: Final = 16
#: Type and unique GUID, first and last LBA, attributes, name.
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: its name, and its blocks."""

    name: str
    lba: int
    count: int


@dataclass(frozen=True, slots=True)
class Gpt:
    """A partition table; ``uuid`` is the disk's."""

    uuid: UUID
    partitions: tuple[Partition, ...]


def read_gpt(read: Callable[[int, int], bytes], last: int) -> Gpt:
    """Read both copies by ``read(lba, count)``, from a disk whose last block is given. NotVerified when one is damaged,
    or when they say different things.
    """
    first, second = _copy(read, 1, last), _copy(read, last, 1)
    if first != second:
        raise NotVerified("the two copies of the partition table differ")
    return first


def _copy(read: Callable[[int, int], bytes], lba: int, other: int) -> Gpt:
    block = read(lba, 1)
    (signature, _, size, crc, _, own, alternate, _, _, guid, entries, count, each, entries_crc) = (
        _HEADER.unpack_from(block)
    )
    if signature != b"EFI PART":
        raise NotVerified(f"there is no partition table at block {lba}")
    header = block[:_CRC_AT] + bytes(4) + block[_CRC_AT + 4 : size]
    if zlib.crc32(header) != crc or (own, alternate) != (lba, other):
        raise NotVerified(f"the partition table's header at block {lba} is damaged")
    length = count * each
    table = read(entries, -(-length // BLOCK))[:length]
    if zlib.crc32(table) != entries_crc:
        raise NotVerified(f"the partition table at block {entries} is damaged")
    partitions = []
    for at in range(0, length, each):
        kind, _, start, end, _, name = _ENTRY.unpack_from(table, at)
        if any(kind):
            partitions.append(Partition(name.decode("utf-16-le").rstrip("\0"), start, end - start + 1))
    return Gpt(UUID(bytes_le=guid), tuple(partitions))
