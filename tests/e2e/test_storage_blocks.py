"""Blocks through Debian's own SCSI and RAID drivers, on QEMU's controllers.

Independent of us: QEMU's controllers and disks, Debian's modules for them; what is on the
disk in the end is read from the image file, and compared by qemu-img.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e.engines import Engine, on_each
from tests.e2e.storage import CONTROLLERS, NAA, SIZE, Controller, blank, leaks, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.storage.command import Command, Direction, describe
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import IllegalRequest

#: Each of QEMU's controllers for which there is a module.
driven = on_each(*CONTROLLERS)


@pytest.fixture(scope="module")
def image(controller: Controller, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file behind its disk."""
    return blank(tmp_path_factory.mktemp("disk") / "disk.raw")


@pytest.fixture(scope="module")
def host(controller: Controller, engine: Engine, image: Path) -> Iterator[VMkernel]:
    """A host with that controller and a disk; at its end nothing may have leaked."""
    with VMkernel(controller.platform("hd", *raw_drive(image)), **engine.options) as host:
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        yield host
    assert leaks(host, controller) == []


@pytest.fixture(scope="module")
def disk(host: VMkernel) -> StorageDevice:
    """Its disk."""
    return only_disk(host)


@pytest.fixture(scope="module")
def driver(controller: Controller, engine: Engine) -> str:
    """Who drives it."""
    return controller.driver if engine.kernel else controller.native


