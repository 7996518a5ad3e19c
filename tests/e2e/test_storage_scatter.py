"""Data in pieces, as the pages of a guest lie: written from them and read into them where they are.

Independent of us: QEMU's controllers, whose DMA follows the scatter lists, Debian's modules, which turn ours into
their hardware's, and the image file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e.engines import LINUX, Engine, on_each, only
from tests.e2e.storage import Controller, blank, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import UsageError
from vmkernel_core.storage.buffer import Buffer
from vmkernel_core.storage.command import Command, Direction
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.sg_array import SgArray
from vmklinux.native.scsi import scsi_hosts
from vmklinux.scsi import Device, Scsi

PAGE = 4096
#: Pages of the guest, and bytes of its memory.
PAGES = 512
RAM = PAGES * PAGE


#: Controllers whose drivers make scatter lists of quite different kinds.
driven = on_each("megasas", "mptsas1068", "pvscsi", "lsi53c895a", "virtio-scsi")


@pytest.fixture(scope="module")
def image(controller: Controller, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file behind its disk."""
    return blank(tmp_path_factory.mktemp("disk") / "disk.raw")


@pytest.fixture(scope="module")
def host(controller: Controller, engine: Engine, image: Path) -> Iterator[VMkernel]:
    """A host with that controller and a disk; at its end nothing may have leaked."""
    with VMkernel(controller.platform("hd", *raw_drive(image)), **engine.options) as host:
        yield host
    assert host.leaks == []


@pytest.fixture(scope="module")
def disk(host: VMkernel) -> StorageDevice:
    """Its disk."""
    return only_disk(host)


@pytest.fixture
def ram(host: VMkernel) -> Iterator[Buffer]:
    """The guest's memory, with noise in it."""
    with Buffer(host.memory, RAM) as ram:
        ram.view[:] = Random(RAM).randbytes(RAM)
        yield ram


def scattered(host: VMkernel, ram: Buffer, pieces: list[tuple[int, int]]) -> SgArray:
    """Pieces of the guest's memory, by their places in it."""
    return SgArray(host.memory, [(ram.machine_address + at, length) for at, length in pieces])


def gathered(ram: Buffer, pieces: list[tuple[int, int]]) -> bytes:
    """What the pieces hold."""
    return b"".join(bytes(ram.view[at : at + length]) for at, length in pieces)


def odd_pieces(length: int, unit: int, seed: int) -> list[tuple[int, int]]:
    """Pieces of all sizes, in units, with gaps between them, so that blocks may lie across them; ``length`` bytes."""
    chance, at, pieces = Random(seed), 0, []
    while length:
        at += unit * chance.randrange(1, 10)
        size = min(unit * chance.choice([1, 2, 15, 127, 128, 129]), length)
        pieces.append((at, size))
        at, length = at + size, length - size
    assert at <= RAM
    chance.shuffle(pieces)
    return pieces


@pytest.mark.parametrize("count", [1, 40, 400])
def test_pages_are_written_and_read_where_they_lie(
    host: VMkernel, disk: StorageDevice, ram: Buffer, image: Path, count: int
) -> None:
    pages = [(page * PAGE, PAGE) for page in Random(count).sample(range(PAGES), count)]
    crosses(host, disk, ram, image, pages)


def test_blocks_lie_across_pieces(host: VMkernel, disk: StorageDevice, ram: Buffer, image: Path) -> None:
    """As far as the driver allows it: mptsas has data lie at multiples of 512."""
    assert disk.limits.alignment in (4, 512)
    crosses(host, disk, ram, image, odd_pieces(100 * 512, disk.limits.alignment, 4))


def crosses(
    host: VMkernel, disk: StorageDevice, ram: Buffer, image: Path, pieces: list[tuple[int, int]]
) -> None:
    """The pieces are written, and others read into them, and nothing else happens."""
    lba, data = 1000, gathered(ram, pieces)
    disk.write(lba, scattered(host, ram, pieces))
    disk.flush()
    content = image.read_bytes()
    assert content[lba * 512 : lba * 512 + len(data)] == data
    # Read other blocks into the same pieces: these hold them then, and nothing beside the pieces has changed.
    expected = bytearray(ram.view)
    fresh = content[: len(data)]
    at = 0
    for place, length in pieces:
        expected[place : place + length] = fresh[at : at + length]
        at += length
    disk.read_into(0, scattered(host, ram, pieces))
    assert bytes(ram.view) == bytes(expected)


def most_pieces(engine: Engine, host: VMkernel) -> int:
    """How many pieces the adapter takes in one command."""
    if engine.kernel is None:
        [native] = scsi_hosts.hosts
        return native.sg_tablesize
    return int(linux_device(host).obj.host.sg_tablesize)


def linux_device(host: VMkernel) -> Device:
    """The disk on the mid-layer's side."""
    [scsi_host] = host.linux.state(Scsi).hosts.values()
    return next(device for device in scsi_host.devices.values() if device.obj.type == 0)


