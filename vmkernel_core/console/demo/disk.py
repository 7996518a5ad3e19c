"""The demo of a storage controller: a disk is read as the usual tools made it, written beside that, and checked."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from vmkernel_core.console.demo import one_device
from vmkernel_core.console.demo.block_pattern import BLOCK, WRITTEN, differing
from vmkernel_core.console.demo.blocks import Blocks
from vmkernel_core.console.demo.disk_image import DiskImage
from vmkernel_core.console.demo.ext4 import read_superblock
from vmkernel_core.console.demo.gpt import read_gpt
from vmkernel_core.console.demo.meter import Meter
from vmkernel_core.console.demo.result import NotVerified, Result
from vmkernel_core.console.demo.session import Session
from vmkernel_core.errors import TimedOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.boot import VMkernel
    from vmkernel_core.console.demo.blocks import Content, Extent
    from vmkernel_core.console.demo.ext4 import Superblock
    from vmkernel_core.console.demo.gpt import Gpt
    from vmkernel_core.console.demo.result import Left
    from vmkernel_core.console.demo.session import Wanted
    from vmkernel_core.console.interruption import Interruption
    from vmkernel_core.storage.device import StorageDevice

#: Seconds for the disk to appear: a controller may look for it after its driver's probe.
DISK_LIMIT: Final = 30.0


class Disk(msgspec.Struct, frozen=True):
    """A disk: the adapter's path to it, its world wide name when it tells one, its size."""

    name: str
    naa: str | None
    blocks: int
    block_size: int


class OnDisk(msgspec.Struct, frozen=True):
    """A partition of the disk: its name, where it begins, its size."""

    name: str
    lba: int
    blocks: int


class FileSystem(msgspec.Struct, frozen=True):
    """What the superblock of the first partition says."""

    type: str
    label: str
    uuid: UUID
    blocks: int
    block_size: int


class Moved(msgspec.Struct, frozen=True):
    """One direction: bytes that were moved, and how many of them are right on both sides of the driver."""

    bytes: int
    verified: int


class DiskResult(Result, frozen=True, kw_only=True):
    """What came of moving blocks. ``partitions`` and ``file_system`` are what the disk was found to hold."""

    disks: list[Disk]
    partitions: list[OnDisk]
    file_system: FileSystem
    read: Moved
    write: Moved
    mmio_per_command: float

    def rows(self) -> list[tuple[str, str]]:
        """The disk, what is on it, and both directions."""
        return [
            *(
                ("disk", f"{disk.naa or disk.name}, {disk.blocks} blocks of {disk.block_size}")
                for disk in self.disks
            ),
            ("partitions", "; ".join(f"{one.name}, {one.blocks} blocks" for one in self.partitions)),
            ("file system", f"{self.file_system.type}, {self.file_system.label!r}, {self.file_system.uuid}"),
            ("read", f"{self.read.bytes} bytes; {self.read.verified} are as the image has them"),
            (
                "written",
                f"{self.write.bytes} bytes; {self.write.verified} were read back, and are in the image",
            ),
            ("register accesses", f"{self.mmio_per_command} per command"),
        ]

    def problems(self) -> list[str]:
        """Bytes that are not what they should be."""
        return [
            f"{moved.bytes - moved.verified} of {moved.bytes} bytes {word} were not verified"
            for moved, word in ((self.read, "read"), (self.write, "written"))
            if moved.verified != moved.bytes
        ]


def run(wanted: Wanted, kind: str, mib: int, ctrl_c: Interruption) -> tuple[DiskResult, Sequence[Left]]:
    """Boot with a disk of that kind (QEMU's name), read it, write so many MiB, stop; what came of it, and the leaks."""
    with DiskImage(mib) as image:
        ctrl_c.check()
        originals = {extent: image.read(*extent) for extent in image.beside()}
        beside, target = list(originals), list(image.inside())
        pattern = partial(image.pattern.blocks, generation=WRITTEN)

        def original(lba: int, count: int) -> bytes:
            return originals[lba, count]

        meter = Meter()
        with Session(wanted, one_device.with_disk(wanted.device, kind, str(image.path))) as session:
            adapter = session.adapter
            disk = the_disk(session.host, str(adapter.module), ctrl_c)
            commands = disk.stats().commands
            with meter:
                blocks = Blocks(disk, ctrl_c)
                table, superblock = _understand(blocks, image)
                misread = blocks.differing("MiB read", beside, original)
                blocks.write("MiB written", target, pattern)
                miswritten = blocks.differing("MiB read back", target, pattern)
            commands = disk.stats().commands - commands
            described = Disk(
                disk.path, disk.name if disk.name.startswith("naa.") else None, disk.blocks, disk.block_size
            )
        # QEMU has ended: what is in the file now is what it left there.
        misread |= differing_in(image, beside, original)
        miswritten |= differing_in(image, target, pattern)
    result = DiskResult(
        **session.report(meter.seconds),
        disks=[described],
        partitions=[OnDisk(one.name, one.lba, one.count) for one in table.partitions],
        file_system=FileSystem("ext4", **asdict(superblock)),
        read=_moved(beside, misread),
        write=_moved(target, miswritten),
        mmio_per_command=round(meter.accesses / commands, 3),
    )
    return result, session.left()


def the_disk(host: VMkernel, module: str, ctrl_c: Interruption) -> StorageDevice:
    """Wait for the host's disk; TimedOut."""
    if not ctrl_c.wait(partial(_appears, host), DISK_LIMIT):
        raise TimedOut(
            f"{module} found no disk within {DISK_LIMIT:g} s", remedy="vmk -v demo logs what happened"
        )
    [disk] = host.storage.values()
    return disk


def _appears(host: VMkernel, timeout: float) -> bool:
    try:
        host.wait_storage(timeout=timeout)
    except TimedOut:
        return False
    return True


def _understand(blocks: Blocks, image: DiskImage) -> tuple[Gpt, Superblock]:
    """Read the partition table and the superblock; NotVerified unless they say what their makers were told."""
    table = read_gpt(blocks.read, image.blocks - 1)
    if table != image.table:
        raise NotVerified(f"the partition table is not what sfdisk wrote: {table}")
    superblock = read_superblock(blocks.read, table.partitions[0].lba)
    if superblock != image.superblock:
        raise NotVerified(f"the superblock is not what mkfs.ext4 wrote: {superblock}")
    return table, superblock


def differing_in(image: DiskImage, extents: Sequence[Extent], expected: Content) -> set[int]:
    """The addresses of blocks of the image, seen from outside, that are not as ``expected(lba, count)`` has them."""
    return {
        block for extent in extents for block in differing(extent[0], image.read(*extent), expected(*extent))
    }


def _moved(extents: Sequence[Extent], bad: set[int]) -> Moved:
    count = sum(count for _, count in extents)
    return Moved(count * BLOCK, (count - len(bad)) * BLOCK)
