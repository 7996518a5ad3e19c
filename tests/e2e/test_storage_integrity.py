"""Blocks of random sizes, at random places, many at a time, with resets in between: each is where it belongs in the end.

Each block that is written knows its address and its generation, so that one that is lost, old, torn or elsewhere is
seen. Independent of us: QEMU's controllers and disks, Debian's drivers, and a reference image that the test writes by
itself, which qemu-img compares with the disk's.

The long form writes a gigabyte through each controller, and says how long it took:
``VMK_INTEGRITY_MIB=1024 pytest -s tests/e2e/test_storage_integrity.py``. A failure tells its seed;
``VMK_INTEGRITY_SEED`` repeats it.
"""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.e2e.engines import Engine, on_each
from tests.e2e.storage import LIMIT, Controller, leaks, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.storage.adapter import StorageAdapter
from vmkernel_core.storage.buffer import Buffer
from vmkernel_core.storage.command import Command
from vmkernel_core.storage.device import StorageDevice

BLOCK, MIB = 512, 1 << 20
#: MiB that are written, a quarter of which the disk has; and the smallest disk.
WRITTEN = int(os.environ.get("VMK_INTEGRITY_MIB", "32"))
DISK = max(WRITTEN // 4, 8)
#: The most blocks of a transfer.
MOST_BLOCKS = 2048
#: How many transfers are started at once, and after how many such starts the adapter is reset while they are under way,
#: and the image looked at from outside.
DEPTHS, RESET_EVERY, LOOK_EVERY = (1, 3, 24, 64), 8, 11

#: A block begins with its address and generation; its noise depends on both.
HEADER = struct.Struct("<QQ")
NOISE = Random(1).randbytes(1 << 16)
BODY = BLOCK - HEADER.size


def block(lba: int, generation: int) -> bytes:
    """A block of the pattern."""
    at = (lba * 977 + generation * 8191) % (len(NOISE) - BODY)
    return HEADER.pack(lba, generation) + NOISE[at : at + BODY]


def blocks(lba: int, generations: array[int]) -> bytes:
    """Blocks from an address on, each in its generation."""
    return b"".join(map(block, range(lba, lba + len(generations)), generations))


@dataclass
class Transfer:
    """A read, or the write of a generation; and the commands that it takes."""

    lba: int
    count: int
    generation: int | None
    buffer: Buffer
    commands: list[Command]

    def overlaps(self, lba: int, count: int) -> bool:
        """Whether it touches one of those blocks."""
        return lba < self.lba + self.count and self.lba < lba + count


class Reference:
    """What should be on the disk: the generation of each block, and an image that the test writes."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.generations = array("Q", bytes(size // BLOCK * 8))
        self._file = path.open("w+b", buffering=0)
        for lba in range(0, size // BLOCK, MOST_BLOCKS):
            self._file.write(self.expected(lba, min(MOST_BLOCKS, size // BLOCK - lba)))

    def expected(self, lba: int, count: int) -> bytes:
        """What blocks should hold."""
        return blocks(lba, self.generations[lba : lba + count])

    def wrote(self, lba: int, count: int, generation: int) -> None:
        """A write was acknowledged."""
        self.generations[lba : lba + count] = array("Q", [generation]) * count
        os.pwrite(self._file.fileno(), self.expected(lba, count), lba * BLOCK)

    def check(self, lba: int, found: bytes) -> None:
        """Fail unless these blocks are as they should be; the first that is not is named, and what it seems to be."""
        expected = self.expected(lba, len(found) // BLOCK)
        if found == expected:
            return
        at = next(
            at for at in range(0, len(found), BLOCK) if found[at : at + BLOCK] != expected[at : at + BLOCK]
        )
        holds, generation = HEADER.unpack_from(found, at)
        address = lba + at // BLOCK
        kind = "is" if found[at : at + BLOCK] == block(holds, generation) else "is torn, and begins as"
        pytest.fail(
            f"block {address} should be of generation {self.generations[address]}: it {kind} block {holds} of "
            f"generation {generation}"
        )

    def close(self) -> None:
        """Close the image."""
        self._file.close()


class Run:
    """Random transfers, until enough has been written."""

    def __init__(
        self, adapter: StorageAdapter, disk: StorageDevice, reference: Reference, image: Path, seed: int
    ):
        self._adapter = adapter
        self._disk = disk
        self._reference = reference
        self._image = image
        self._chance = Random(seed)
        self._generation = 0
        self.written = self.read = self.resets = 0

    def go(self, total: int) -> None:
        """Write so many bytes and read nearly as many; then read all."""
        for turn in itertools.count(1):
            self._transfer(self._depth(turn), reset=turn % RESET_EVERY == 0)
            if turn % LOOK_EVERY == 0:
                self._disk.flush()
                compare(self._reference.path, self._image)
            if self.written >= total:
                break
        self._disk.flush()
        for lba in range(0, self._disk.blocks, MOST_BLOCKS):
            self._reference.check(lba, self._disk.read(lba, min(MOST_BLOCKS, self._disk.blocks - lba)))

    def _depth(self, turn: int) -> int:
        """Each depth comes as often as the others; between two of them it is left to chance."""
        at = turn % len(DEPTHS)
        return self._chance.randint(DEPTHS[at - 1] if at else 1, DEPTHS[at])

    def _transfer(self, depth: int, *, reset: bool) -> None:
        """Start so many transfers at once and let all end; an acknowledged write counts, what was read is checked."""
        transfers: list[Transfer] = []
        while len(transfers) < depth:
            self._add(transfers)
        requests = deque(self._disk.start([command for one in transfers for command in one.commands]))
        if reset:
            self._adapter.reset()
            self.resets += 1
        for one in transfers:
            for _ in one.commands:
                requests.popleft().result(2 * LIMIT)
            if one.generation is None:
                self._reference.check(one.lba, bytes(one.buffer.view))
                self.read += one.buffer.length
            else:
                self._reference.wrote(one.lba, one.count, one.generation)
                self.written += one.buffer.length
            one.buffer.close()
        assert self._disk.in_flight == 0

    def _add(self, transfers: list[Transfer]) -> None:
        """Make up one that touches no block of the others: which of two comes first is the device's choice."""
        count = int(2 ** self._chance.uniform(0, MOST_BLOCKS.bit_length() - 1))
        lba = self._chance.randrange(self._disk.blocks - count)
        if any(other.overlaps(lba, count) for other in transfers):
            return
        buffer = self._disk.buffer(count * BLOCK)
        if self._chance.random() < 0.55:
            self._generation += 1
            buffer.view[:] = blocks(lba, array("Q", [self._generation]) * count)
            commands = self._disk.write_commands(lba, count, buffer)
            transfers.append(Transfer(lba, count, self._generation, buffer, commands))
        else:
            commands = self._disk.read_commands(lba, count, buffer)
            transfers.append(Transfer(lba, count, None, buffer, commands))


def compare(reference: Path, image: Path) -> None:
    """Fail unless qemu-img finds the two images the same; QEMU may have one of them open."""
    judged = subprocess.run(
        ["qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", reference, image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


#: Parameters of modules: sym53c8xx waits for 3 s after each reset of its bus unless it is told otherwise.
SETTINGS = {"sym53c8xx": ["settle=0"]}


#: A controller of each driver that has many commands under way.
driven = on_each("megasas", "mptsas1068", "lsi53c895a", "pvscsi")


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[Reference]:
    """What should be on the disk, and nothing has been written yet."""
    reference = Reference(tmp_path / "reference.raw", DISK * MIB)
    yield reference
    reference.close()


def test_every_block_is_where_it_belongs(
    controller: Controller, engine: Engine, reference: Reference, tmp_path: Path
) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(reference.path.read_bytes())
    seed = int(os.environ.get("VMK_INTEGRITY_SEED", "0")) or Random().getrandbits(32)
    try:
        platform = controller.platform("hd", *raw_drive(image))
        with VMkernel(platform, **engine.options, settings=SETTINGS) as host:
            disk = only_disk(host)
            adapter = host.storage_adapters["vmhba0"]
            run = Run(adapter, disk, reference, image, seed)
            began = time.perf_counter()
            run.go(WRITTEN * MIB)
            took = time.perf_counter() - began
            stats = disk.stats()
            assert adapter.state == "online"
            assert run.resets >= 1
            assert stats.in_flight_most >= 16
        # QEMU has ended.
        compare(reference.path, image)
        assert leaks(host, controller) == []
    except BaseException as error:
        error.add_note(f"VMK_INTEGRITY_SEED={seed} repeats it")
        raise
    print(
        f"\n{controller.device}, {engine}: {run.written / 1e6:.0f} MB written, {run.read / 1e6:.0f} MB read, "
        f"{stats.commands} commands, up to {stats.in_flight_most} in flight, {run.resets} resets, {stats.retries} "
        f"retries, {took:.1f} s"
    )