def test_no_command_has_more_pieces_than_the_adapter_takes(
    engine: Engine, host: VMkernel, disk: StorageDevice, ram: Buffer
) -> None:
    """Every other page, so that none joins its neighbour; each command carries as many as it can."""
    most = min(most_pieces(engine, host), disk.limits.transfer // PAGE)
    pieces = [(page * PAGE, PAGE) for page in range(0, PAGES, 2)]
    requests = disk.start_write(0, scattered(host, ram, pieces))
    for request in requests:
        request.result()
    assert len(requests) == -(-len(pieces) // most)
    assert disk.read(0, len(pieces) * 8) == gathered(ram, pieces)


def test_pieces_that_follow_each_other_are_one(host: VMkernel, disk: StorageDevice, ram: Buffer) -> None:
    pages = scattered(host, ram, [(page * PAGE, PAGE) for page in range(PAGES)])
    assert len(disk.start_read(0, RAM // 512, pages)) == len(disk.start_read(0, RAM // 512, ram))
    disk.read_into(0, ram)
    assert bytes(ram.view) == disk.read(0, RAM // 512)


def test_a_command_of_ones_own_in_pieces(host: VMkernel, disk: StorageDevice, ram: Buffer) -> None:
    pieces = [(PAGE, 512), (512, 512), (3 * PAGE, 20 * 512)]
    read = bytes([0x28, 0, 0, 0, 0, 9, 0, 0, 22, 0])
    assert disk.submit(read, Direction.FROM_DEVICE, scattered(host, ram, pieces)).result().good
    assert gathered(ram, pieces) == disk.read(9, 22)


def test_what_no_device_can_take_is_refused(host: VMkernel, disk: StorageDevice, ram: Buffer) -> None:
    odd = scattered(host, ram, [(2, 512)])
    crumbs = scattered(host, ram, [(2 * PAGE * n, 512) for n in range(PAGES // 2)])
    for wrong in (
        lambda: SgArray(host.memory, []),
        lambda: SgArray(host.memory, [(0x1000, 0)]),
        lambda: SgArray(host.memory, [(host.memory.size - 512, 1024)]),
        lambda: SgArray(host.memory, [(-512, 512)]),
        lambda: disk.read_into(0, odd),
        lambda: disk.write(0, odd),
        lambda: disk.submit(bytes([0x28, 0, 0, 0, 0, 0, 0, 1, 0, 0]), Direction.FROM_DEVICE, crumbs),
        lambda: disk.start([Command(bytes(6), Direction.FROM_DEVICE, ram, 512, RAM)]),
    ):
        with pytest.raises(UsageError):
            wrong()
    assert disk.in_flight == 0
    disk.read_into(0, crumbs)  # in several commands


#: Limits of the queue (segments, bytes of one, boundary, virtual boundary), pieces, and how many bytes one command
#: carries.
CUTS = [
    ((4, 65536, 0xFFFFFFFF, 0), [(0, 65536), (65536, 1024)], 66560),
    ((4, 4096, 0xFFFFFFFF, 0), [(0, 65536)], 16384),
    ((1, 65536, 0xFFFFFFFF, 0), [(0, 512), (1024, 512)], 512),
    ((2, 65536, 0xFFF, 0), [(0x800, 0x4000)], 0x1800),
    ((8, 65536, 0xFFFFFFFF, 0xFFF), [(0x800, 0x800), (0x2000, 0x1000), (0x4000, 0x200)], 0x1A00),
    ((8, 65536, 0xFFFFFFFF, 0xFFF), [(0, 0x1000), (0x2000, 0x200), (0x3000, 0x200)], 0x1200),
    ((8, 65536, 0xFFFFFFFF, 0xFFF), [(0, 0x1000), (0x2200, 0x200)], 0x1000),
    ((8, 65536, 0xFFFFFFFF, 0), [(0, 512), (514, 512)], 512),
]


@only("megasas", engines=LINUX)
@pytest.mark.parametrize(("limits", "pieces", "fits"), CUTS)
def test_segments_keep_to_the_limits_of_the_queue(
    host: VMkernel,
    disk: StorageDevice,
    limits: tuple[int, int, int, int],
    pieces: list[tuple[int, int]],
    fits: int,
) -> None:
    """A megabyte's worth of the machine's memory, of which only the addresses count."""
    device = linux_device(host)
    queue = device.obj.request_queue.limits
    names = ("max_segments", "max_segment_size", "seg_boundary_mask", "virt_boundary_mask")
    before = [getattr(queue, name) for name in names]
    array = SgArray(host.memory, [(0x10_0000 + at, length) for at, length in pieces])
    try:
        for name, limit in zip(names, limits, strict=True):
            setattr(queue, name, limit)
        assert device.queue.fits(array, 0, array.length) == fits
    finally:
        for name, limit in zip(names, before, strict=True):
            setattr(queue, name, limit)
