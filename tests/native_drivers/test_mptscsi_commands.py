"""SCSI commands through Fusion-MPT's driver in Python: data in one piece and in many, sense data, residuals, queues.

Independent of us: QEMU's mptsas1068 and its disks; what is on the disk is read from the image file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from native_drivers.scsi.mptscsi_2xx.messages import SCSI_IO_AND_SGE, SGE
from tests.e2e.storage import NAA, SIZE, blank, load
from tests.native_drivers.fusion import LIMIT, Fusion, check_pieces
from vmkernel_core.storage.command import Command, Direction, HostStatus, Status
from vmkernel_core.storage.errors import IllegalRequest, ScsiError
from vmkernel_core.storage.sg_array import SgArray

INQUIRY = bytes([0x12, 0, 0, 0, 255, 0])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file behind disk 0."""
    return blank(tmp_path_factory.mktemp("disk") / "disk.raw")


@pytest.fixture(scope="module")
def fusion(image: Path) -> Iterator[Fusion]:
    """A controller with that disk; its driver is never stopped."""
    with Fusion([image]) as fusion:
        yield fusion
        assert fusion.stopped == []


def test_it_is_what_the_ioc_told_of(fusion: Fusion) -> None:
    disk = fusion.disk
    assert (disk.name, disk.path, disk.capacity) == (NAA, "vmhba0:C0:T0:L0", SIZE)
    assert (fusion.adapter.driver, fusion.adapter.model) == (
        "mptscsi_2xx", "QEMU MPT Fusion, 8 phys, firmware 1.50.146.0"
    )  # fmt: skip
    assert fusion.adapter.queue_depth == 124
    assert disk.write_cache


def test_data_in_any_pieces_arrives(fusion: Fusion, image: Path) -> None:
    """From one piece to as many as fit: within the request frame, one chain buffer behind it, three of them."""
    assert fusion.driver.io.segments == 128
    check_pieces(fusion, image, [1, 2, 37, 38, 39, 78, 79, 80, 120, 121, 128])


def test_more_pieces_become_more_commands(fusion: Fusion, image: Path) -> None:
    disk = fusion.disk
    with disk.buffer(600 * 512) as store:
        store.view[:] = Random(7).randbytes(store.length)
        pieces = [(store.machine_address + n * 1024, 512) for n in range(300)]
        before = disk.stats().commands
        disk.write(0, SgArray(fusion.pdev.memory, pieces))
        assert disk.stats().commands == before + 3
        expected = b"".join(bytes(store.view[n * 1024 : n * 1024 + 512]) for n in range(300))
        assert image.read_bytes()[: 300 * 512] == expected


def test_more_commands_than_the_ioc_takes_wait_for_their_turn(fusion: Fusion, image: Path) -> None:
    disk = fusion.disk
    for request in load(disk, 1000):
        assert request.result(LIMIT).good
    assert image.read_bytes()[: 1000 * 512] == b"".join(bytes([n % 251]) * 512 for n in range(1000))
    assert 32 < disk.stats().in_flight_most <= 64
    disk.queue_depth = 1000
    assert disk.queue_depth == 124
    for request in load(disk, 1000):
        assert request.result(LIMIT).good
    assert disk.stats().in_flight_most == 124


def test_less_data_than_asked_for_leaves_a_residual(fusion: Fusion) -> None:
    request = fusion.disk.submit(INQUIRY, Direction.FROM_DEVICE, 255)
    end = request.result(LIMIT)
    assert request.buffer is not None
    assert 255 - end.residual == request.buffer.view[4] + 5


def test_the_device_s_sense_data_comes_back(fusion: Fusion) -> None:
    beyond = struct.pack(">BBIBHB", 0x28, 0, SIZE // 512, 0, 1, 0)
    with pytest.raises(IllegalRequest, match=r"logical block address out of range \(key 0x5, asc 0x21"):
        fusion.disk.submit(beyond, Direction.FROM_DEVICE, 512).result(LIMIT)
    assert fusion.disk.submit(bytes(6)).result(LIMIT).status == Status.GOOD


def test_a_command_that_no_message_carries_ends_at_once(fusion: Fusion) -> None:
    disk = fusion.disk
    long, short = Command(bytes([0x7F, *bytes(31)])), Command(bytes(6))
    requests = disk.start([short, long, short])
    assert [request.wait(LIMIT).host for request in requests] == [
        HostStatus.OK,
        HostStatus.ABORT,
        HostStatus.OK,
    ]


def test_a_command_that_moves_more_than_it_says_fails(fusion: Fusion) -> None:
    """QEMU calls it an overrun and says nothing of the device's status: it may go better another time, and does not."""
    read = Command(
        struct.pack(">BBIBHB", 0x28, 0, 0, 0, 2, 0), Direction.FROM_DEVICE, fusion.disk.buffer(512), 0, 512
    )
    with pytest.raises(ScsiError, match="soft error"):
        fusion.disk.start([read])[0].result(LIMIT)


def test_nobody_is_asked_at_other_addresses(fusion: Fusion) -> None:
    before = len(fusion.storage.devices)
    fusion.adapter.rescan()
    assert len(fusion.storage.devices) == before == 1


def test_a_unit_is_found_where_there_is_none_with_number_0(fusion: Fusion) -> None:
    monitor = fusion.platform.monitor
    monitor(
        "blockdev-add", **{"driver": "null-co", "node-name": "second", "size": 1 << 20, "read-zeroes": True}
    )
    monitor(
        "device_add",
        driver="scsi-hd",
        drive="second",
        bus="hba.0",
        **{"scsi-id": 3, "lun": 1, "id": "second"},
    )
    fusion.adapter.rescan()
    assert [device.path for device in fusion.storage.devices.values()] == [
        "vmhba0:C0:T0:L0",
        "vmhba0:C0:T3:L1",
    ]
    assert fusion.adapter.devices[1].read(0, 8) == bytes(4096)
    monitor("device_del", id="second")
    fusion.adapter.rescan()
    assert fusion.disk.path == "vmhba0:C0:T0:L0"


def test_the_first_element_lies_behind_the_request() -> None:
    """MSG_SCSI_IO_REQUEST of mpi_init.h ends at 48; SGE_SIMPLE64 of mpi.h has its address at 4."""
    assert (SCSI_IO_AND_SGE.FlagsLength.offset, SCSI_IO_AND_SGE.Address.offset, SCSI_IO_AND_SGE.size) == (
        48,
        52,
        60,
    )
    assert bytes(SGE(FlagsLength=0x1234_5678, Address=0x9ABC_DEF0)) == struct.pack(
        "<IQ", 0x1234_5678, 0x9ABC_DEF0
    )
