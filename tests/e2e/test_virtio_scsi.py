"""What only virtio_scsi does: a queue for each CPU, disks that come, go and grow while it runs, and task management.

Independent of us: QEMU's virtio-scsi-pci and its disks, Debian's virtio_scsi.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.storage import CONTROLLERS, LIMIT, SIZE, blank, only_disk, raw_drive, request_of_tag
from vmkernel_core.boot import VMkernel
from vmkernel_core.memory import load
from vmkernel_core.storage.command import HostStatus
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.events import StorageEvent
from vmklinux.irq import Interrupts
from vmklinux.kernels import Kernel
from vmklinux.scsi import Scsi

QUEUES = 4
#: What handlers of the error handling's return when they did it (include/scsi/scsi.h).
SUCCESS = 0x2002


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file behind the disk."""
    return blank(tmp_path / "disk.raw")


@pytest.fixture
def events() -> list[StorageEvent]:
    """What the vmkernel told."""
    return []


@pytest.fixture
def host(kernel: Kernel, image: Path, events: list[StorageEvent]) -> Iterator[VMkernel]:
    """Four CPUs, and a controller with as many request queues; QEMU has a second drive, which no disk uses yet."""
    other = blank(image.with_suffix(".other"), 1 << 20)
    controller = CONTROLLERS["virtio-scsi"]
    controller = replace(controller, device=f"{controller.device},num_queues={QUEUES}")
    platform = controller.platform(
        "hd", *raw_drive(image), "-drive", f"if=none,id=other,file={other},format=raw"
    )
    with VMkernel(platform, kernel=kernel.release, cpus=QUEUES) as host:
        host.watch_storage(events.append)
        yield host
    assert host.leaks == []


@pytest.fixture
def disk(host: VMkernel) -> StorageDevice:
    """Its disk."""
    return only_disk(host)


def request_interrupts(host: VMkernel) -> dict[str, int]:
    """How often the interrupt of each request queue came."""
    lines = host.linux.state(Interrupts).lines()
    return {f"{line.number}": line.count for line in lines if any("request" in name for name in line.names)}


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something has become true."""
    tick, left = threading.Event(), LIMIT
    while not condition():
        assert left > 0, f"{what} has not happened in {LIMIT} s"
        tick.wait(0.05)
        left -= 0.05


def test_each_cpu_has_its_queue(host: VMkernel, disk: StorageDevice, image: Path) -> None:
    """Threads count as CPUs in turn: as many as there are use every queue, and each block arrives in its place."""
    before = request_interrupts(host)
    assert len(before) == QUEUES
    together = threading.Barrier(QUEUES)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            together.wait(LIMIT)
            for block in range(number * 64, number * 64 + 64):
                disk.write(block, bytes([number + 1]) * 512)
        except BaseException as error:  # raised below, in the test's thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(QUEUES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * LIMIT)
    assert failures == []
    disk.flush()
    expected = b"".join(bytes([number + 1]) * 64 * 512 for number in range(QUEUES))
    assert image.read_bytes()[: len(expected)] == expected
    after = request_interrupts(host)
    assert all(after[line] > count for line, count in before.items()), (before, after)


def test_a_disk_comes_and_goes(host: VMkernel, disk: StorageDevice, events: list[StorageEvent]) -> None:
    """By an event of the controller's: nobody scans."""
    host.platform.monitor(  # type: ignore[attr-defined]  # QEMU's platform has it
        "device_add",
        driver="scsi-hd",
        bus="hba.0",
        drive="other",
        id="other",
        wwn=0x5000C50015EA71AD,
        **{"scsi-id": 3, "lun": 0},
    )
    host.wait_storage(2, timeout=LIMIT)
    other = host.storage["naa.5000c50015ea71ad"]
    assert (other.path, other.capacity) == ("vmhba0:C0:T3:L0", 1 << 20)
    other.write(0, b"new" * 512)
    assert other.read(0, 3) == b"new" * 512
    host.platform.monitor("device_del", id="other")  # type: ignore[attr-defined]  # likewise
    until(lambda: len(host.storage) == 1, "the disk's removal")
    assert other.error is not None
    assert disk.read(0, 1)
    kinds = [event.kind for event in events if event.name == other.name]
    assert kinds == ["appeared", "removed"]


def test_a_disk_grows(host: VMkernel, disk: StorageDevice, events: list[StorageEvent]) -> None:
    host.platform.monitor("block_resize", device="hd", size=2 * SIZE)  # type: ignore[attr-defined]  # likewise
    until(lambda: any(event.kind == "changed" for event in events), "the news of it")
    assert disk.capacity == 2 * SIZE
    disk.write(disk.blocks - 1, b"\xee" * 512)
    assert disk.read(disk.blocks - 2, 2) == bytes(512) + b"\xee" * 512


@pytest.fixture
def slow(kernel: Kernel, image: Path) -> Iterator[VMkernel]:
    """A host whose disk does two things a second."""
    platform = CONTROLLERS["virtio-scsi"].platform("hd", *raw_drive(image, ",throttling.iops-total=2"))
    with VMkernel(platform, kernel=kernel.release) as host:
        yield host


def manage(host: VMkernel, handler: str) -> int:
    """Call one of the driver's handlers for the last command that it has; what it returns."""
    linux = host.linux
    [scsi_host] = linux.state(Scsi).hosts.values()
    with linux.baton():
        tags = load(scsi_host.obj.tag_set.tags, 8)
        depth = scsi_host.obj.can_queue
        found = [request for tag in range(depth) if (request := request_of_tag(linux, tags, tag))]
        cmnd = found[-1] + linux.types.sizeof("request")
        return linux.call_int(getattr(scsi_host.obj.hostt, handler), cmnd, owner=scsi_host.owner)


def test_a_task_is_aborted(slow: VMkernel) -> None:
    """The driver asks by its control queue; the command comes back from the device."""
    disk = only_disk(slow)
    requests = [request for n in range(8) for request in disk.start_read(n, 1)]
    assert disk.in_flight
    assert manage(slow, "eh_abort_handler") == SUCCESS
    ends = [request.wait(LIMIT) for request in requests]
    assert [end.host for end in ends if not end.good] == [HostStatus.ABORT]


def test_a_unit_is_reset(slow: VMkernel, image: Path) -> None:
    """What it had in flight is sent again, and none is lost."""
    disk = only_disk(slow)
    requests = [request for n in range(8) for request in disk.start_read(n, 1)]
    assert manage(slow, "eh_device_reset_handler") == SUCCESS
    content = image.read_bytes()
    for number, request in enumerate(requests):
        request.result(LIMIT)
        assert request.buffer is not None
        assert bytes(request.buffer.view) == content[number * 512 : (number + 1) * 512]
    assert disk.stats().retries + disk.stats().unit_attentions >= 1
