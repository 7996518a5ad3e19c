"""SATA through Debian's ahci, libahci and libata: native command queuing, and libata's own error handler.

libata has a strategy of its own for errors (eh_strategy_handler): it takes the failed commands off the host's queue, and
sends them again or ends them by functions that vmklinux emulates. Independent of us: QEMU's AHCI controller and ATA
disk, which tell by their trace what came; its blkdebug and throttling, which make them fail; Debian's modules.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.storage import BAD, CONTROLLERS, EIO, LIMIT, blank, ends, failing, load, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.hotplug import DeviceEvent
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import Command, Direction, HostStatus
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import PathLost, ScsiError
from vmklinux.kernels import Kernel

ABORTED_COMMAND = 0xB  # the sense key (SPC-4, 4.5.6)


def read_10(lba: int, count: int) -> bytes:
    """READ(10) of so many blocks from ``lba`` on (SBC-3, 5.11)."""
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0)


Boot = Callable[..., tuple[VMkernel, StorageDevice]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file behind the disk."""
    return blank(tmp_path / "disk.raw")


@pytest.fixture
def boot(kernel: Kernel) -> Iterator[Boot]:
    """Boots a host whose disk is on the drive ``hd`` of QEMU's arguments; at its end nothing may have leaked."""
    hosts: list[VMkernel] = []
    with ExitStack() as stack:

        def start(*arguments: str) -> tuple[VMkernel, StorageDevice]:
            platform = CONTROLLERS["ahci"].platform("hd", *arguments)
            hosts.append(stack.enter_context(VMkernel(platform, kernel=kernel.release)))
            return hosts[-1], only_disk(hosts[-1])

        yield start
    assert [leak for host in hosts for leak in host.leaks] == []


def test_each_port_is_an_adapter(boot: Boot, image: Path) -> None:
    host, disk = boot(*raw_drive(image))
    ports = host.storage_adapters
    assert list(ports) == [f"vmhba{port}" for port in range(6)]
    assert {port.driver for port in ports.values()} == {"ahci"}
    assert [port.devices for port in ports.values()] == [[disk], [], [], [], [], []]
    assert disk.limits.discard


def test_many_commands_are_queued_in_the_disk(boot: Boot, image: Path, tmp_path: Path) -> None:
    """QEMU's trace has each as a queued one, under many tags."""
    trace = tmp_path / "trace"
    _, disk = boot(*raw_drive(image), "-D", str(trace), "-trace", "process_ncq_command")
    content = image.read_bytes()
    buffer = disk.buffer(64 * 4096)
    reads = [Command(read_10(n * 8, 8), Direction.FROM_DEVICE, buffer, n * 4096, 4096) for n in range(64)]
    for request in disk.start(reads):
        request.result()
    assert bytes(buffer.view) == content[: 64 * 4096]
    tags = set(re.findall(r"\[tag:(\d+)\]: NCQ op 0x60", trace.read_text()))
    assert disk.stats().in_flight_most == disk.queue_depth == len(tags) >= 31


def test_one_bad_block_fails_one_command_of_many(boot: Boot, image: Path) -> None:
    """When a queued command fails, the disk drops all others: libata sends these again; only the bad one is lost.

    QEMU's disk does not tell which of them failed (it has no log page 10h), so each round costs all of them a try.
    """
    host, disk = boot(*failing(image, "read_aio", EIO))
    first, content = BAD - 16, image.read_bytes()
    buffer = disk.buffer(32 * 512)
    tries = [5 if first + n == BAD else 50 for n in range(32)]
    reads = [
        Command(read_10(first + n, 1), Direction.FROM_DEVICE, buffer, n * 512, 512, retries=tries[n])
        for n in range(32)
    ]
    requests = disk.start(reads)
    with pytest.raises(ScsiError) as told:
        requests[16].result()
    assert told.value.sense is not None
    assert told.value.sense.key == ABORTED_COMMAND  # all that QEMU's disk tells of any error
    for n, request in enumerate(requests):
        if first + n != BAD:
            request.result()
            at = (first + n) * 512
            assert bytes(buffer.view[n * 512 : (n + 1) * 512]) == content[at : at + 512]
    assert disk.stats().timeouts == 0
    assert disk.in_flight == 0
    assert host.storage_adapters["vmhba0"].state == "online"


def test_an_error_that_passes_is_tried_again(boot: Boot, image: Path) -> None:
    _, disk = boot(*failing(image, "read_aio", EIO, once=True))
    assert disk.read(BAD, 1) == image.read_bytes()[BAD * 512 : (BAD + 1) * 512]
    assert disk.stats().retries == 1


