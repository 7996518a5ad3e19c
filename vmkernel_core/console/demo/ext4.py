"""Reading the superblock of an ext4 file system (Linux's Documentation/filesystems/ext4, "Super Block")."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vmkernel_core.console.demo.block_pattern import BLOCK
from vmkernel_core.console.demo.result import NotVerified

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where it begins, in bytes from the beginning of the file system, and its length.
_AT, _SIZE = 1024, 1024
_MAGIC: Final = 0xEF53


@dataclass(frozen=True, slots=True)
class Superblock:
    """What an ext4 file system says of itself."""

    uuid: UUID
    label: str
    blocks: int
    block_size: int


def read_superblock(read: Callable[[int, int], bytes], lba: int) -> Superblock:
    """Read it by ``read(lba, count)`` from the file system that begins at a block; NotVerified when there is none."""
    raw = read(lba + _AT // BLOCK, _SIZE // BLOCK)
    if struct.unpack_from("<H", raw, 0x38)[0] != _MAGIC:
        raise NotVerified(f"there is no ext4 file system at block {lba}")
    blocks, log_size = struct.unpack_from("<I", raw, 0x04)[0], struct.unpack_from("<I", raw, 0x18)[0]
    return Superblock(
        UUID(bytes=raw[0x68:0x78]),
        raw[0x78:0x88].rstrip(b"\0").decode("utf-8", "replace"),
        blocks,
        1024 << log_size,
    )
