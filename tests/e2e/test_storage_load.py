"""Disks that are verified, throttled and paused by QEMU while commands of many sizes are in flight.

Independent of us: QEMU's controllers, its blkverify driver, which ends QEMU at the first difference between two images,
its throttle, its monitor; Debian's modules.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.e2e.engines import NATIVE, Engine, on_each, only
from tests.e2e.storage import LIMIT, SIZE, Controller, blank, ends, load, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import HostStatus
from vmkernel_core.storage.device import Request, StorageDevice
from vmkernel_core.storage.errors import PathLost

Boot = Callable[..., tuple[VMkernel, QemuPlatform, StorageDevice]]
#: What block_set_io_throttle takes: none of it limits anything.
FREE = {f"{what}{way}": 0 for what in ("bps", "iops") for way in ("", "_rd", "_wr")}
GOOD = {HostStatus.OK}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file behind the disk."""
    return blank(tmp_path / "disk.raw")


#: A RAID controller and plain ones, which take from 16 to 256 commands at once.
driven = on_each("megasas", "mptsas1068", "pvscsi", "lsi53c895a")


@pytest.fixture
def boot(engine: Engine) -> Iterator[Boot]:
    """Boots a host with one disk on a platform; at its end nothing may have leaked."""
    with ExitStack() as stack:
        hosts = []

        def start(platform: QemuPlatform) -> tuple[VMkernel, QemuPlatform, StorageDevice]:
            host = stack.enter_context(VMkernel(platform, **engine.options))
            hosts.append(host)
            return host, platform, only_disk(host)

        yield start
    assert [host.leaks for host in hosts] == [[] for _ in hosts]


def test_nothing_differs_from_what_qemu_verifies(
    boot: Boot, controller: Controller, image: Path, tmp_path: Path
) -> None:
    """Each of a hundred rounds keeps up to 16 reads and writes in flight, in places that do not overlap."""
    twin = Path(shutil.copy(image, tmp_path / "twin.raw"))
    files = [{"driver": "file", "filename": str(path)} for path in (image, twin)]
    verify = {
        "driver": "blkverify",
        "node-name": "hd",
        "test": {"driver": "raw", "file": files[0]},
        "raw": files[1],
    }
    _, platform, disk = boot(controller.platform("hd", "-blockdev", json.dumps(verify)))
    chance, expected, area = Random(20261123), bytearray(image.read_bytes()), disk.blocks // 16
    for _ in range(100):
        reads: list[tuple[int, int, list[Request]]] = []
        writes: list[Request] = []
        for part in range(chance.randrange(1, 17)):
            count = chance.choice([1, 2, 8, 64, 255, 300])
            at = part * area + chance.randrange(area - count)
            if chance.randrange(2):
                reads.append((at, count, disk.start_read(at, count)))
                continue
            data = chance.randbytes(count * 512)
            expected[at * 512 : (at + count) * 512] = data
            writes += disk.start_write(at, data)
        for at, count, requests in reads:
            for request in requests:
                request.result(LIMIT)
            assert requests[0].buffer is not None
            assert bytes(requests[0].buffer.view) == bytes(expected[at * 512 : (at + count) * 512])
        for request in writes:
            request.result(LIMIT)
    disk.flush()
    assert platform.monitor("query-status")
    assert image.read_bytes() == bytes(expected)
    assert twin.read_bytes() == bytes(expected)


def test_a_throttled_disk_keeps_its_order_and_its_accounts(
    boot: Boot, controller: Controller, image: Path
) -> None:
    """More is submitted than the disk takes at once; the throttle is lifted while it waits, and all of it ends well."""
    _, platform, disk = boot(controller.platform("hd", *raw_drive(image)))
    platform.monitor("block_set_io_throttle", id="disk", **FREE | {"iops": 1})
    before = disk.stats()
    requests = load(disk, 600)
    assert disk.stats().in_flight == disk.stats().in_flight_most == disk.queue_depth
    assert 600 - disk.queue_depth < disk.in_flight <= 600
    platform.monitor("block_set_io_throttle", id="disk", **FREE)
    assert ends(requests).keys() == GOOD
    after = disk.stats()
    assert (after.in_flight, disk.in_flight) == (0, 0)
    assert after.in_flight_most == disk.queue_depth
    assert after.commands == before.commands + 600
    assert after.bytes_written == before.bytes_written + 600 * 512
    assert (after.errors, after.timeouts) == (before.errors, before.timeouts)
    disk.flush()
    assert image.read_bytes()[: 600 * 512] == b"".join(bytes([n % 251]) * 512 for n in range(600))


def test_a_throttle_of_bytes_holds_large_commands_back(
    boot: Boot, controller: Controller, image: Path
) -> None:
    """One command at a time is let through; nothing runs out of its time, since each makes progress."""
    _, platform, disk = boot(controller.platform("hd", *raw_drive(image, ",throttling.bps-total=16777216")))
    content = image.read_bytes()
    timeouts = disk.stats().timeouts
    assert disk.read(0, disk.blocks) == content
    disk.write(0, content[::-1])
    platform.monitor("block_set_io_throttle", id="disk", **FREE)
    disk.flush()
    assert image.read_bytes() == content[::-1]
    assert disk.stats().timeouts == timeouts
    assert disk.stats().bytes_written >= SIZE


def test_a_machine_that_is_paused_and_goes_on(boot: Boot, controller: Controller, image: Path) -> None:
    """QEMU's ``stop`` first ends what its disks do; what comes meanwhile is done at once or afterwards."""
    host, platform, disk = boot(controller.platform("hd", *raw_drive(image, ",throttling.iops-total=200")))
    requests = load(disk, 40)
    platform.monitor("stop")
    requests += load(disk, 40)
    platform.monitor("cont")
    assert ends(requests).keys() == GOOD
    assert disk.in_flight == 0
    assert host.storage_adapters["vmhba0"].state == "online"


def test_a_process_that_stands_still_for_a_while(boot: Boot, controller: Controller, image: Path) -> None:
    """QEMU's process is stopped for a second: its registers and its disk do not answer. Afterwards all ends well."""
    host, platform, disk = boot(controller.platform("hd", *raw_drive(image)))
    goes_on = threading.Timer(1.0, os.kill, (platform.pid, signal.SIGCONT))
    os.kill(platform.pid, signal.SIGSTOP)
    goes_on.start()
    assert ends(load(disk, 24)).keys() == GOOD
    goes_on.join()
    assert disk.stats().timeouts == 0
    assert disk.read(0, 1) == bytes(512)
    assert host.storage_adapters["vmhba0"].state == "online"


@only("mptsas1068", engines=("kernel612", NATIVE))
def test_a_process_that_stands_still_for_good(engine: Engine, controller: Controller, image: Path) -> None:
    """After ten seconds without an answer the hardware counts as gone, and that is final: also when it moves again."""
    platform = controller.platform("hd", *raw_drive(image))
    with VMkernel(platform, **engine.options) as host:
        disk = only_disk(host)
        os.kill(platform.pid, signal.SIGSTOP)
        requests = load(disk, 24)
        assert ends(requests).keys() == {HostStatus.NO_CONNECT}
        with pytest.raises(PathLost):
            requests[0].result()
        os.kill(platform.pid, signal.SIGCONT)
        assert disk.adapter.state == "dead"
        with pytest.raises(DeviceGone):
            disk.read(0, 1)
    assert host.leaks == []