def test_the_device_says_what_it_is(
    host: VMkernel, disk: StorageDevice, controller: Controller, driver: str
) -> None:
    adapter = host.storage_adapters["vmhba0"]
    assert (adapter.driver, adapter.state) == (driver, "online")
    assert adapter.model
    assert adapter.devices == [disk]
    assert (disk.vendor, disk.model, disk.revision) == (controller.vendor, "QEMU HARDDISK", "2.5+")
    assert (disk.capacity, disk.block_size, disk.blocks) == (SIZE, 512, SIZE // 512)
    assert disk.path == controller.path
    if controller.wwn:
        assert disk.name == NAA
    assert disk.write_cache
    assert not disk.read_only


def test_blocks_are_read_as_the_file_has_them(disk: StorageDevice, image: Path) -> None:
    content = image.read_bytes()
    assert disk.read(0, 1) == content[:512]
    assert disk.read(disk.blocks - 1, 1) == content[-512:]
    assert disk.read(0, disk.blocks) == content  # more than one command can carry


def test_what_was_written_is_in_the_file(disk: StorageDevice, image: Path, tmp_path: Path) -> None:
    """Random places and sizes, from one block to several commands' worth, then qemu-img's opinion."""
    chance, expected = Random(4711), bytearray(image.read_bytes())
    for _ in range(40):
        count = chance.choice([1, 2, 7, 8, 64, 255, 256, 257, 1024])
        lba = chance.randrange(disk.blocks - count)
        data = chance.randbytes(count * 512)
        disk.write(lba, data)
        expected[lba * 512 : (lba + count) * 512] = data
        at = chance.randrange(disk.blocks - 300)
        assert disk.read(at, 300) == bytes(expected[at * 512 : (at + 300) * 512])
    disk.flush()
    judge = tmp_path / "expected.raw"
    judge.write_bytes(expected)
    subprocess.run(["qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", judge, image], check=True)


def _write_10(lba: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, count, 0)


def test_many_commands_are_in_flight(disk: StorageDevice, image: Path) -> None:
    """32 at a time, each with a pattern of its own; they end in any order, and each in its place."""
    chance, size = Random(32), 16
    parts = [chance.randbytes(size * 512) for _ in range(32)]
    before = disk.stats().commands
    buffer = disk.buffer(32 * size * 512)
    buffer.view[:] = b"".join(parts)
    requests = disk.start(
        [
            Command(_write_10(n * size, size), Direction.TO_DEVICE, buffer, n * size * 512, size * 512)
            for n in range(32)
        ]
    )
    assert [request.result().good for request in requests] == [True] * 32
    assert disk.stats().in_flight_most >= min(32, disk.queue_depth)
    reads = [request for n in range(32) for request in disk.start_read(n * size, size)]
    for request, part in zip(reads, parts, strict=True):
        request.result()
        assert request.buffer is not None
        assert bytes(request.buffer.view) == part
    disk.flush()
    assert disk.in_flight == 0
    assert disk.stats().commands == before + 65
    assert image.read_bytes()[: 32 * size * 512] == b"".join(parts)


def test_many_transfers_are_started_at_once(disk: StorageDevice) -> None:
    """From places in one buffer to places on the disk, and back to others; a request says what it did."""
    with disk.buffer(64 * 512) as buffer:
        buffer.view[:] = b"".join(bytes([n]) * 512 for n in range(64))
        written = disk.start(
            [c for n in range(0, 64, 4) for c in disk.write_commands(6000 + 2 * n, 4, buffer, n * 512)]
        )
        assert [request.result().good for request in written] == [True] * 16
        read = disk.start(
            [c for n in range(0, 64, 4) for c in disk.read_commands(6000 + 2 * n, 4, buffer, (60 - n) * 512)]
        )
        for request in read:
            request.result()
        assert bytes(buffer.view[::512]) == bytes(n + i for n in range(60, -1, -4) for i in range(4))
        assert describe(read[1].command.cdb) == "read of 4 blocks at 6008"
        for lba, count, offset in ((0, 65, 0), (0, 1, 64 * 512), (0, 1, -1), (disk.blocks, 1, 0)):
            with pytest.raises(UsageError):
                disk.read_commands(lba, count, buffer, offset)


def test_a_buffer_is_the_device_own_memory(disk: StorageDevice) -> None:
    with disk.buffer(4096) as buffer:
        buffer.view[:] = b"zero copy".ljust(4096, b"!")
        disk.write(100, buffer)
        buffer.view[:] = bytes(4096)
        disk.read_into(100, buffer)
        assert bytes(buffer.view[:9]) == b"zero copy"
        disk.read_into(100, buffer, 2)


def test_blocks_that_were_given_back_read_as_zeros(disk: StorageDevice) -> None:
    assert disk.limits.discard
    disk.write(2048, b"\xff" * 128 * 512)
    disk.discard(2048, 128)
    disk.flush()
    assert disk.read(2048, 128) == bytes(128 * 512)


def test_a_command_of_ones_own(disk: StorageDevice) -> None:
    request = disk.submit(bytes([0x12, 0, 0, 0, 36, 0]), Direction.FROM_DEVICE, 36)
    assert request.result().good
    assert request.buffer is not None
    assert bytes(request.buffer.view[16:20]) == b"QEMU"


def test_what_the_device_refuses_is_an_error_in_words(disk: StorageDevice) -> None:
    no_such_page = bytes([0x5A, 0, 0x3E, 0, 0, 0, 0, 0, 8, 0])
    request = disk.submit(no_such_page, Direction.FROM_DEVICE, 8)
    with pytest.raises(IllegalRequest, match="invalid field in CDB") as told:
        request.result()
    assert told.value.sense is not None
    assert (told.value.sense.key, told.value.sense.asc) == (5, 0x24)
    assert disk.read(0, 1)


def test_what_cannot_be_is_refused_on_this_side(disk: StorageDevice) -> None:
    for wrong in (
        lambda: disk.read(disk.blocks, 1),
        lambda: disk.read(-1, 1),
        lambda: disk.read(0, 0),
        lambda: disk.write(0, b"no block"),
        lambda: disk.write(disk.blocks - 1, bytes(1024)),
        lambda: disk.submit(b"short"),
        lambda: disk.buffer(0),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_the_adapter_resets_under_load(host: VMkernel, disk: StorageDevice, controller: Controller) -> None:
    """Commands in flight at a reset by the driver's own handler are sent again, and none is lost."""
    requests = [request for n in range(16) for request in disk.start_write(4096 + n, bytes([n]) * 512)]
    if controller.reset:
        getattr(host.storage_adapters["vmhba0"], controller.reset)()
    else:
        with pytest.raises(NotSupported):
            host.storage_adapters["vmhba0"].reset()
    for request in requests:
        request.result()
    disk.flush()
    assert disk.read(4096, 16) == b"".join(bytes([n]) * 512 for n in range(16))
    assert host.storage_adapters["vmhba0"].state == "online"


def test_the_module_comes_back(host: VMkernel, driver: str, image: Path) -> None:
    """Unloaded, it leaves nothing; loaded again, it serves the same disk. The last test: the old disk is dead then."""
    disk = only_disk(host)
    assert host.unload(driver) == []
    assert (dict(host.storage), dict(host.storage_adapters)) == ({}, {})
    assert disk.error is not None
    host.load(driver)
    assert only_disk(host).read(0, 8) == image.read_bytes()[:4096]
