"""Disks and controllers that fail: every command that was in flight ends, and says how.

Independent of us: QEMU's controllers, its blkdebug driver, which injects the errors, and Debian's modules.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.engines import NATIVE, Engine, on_each, only
from tests.e2e.storage import (
    BAD,
    EIO,
    ENODATA,
    ENOSPC,
    LIMIT,
    Controller,
    blank,
    failing,
    only_disk,
    raw_drive,
)
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import Command, Direction, HostStatus
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import MediumError, NoSpace, PathLost, ScsiError

READ_ONE = bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])

Boot = Callable[..., tuple[VMkernel, StorageDevice]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file behind the disk."""
    return blank(tmp_path / "disk.raw")


#: A RAID controller, which hides much of its disks, and a plain one.
driven = on_each("megasas", "mptsas1068")


@pytest.fixture
def boot(engine: Engine) -> Iterator[Boot]:
    """Boots a host with one disk on a platform."""
    with ExitStack() as stack:

        def start(platform: QemuPlatform) -> tuple[VMkernel, StorageDevice]:
            host = stack.enter_context(VMkernel(platform, **engine.options))
            return host, only_disk(host)

        yield start


def test_a_medium_error_is_told_with_its_block(boot: Boot, controller: Controller, image: Path) -> None:
    host, disk = boot(controller.platform("hd", *failing(image, "read_aio", ENODATA)))
    content = image.read_bytes()
    with pytest.raises(MediumError, match="unrecovered read error") as told:
        disk.read(BAD, 1)
    assert told.value.sense is not None
    assert (told.value.sense.key, told.value.sense.asc) == (3, 0x11)
    # The error is that command's alone: the blocks beside it are read, and the bad one can be written.
    assert disk.read(BAD - 8, 8) == content[(BAD - 8) * 512 : BAD * 512]
    assert disk.read(BAD + 1, 8) == content[(BAD + 1) * 512 : (BAD + 9) * 512]
    assert disk.stats().errors >= 1
    assert host.storage_adapters["vmhba0"].state == "online"


def test_a_write_that_failed_is_reported(boot: Boot, controller: Controller, image: Path) -> None:
    _, disk = boot(controller.platform("hd", *failing(image, "write_aio", EIO)))
    before = image.read_bytes()
    with pytest.raises(ScsiError) as told:
        disk.write(BAD, b"x" * 512)
    assert told.value.sense is not None
    disk.flush()
    disk.write(BAD + 1, b"y" * 512)
    disk.flush()
    after = image.read_bytes()
    assert after[BAD * 512 : (BAD + 1) * 512] == before[BAD * 512 : (BAD + 1) * 512]
    assert after[(BAD + 1) * 512 : (BAD + 2) * 512] == b"y" * 512


def test_a_full_file_system_is_reported(boot: Boot, controller: Controller, image: Path) -> None:
    """QEMU's default would be to stop the machine silently: the platform has its disks report what happens."""
    _, disk = boot(controller.platform("hd", *failing(image, "write_aio", ENOSPC)))
    with pytest.raises(NoSpace, match="space allocation failed") as told:
        disk.write(BAD, b"x" * 512)
    assert told.value.sense is not None
    assert (told.value.sense.key, told.value.sense.asc, told.value.sense.ascq) == (7, 0x27, 7)
    disk.write(BAD + 1, b"y" * 512)
    disk.flush()
    assert image.read_bytes()[(BAD + 1) * 512 : (BAD + 2) * 512] == b"y" * 512


def test_an_error_that_passes_is_tried_again(boot: Boot, controller: Controller, image: Path) -> None:
    """QEMU calls the host's I/O error an aborted command: the mid-layer sends that again."""
    _, disk = boot(controller.platform("hd", *failing(image, "read_aio", EIO, once=True)))
    assert disk.read(BAD, 1) == image.read_bytes()[BAD * 512 : (BAD + 1) * 512]
    assert disk.stats().retries >= 1


def test_commands_in_flight_end_when_qemu_is_killed(boot: Boot, controller: Controller, image: Path) -> None:
    """The disk is throttled, so that they are in flight; all end with an error, none twice, and nothing waits."""
    host, disk = boot(controller.platform("hd", *raw_drive(image, ",throttling.iops-total=2")))
    requests = [request for n in range(24) for request in disk.start_write(n, bytes([n]) * 512)]
    assert disk.in_flight > 8
    os.kill(host.platform.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # QEMU's platform has one
    ends = [request.wait(LIMIT) for request in requests]
    lost = [end for end in ends if not end.good]
    assert len(lost) > 8
    assert {end.host for end in lost} == {HostStatus.NO_CONNECT}
    assert disk.in_flight == 0
    with pytest.raises(PathLost):
        requests[-1].result()
    with pytest.raises(DeviceGone):
        disk.read(0, 1)
    host.stop()
    # The drivers could finish what they do when their device goes, but for mptbase's thread that removes a dead adapter,
    # which may not have had its turn: mptbase never waits for it.
    assert [leak for leak in host.leaks if not leak.where.startswith("mpt_remove_dead_ioc_func")] == []


@only("mptsas1068", engines=("kernel61", NATIVE))
def test_a_command_that_takes_too_long_ends_after_resets(
    engine: Engine, controller: Controller, image: Path
) -> None:
    """The disk is throttled so that it seems dead. QEMU's controller then aborts nothing either: the driver is asked for
    the abort, the device's reset and the host's, and only after that the command ends, with an error.
    """
    drive = raw_drive(image, ",throttling.iops-total=1,throttling.iops-size=4096")
    with VMkernel(controller.platform("hd", *drive), **engine.options) as host:
        disk = only_disk(host)
        disk.read(0, 512)  # QEMU counts it as 64 requests: the next one has to wait for a minute
        slow = Command(READ_ONE, Direction.FROM_DEVICE, disk.buffer(512), 0, 512, timeout=1.0, retries=0)
        [request] = disk.start([slow])
        with pytest.raises(ScsiError) as told:
            request.result(2 * LIMIT)
        assert told.value.completion.host in (HostStatus.RESET, HostStatus.TIME_OUT)
        assert disk.stats().timeouts == 1
        assert disk.in_flight == 0
        assert host.storage_adapters["vmhba0"].state == "online"


@only("megasas")
def test_the_image_is_whole_after_a_kill(boot: Boot, controller: Controller, image: Path) -> None:
    """What flush() confirmed before QEMU was killed is in the file."""
    host, disk = boot(controller.platform("hd", *raw_drive(image)))
    disk.write(64, b"safe" * 128 * 8)
    disk.flush()
    os.kill(host.platform.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # likewise
    shown = subprocess.run(
        ["qemu-io", "-f", "raw", "-r", "-c", "read -P 0x73 32768 1", image],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verification failed" not in shown.stdout
    assert image.read_bytes()[64 * 512 : 72 * 512] == b"safe" * 1024