def test_a_write_that_failed_is_reported(boot: Boot, image: Path) -> None:
    _, disk = boot(*failing(image, "write_aio", EIO))
    before = image.read_bytes()
    with pytest.raises(ScsiError):
        disk.write(BAD, b"x" * 512)
    disk.write(BAD + 1, b"y" * 512)
    disk.flush()
    after = image.read_bytes()
    assert after[BAD * 512 : (BAD + 1) * 512] == before[BAD * 512 : (BAD + 1) * 512]
    assert after[(BAD + 1) * 512 : (BAD + 2) * 512] == b"y" * 512


def test_a_command_that_takes_too_long_ends(boot: Boot, image: Path) -> None:
    """The disk is throttled so that it seems dead for seconds: libata freezes the port and resets the link."""
    _, disk = boot(*raw_drive(image, ",throttling.iops-total=1,throttling.iops-size=4096"))
    disk.read(0, 32)  # QEMU counts it as four requests
    buffer = disk.buffer(512)
    slow = Command(read_10(0, 1), Direction.FROM_DEVICE, buffer, 0, 512, timeout=1.0, retries=0)
    [request] = disk.start([slow])
    with pytest.raises(ScsiError):
        request.result(3 * LIMIT)
    assert disk.stats().timeouts >= 1
    assert disk.in_flight == 0


def test_commands_in_flight_end_when_qemu_is_killed(boot: Boot, image: Path) -> None:
    host, disk = boot(*raw_drive(image, ",throttling.iops-total=2"))
    requests = [request for n in range(24) for request in disk.start_write(n, bytes([n]) * 512)]
    assert disk.in_flight > 8
    os.kill(host.platform.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # QEMU's platform has one
    lost = [end for end in (request.wait(LIMIT) for request in requests) if not end.good]
    assert len(lost) > 8
    assert {end.host for end in lost} == {HostStatus.NO_CONNECT}
    assert disk.in_flight == 0
    with pytest.raises(PathLost):
        requests[-1].result()


@pytest.mark.parametrize("orderly", [True, False], ids=["unplugged", "pulled"])
def test_a_controller_leaves_its_slot_under_load(kernel: Kernel, image: Path, *, orderly: bool) -> None:
    """Every command ends; the driver's removal waits for libata's error handler, which runs on without a device."""
    devices = [
        "pcie-root-port,id=port0,chassis=1,addr=3",
        "ich9-ahci,id=hba,bus=port0",
        "ide-hd,drive=hd,bus=hba.0",
    ]
    # QEMU 7.2 frees an AHCI controller that is pulled although its disk's requests are under way, and may crash when one
    # of them ends: none does so before it has replied.
    rate = 200 if orderly else 1
    platform = QemuPlatform(devices, arguments=raw_drive(image, f",throttling.iops-total={rate}"))
    with VMkernel(platform, kernel=kernel.release) as host:
        events: queue.Queue[DeviceEvent] = queue.Queue()
        host.watch_devices(events.put)
        disk, address = only_disk(host), PciAddress(0, 1, 0, 0)
        requests = load(disk)
        (platform.unplug if orderly else platform.pull)(address)
        assert events.get(timeout=LIMIT) == DeviceEvent("removed", address, surprise=not orderly)
        found = ends(requests)
        assert found.keys() <= {HostStatus.OK, HostStatus.NO_CONNECT}
        assert found.total() == len(requests)
        assert disk.in_flight == 0
        assert (dict(host.storage), dict(host.storage_adapters)) == ({}, {})
    assert [leak for leak in host.leaks if not leak.excuse] == []


@pytest.mark.parametrize("device", ["ich9-ahci", "piix3-ide"])
def test_cd_drives(kernel: Kernel, image: Path, device: str) -> None:
    """They take packets (ATAPI); of one that fails, libata's error handler fetches the sense data."""
    devices = [f"{device},id=hba", "ide-cd,drive=cd,bus=hba.0", "ide-cd,bus=hba.1"]
    medium = ("-drive", f"if=none,id=cd,file={image},format=raw,media=cdrom,readonly=on")
    with VMkernel(QemuPlatform(devices, arguments=medium), kernel=kernel.release) as host:
        host.wait_storage(2, timeout=LIMIT)
        full, empty = sorted(host.storage.values(), key=lambda drive: drive.path)
        assert (full.medium, full.block_size, full.read_only) == (True, 2048, True)
        assert full.read(0, full.blocks) == image.read_bytes()
        assert (empty.medium, empty.blocks) == (False, 0)
        with pytest.raises(ScsiError) as told:
            full.submit(read_10(full.blocks, 1), Direction.FROM_DEVICE, 2048).result()
        assert told.value.sense is not None
        assert (told.value.sense.key, told.value.sense.asc) == (5, 0x21)
    assert host.leaks == []
