"""What goes wrong with Fusion-MPT's driver in Python: aborts and resets, faults, disks and controllers that go, sleep.

Independent of us: QEMU's mptsas1068, its disks, its throttle, which keeps commands in flight, and its blkdebug, which
injects errors; what is on the disk is read from the image file. Events, which QEMU never sends, are written by hand
after mpi_ioc.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from native_drivers.scsi.mptscsi_2xx import driver
from native_drivers.scsi.mptscsi_2xx.config_pages import IOC_2, SAS_DEVICE_0, ConfigPage
from native_drivers.scsi.mptscsi_2xx.ioc import Ioc, IocError
from native_drivers.scsi.mptscsi_2xx.messages import EVENT_NOTIFY_REPLY
from native_drivers.scsi.mptscsi_2xx.registers import (
    DOORBELL,
    EMPTY,
    HOST_INTERRUPT_MASK,
    REPLY_FIFO,
    REQUEST_FIFO,
    FusionRegisters,
    IocState,
)
from tests.e2e.storage import BAD, ENODATA, NAA, WWN, blank, ends, failing, load, raw_drive
from tests.native_drivers.fusion import LIMIT, Fusion
from tests.vmkernel_core.hardware import until
from vmkernel_core.errors import DeviceGone, NotSupported, TimedOut
from vmkernel_core.storage.command import Command, Direction, HostStatus
from vmkernel_core.storage.errors import CommandTimedOut, MediumError, PathLost, ScsiError
from vmklinux.native.device import baton
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.register import Register
from vmklinux.native.scsi_device import ScsiDevice
from vmklinux.native.scsi_host import scsi_block_requests, scsi_unblock_requests

#: A disk on which some commands are in flight whenever it is looked at.
SLOW = ",throttling.iops-total=150"
READ_ONE = bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])
#: What ``load`` writes: as many blocks, with their numbers in every byte.
COUNT = 200
LOADED = b"".join(bytes([n % 251]) * 512 for n in range(COUNT))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file behind the disk."""
    return blank(tmp_path / "disk.raw")


def slow(image: Path, throttle: str = SLOW) -> Fusion:
    """A controller with one disk, which is throttled."""
    return Fusion(drives=["hd"], arguments=raw_drive(image, throttle))


def unit(fusion: Fusion) -> ScsiDevice:
    [device] = fusion.driver.host.devices
    return device


RESETS: dict[str, Callable[[Fusion], bool]] = {
    "LUN": lambda fusion: fusion.driver.eh_device_reset(unit(fusion)),
    "target": lambda fusion: fusion.driver.eh_target_reset(unit(fusion)),
    "bus": lambda fusion: fusion.driver.eh_bus_reset(unit(fusion)),
    "IOC": lambda fusion: fusion.driver.eh_host_reset(),
}


@pytest.mark.parametrize("kind", RESETS)
def test_commands_that_a_reset_ends_are_sent_again(image: Path, kind: str) -> None:
    with slow(image) as fusion:
        requests = load(fusion.disk, COUNT)
        assert fusion.disk.in_flight > 32
        with baton():
            scsi_block_requests(fusion.driver.host)  # error handling sends nothing meanwhile
            assert RESETS[kind](fusion)
            scsi_unblock_requests(fusion.driver.host)
        for request in requests:
            assert request.result(LIMIT).good
        assert fusion.disk.stats().retries > 0
        assert image.read_bytes()[: len(LOADED)] == LOADED
        assert fusion.stopped == []


def test_the_adapter_is_reset_by_its_user(image: Path) -> None:
    with slow(image) as fusion:
        requests = load(fusion.disk, COUNT)
        fusion.adapter.reset()
        assert fusion.adapter.state == "online"
        for request in requests:
            assert request.result(LIMIT).good
        assert image.read_bytes()[: len(LOADED)] == LOADED


def test_a_reset_that_fails_gives_no_command_up(image: Path) -> None:
    """Nobody knows then what the IOC still has."""
    with slow(image) as fusion:
        requests = load(fusion.disk, COUNT)
        with baton():
            had = [cmnd for cmnd in fusion.driver.io.commands if cmnd]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(fusion.driver.ioc, "restart", fails)
                with pytest.raises(IocError, match="stuck"):
                    fusion.driver.eh_host_reset()
            assert had
            assert set(had) <= set(fusion.driver.io.commands)
            assert fusion.driver.eh_host_reset()
        for request in requests:
            assert request.result(LIMIT).good
        assert image.read_bytes()[: len(LOADED)] == LOADED


def fails() -> None:
    """What an IOC does that cannot be reset."""
    raise IocError("it is stuck")


def test_a_controller_with_raid_volumes_is_left_alone(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU's has none; the page is its own but for their numbers."""
    page = Ioc.page

    def with_volumes(ioc: Ioc, kind: type[ConfigPage], address: int = 0) -> ConfigPage | None:
        found = page(ioc, kind, address)
        if isinstance(found, IOC_2):
            found.set(NumActiveVolumes=1, NumActivePhysDisks=2)
        return found

    monkeypatch.setattr(Ioc, "page", with_volumes)
    with pytest.raises(NotSupported, match="1 RAID volumes on 2 disks"), slow(image):
        pass


def test_two_resets_at_once_do_no_harm(image: Path) -> None:
    """A fault may be found while error handling resets the IOC already."""
    with slow(image) as fusion, ThreadPoolExecutor(1) as pool:

        def reset() -> bool:
            with baton():
                return fusion.driver.eh_host_reset()

        requests = load(fusion.disk, COUNT)
        other = pool.submit(reset)
        fusion.adapter.reset()
        assert other.result(LIMIT)
        for request in requests:
            assert request.result(LIMIT).good
        assert image.read_bytes()[: len(LOADED)] == LOADED
        assert fusion.stopped == []


def test_a_command_is_aborted(image: Path) -> None:
    """Its answer, and that of the abort, come when the throttle lets QEMU have them."""
    with slow(image, ",throttling.iops-total=1,throttling.iops-size=4096") as fusion:
        disk = fusion.disk
        disk.read(0, 32)  # four requests by QEMU's account, for which the next command waits a second each
        slow_read = Command(READ_ONE, Direction.FROM_DEVICE, disk.buffer(512), 0, 512, timeout=0.3, retries=0)
        [request] = disk.start([slow_read])
        with pytest.raises(CommandTimedOut):
            request.result(LIMIT)
        assert (disk.stats().timeouts, disk.in_flight, fusion.driver.host.errors.resets) == (1, 0, 0)
        assert disk.read(0, 1) == image.read_bytes()[:512]


def test_a_disk_that_seems_dead_is_reset(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU aborts nothing while the throttle holds the disk for a minute: what helps is a reset of the IOC."""
    monkeypatch.setattr(driver, "TASK_LIMIT", 2.0)
    with slow(image, ",throttling.iops-total=1,throttling.iops-size=4096") as fusion:
        disk = fusion.disk
        disk.read(0, 512)
        slow_read = Command(READ_ONE, Direction.FROM_DEVICE, disk.buffer(512), 0, 512, timeout=0.5, retries=0)
        [request] = disk.start([slow_read])
        with pytest.raises(ScsiError):
            request.result(3 * LIMIT)
        until("error handling ends", lambda: fusion.adapter.state == "online", LIMIT)
        assert (disk.stats().timeouts, disk.in_flight) == (1, 0)
        assert fusion.driver.host.errors.resets >= 1


def test_blocks_that_cannot_be_read_are_told_of(image: Path) -> None:
    with Fusion(drives=["hd"], arguments=failing(image, "read_aio", ENODATA)) as fusion:
        with pytest.raises(MediumError, match="unrecovered read error"):
            fusion.disk.read(BAD, 1)
        assert fusion.disk.read(0, 1) == image.read_bytes()[:512]


def test_a_fault_is_found_and_mended(image: Path) -> None:
    """A request that QEMU's IOC does not know stops it, with commands in flight."""
    with slow(image) as fusion:
        requests = load(fusion.disk, COUNT)
        with baton():
            frame = dma_alloc_coherent(fusion.pdev, 64)
            frame.view[3] = 0x08  # EVENT_ACK
            fusion.driver.ioc.registers.post(REQUEST_FIFO, [frame.dma])
            fusion.driver.ioc.registers.wait(DOORBELL, LIMIT, STATE=IocState.FAULT)
        for request in requests:
            assert request.result(LIMIT).good
        with baton():
            assert fusion.driver.ioc.state().STATE == IocState.OPERATIONAL
        assert image.read_bytes()[: len(LOADED)] == LOADED
        assert fusion.stopped == []


def test_a_disk_goes_under_load_and_comes_back(image: Path) -> None:
    with slow(image) as fusion:
        disk, platform = fusion.disk, fusion.platform
        requests = load(disk, COUNT)
        platform.monitor("device_del", id="disk0")
        found = ends(requests)
        assert set(found) <= {HostStatus.OK, HostStatus.NO_CONNECT}
        assert found[HostStatus.NO_CONNECT] > 32
        fusion.adapter.rescan()
        assert fusion.storage.devices == {}
        with pytest.raises(DeviceGone):
            disk.read(0, 1)
        file = {"driver": "file", "filename": str(image), "locking": "off"}
        platform.monitor("blockdev-add", **{"driver": "raw", "node-name": "again", "file": file})
        platform.monitor("device_add", driver="scsi-hd", drive="again", bus="hba.0", wwn=WWN)
        fusion.adapter.rescan()  # for Linux's driver, it would have to be reset
        assert fusion.disk.name == NAA
        assert fusion.disk.read(0, 1) == image.read_bytes()[:512]


def test_the_controller_goes_under_load(image: Path) -> None:
    with slow(image) as fusion:
        disk = fusion.disk
        requests = load(disk, COUNT)
        fusion.unplug()
        found = ends(requests)
        assert found[HostStatus.NO_CONNECT] > 32
        with pytest.raises(PathLost):
            requests[-1].result()
        fusion.remove()
        assert (fusion.storage.devices, fusion.storage.adapters) == ({}, {})
        assert fusion.stopped == []


def test_what_is_no_reply_ends_no_command(image: Path) -> None:
    """QEMU gives 0 for registers of a controller that was pulled out, until the slot tells of that."""
    with slow(image) as fusion:
        requests = load(fusion.disk, COUNT)
        with pytest.MonkeyPatch.context() as patch, baton():
            had = list(fusion.driver.io.commands)
            patch.setattr(fusion.driver.ioc.registers, "replies", lambda count: [0] * count)
            with pytest.raises(DeviceGone):
                fusion.driver.ioc.interrupt()
            assert fusion.driver.io.commands == had
        for request in requests:
            assert request.result(LIMIT).good
        assert image.read_bytes()[: len(LOADED)] == LOADED


def test_it_sleeps_and_wakes_up(image: Path) -> None:
    with slow(image) as fusion:
        disk, ioc = fusion.disk, fusion.driver.ioc
        requests = load(disk, 50)
        with baton():
            fusion.driver.suspend()
            assert ioc.state().STATE == IocState.READY
            assert ioc.registers.read(HOST_INTERRUPT_MASK) == HOST_INTERRUPT_MASK(REPLY=1, DOORBELL=1)
        waits = disk.start(disk.write_commands(100, 1, disk.buffer(512)))
        assert disk.in_flight > 0
        with baton():
            fusion.driver.resume()
        for request in [*requests, *waits]:
            assert request.result(LIMIT).good
        assert image.read_bytes()[: 50 * 512] == LOADED[: 50 * 512]
        with baton():
            fusion.driver.shutdown()
            assert ioc.state().STATE == IocState.READY


def test_commands_that_never_end_keep_nobody(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep it from going to sleep, but not from being shut down."""
    monkeypatch.setattr(driver, "SUSPEND_LIMIT", 0.2)
    monkeypatch.setattr(driver, "SHUTDOWN_LIMIT", 0.2)
    with slow(image, ",throttling.iops-total=1,throttling.iops-size=4096") as fusion:
        disk = fusion.disk
        disk.read(0, 512)
        requests = load(disk, COUNT)
        with baton(), pytest.raises(TimedOut, match="commands have not ended"):
            fusion.driver.suspend()
        with baton():
            assert fusion.driver.ioc.state().STATE == IocState.OPERATIONAL
            fusion.driver.shutdown()
            assert fusion.driver.ioc.state().STATE == IocState.READY
        fusion.remove()
        found = ends(requests)
        assert found[HostStatus.NO_CONNECT] == len(requests) - found[HostStatus.OK] > COUNT // 2


def post_but_replies(registers: FusionRegisters) -> Callable[[type[Register], Sequence[int]], None]:
    """What posts to any FIFO but that of free reply frames."""
    post = registers.post
    return lambda register, frames: None if register is REPLY_FIFO else post(register, frames)


def happen(fusion: Fusion, event: int, data: bytes, *, acknowledge: bool = False) -> None:
    """Let an event come: a reply frame (MSG_EVENT_NOTIFY_REPLY), whose address the reply FIFO gives."""
    ioc = fusion.driver.ioc
    head = struct.pack(
        "<HBBxxBBIxxHIII",
        len(data) // 4,
        7 + len(data) // 4,
        7,
        acknowledge,
        0x80,
        0x0A5C007C,
        0,
        0,
        event,
        99,
    )
    ioc.frames.memory.view[ioc.frames.replies :][: len(head) + len(data)] = head + data
    replies = [0x8000_0000 | (ioc.frames.memory.dma + ioc.frames.replies) >> 1, EMPTY]
    with pytest.MonkeyPatch.context() as patch, baton():
        patch.setattr(ioc.registers, "replies", lambda count: replies)
        patch.setattr(ioc.registers, "post", post_but_replies(ioc.registers))  # QEMU still has that frame
        assert ioc.interrupt()


@pytest.mark.parametrize(
    ("event", "data"),
    [
        pytest.param(0x0F, struct.pack("<BBB33x", 1, 0, 0x03), id="SAS device status change: added"),
        pytest.param(0x16, bytes(8), id="SAS discovery: ended"),
        pytest.param(0x06, b"", id="rescan"),
    ],
)
def test_a_device_that_an_event_tells_of_is_found(image: Path, event: int, data: bytes) -> None:
    with slow(image) as fusion:
        fusion.platform.monitor("blockdev-add", **{"driver": "null-co", "node-name": "new"})
        fusion.platform.monitor(
            "device_add", driver="scsi-hd", drive="new", bus="hba.0", wwn=WWN + 1, **{"scsi-id": 1}
        )
        assert len(fusion.storage.devices) == 1
        happen(fusion, event, data)
        until("the disk appears", lambda: len(fusion.storage.devices) == 2, LIMIT)


def test_an_event_may_come_while_the_driver_still_probes(
    image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As it does where devices are looked for while the port is enabled. The driver goes while it looks once more."""
    page = Ioc.page

    def page_after_an_event(ioc: Ioc, kind: type[SAS_DEVICE_0], address: int = 0) -> SAS_DEVICE_0 | None:
        ioc._on_event(EVENT_NOTIFY_REPLY(Event=0x16))
        return page(ioc, kind, address)

    monkeypatch.setattr(Ioc, "page", page_after_an_event)
    with slow(image) as fusion:
        assert fusion.disk.read(0, 1) == image.read_bytes()[:512]
        assert fusion.stopped == []
    assert "no reply" not in caplog.text


def test_a_device_that_does_not_respond_any_more_is_taken_away(image: Path) -> None:
    with slow(image) as fusion:
        fusion.platform.monitor("device_del", id="disk0")
        happen(fusion, 0x0F, struct.pack("<BBB33x", 0, 0, 0x04))
        until("the disk goes", lambda: not fusion.storage.devices, LIMIT)


def test_a_full_queue_is_made_shorter(image: Path) -> None:
    with slow(image) as fusion:
        happen(fusion, 0x0E, struct.pack("<BBH", 0, 0, 17))
        assert fusion.disk.queue_depth == 16


def test_an_event_is_acknowledged(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    """QEMU's IOC does not know the acknowledgement, and stops with "invalid function": it has come there."""
    with slow(image) as fusion:
        happen(fusion, 0x01, bytes(8), acknowledge=True)
        until("the fault is found", lambda: "the IOC has stopped with fault 0x0001" in caplog.text, LIMIT)
        assert fusion.disk.read(0, 1) == image.read_bytes()[:512]
