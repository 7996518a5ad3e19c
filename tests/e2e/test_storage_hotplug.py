"""Disks and controllers that are taken away while commands are in flight, and that come back.

Independent: QEMU's controllers, its disks and its slots, which follow the specification; Debian's modules.
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.engines import LINUX, NATIVE, Engine, by_engine, on_each, only
from tests.e2e.storage import LIMIT, NAA, WWN, Controller, blank, ends, load, only_disk
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone
from vmkernel_core.hotplug import DeviceEvent
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import HostStatus
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import PathLost
from vmkernel_core.storage.events import StorageEvent

PORTS = ("pcie-root-port,id=port0,chassis=1,addr=3", "pcie-root-port,id=port1,chassis=2,addr=4")
#: A drive that is slow enough for commands to be in flight; whoever opens the image again finds it locked otherwise.
SLOW = "if=none,id=hd,file={},format=raw,file.locking=off,throttling.iops-total=100"
#: The name of the disk behind the controller that stays.
OTHER = f"naa.{WWN + 1:x}"
#: How drivers say that a disk is not there any more.
NOBODY = (HostStatus.NO_CONNECT, HostStatus.BAD_TARGET)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file behind the disk that goes."""
    return blank(tmp_path / "disk.raw")


#: Controllers that fit into slots, and whose disks QEMU takes out and puts in.
driven = on_each("megasas", "mptsas1068", "pvscsi")


def put_disk(platform: QemuPlatform, image: Path, hba: str, wwn: int = WWN) -> None:
    """Put a disk with that image onto a controller; its drive has no throttle."""
    file = {"driver": "file", "filename": str(image), "locking": "off"}
    platform.monitor("blockdev-add", **{"driver": "raw", "node-name": f"{hba}-{wwn:x}", "file": file})
    platform.monitor("device_add", driver="scsi-hd", drive=f"{hba}-{wwn:x}", bus=f"{hba}.0", wwn=wwn)


def took_nobody(disk: StorageDevice) -> None:
    """Nothing is in flight, and what comes now is refused."""
    assert disk.in_flight == 0
    assert disk.stats().in_flight == 0
    with pytest.raises(DeviceGone):
        disk.read(0, 1)


def test_a_disk_is_taken_out_under_load(engine: Engine, controller: Controller, image: Path) -> None:
    platform = controller.platform("hd", "-drive", SLOW.format(image))
    with VMkernel(platform, **engine.options) as host:
        disk, adapter = only_disk(host), host.storage_adapters["vmhba0"]
        requests = load(disk)
        platform.monitor("device_del", id="disk")
        found = ends(requests)
        assert found.total() == len(requests)
        lost = sum(found[status] for status in NOBODY)
        assert lost > len(requests) // 8
        assert found[HostStatus.OK] + lost == len(requests)
        with pytest.raises(PathLost):
            requests[-1].result()
        took_nobody(disk)
        assert adapter.state == "online"
        # Drivers that QEMU's controller tells (pvscsi) have taken the disk away; for the others a rescan finds out.
        adapter.rescan()
        assert host.storage == {}
        assert adapter.devices == []
        put_disk(platform, image, "hba")
        adapter.rescan()
        again = only_disk(host)
        assert again is not disk
        assert again.name == NAA
        assert again.read(0, 1) == image.read_bytes()[:512]
        took_nobody(disk)
    assert host.leaks == []


@only("megasas", "mptsas1068", "pvscsi", engines=("kernel612", NATIVE))
def test_another_disk_at_the_same_place_is_another_device(
    engine: Engine, controller: Controller, image: Path, tmp_path: Path
) -> None:
    platform = controller.platform("hd", "-drive", SLOW.format(image))
    with VMkernel(platform, **engine.options) as host:
        disk = only_disk(host)
        platform.monitor("device_del", id="disk")
        other = tmp_path / "other.raw"
        other.write_bytes(b"other" * 4096 * 5)
        put_disk(platform, other, "hba", WWN + 1)
        host.storage_adapters["vmhba0"].rescan()
        new = only_disk(host)
        assert new is not disk
        assert new.name == f"naa.{WWN + 1:x}"
        assert new.read(0, 1).startswith(b"otherother")
        with pytest.raises(DeviceGone):
            disk.read(0, 1)
    assert host.leaks == []


@only("mptsas1068", engines=LINUX)
def test_mptsas_finds_a_new_disk_when_it_is_reset(
    engine: Engine, controller: Controller, image: Path, tmp_path: Path
) -> None:
    """QEMU's controller tells nobody of a disk that is plugged in, and SAS's part of Linux looks again only at what it
    knows (sas_user_scan): the driver reads the topology anew after a reset.
    """
    platform = controller.platform("hd", "-drive", SLOW.format(image))
    with VMkernel(platform, **engine.options) as host:
        disk, adapter = only_disk(host), host.storage_adapters["vmhba0"]
        put_disk(platform, blank(tmp_path / "other.raw"), "hba", WWN + 1)
        adapter.rescan()
        assert list(host.storage.values()) == [disk]
        adapter.reset()
        host.wait_storage(2, timeout=LIMIT)
        assert host.storage[OTHER].read(0, 1) == (tmp_path / "other.raw").read_bytes()[:512]
        assert disk.read(0, 1) == image.read_bytes()[:512]
    assert host.leaks == []


@by_engine
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_qemu_is_killed_and_the_host_stopped_at_once(engine: Engine, tmp_path: Path, *, seen: bool) -> None:
    """Two drivers let go of what has gone, whether or not the vmkernel has noticed before it stops."""
    disks = [f"{blank(tmp_path / name)},bus={name}.0" for name in ("raid", "sas")]
    platform = QemuPlatform(["megasas,id=raid", "mptsas1068,id=sas"], disks=disks)
    with VMkernel(platform, **engine.options) as host:
        host.wait_storage(2, timeout=LIMIT)
        told: queue.Queue[StorageEvent] = queue.Queue()
        host.watch_storage(told.put)
        os.kill(platform.pid, signal.SIGKILL)
        if seen:
            assert told.get(timeout=LIMIT).kind == "dead"
    assert host.leaks == []


Events = queue.Queue[DeviceEvent]


@contextmanager
def machine(
    engine: Engine, controller: Controller, image: Path
) -> Iterator[tuple[VMkernel, QemuPlatform, Events, StorageDevice, StorageDevice]]:
    """A host with a controller in the first of two slots and another in the second; a disk of each.

    At the end the other one has to serve, and nothing may have leaked that a driver could have given back.
    """
    other = blank(image.with_name("other.raw"))
    devices = [
        *PORTS,
        f"{controller.device},id=hba,bus=port0",
        f"scsi-hd,drive=hd,bus=hba.0,wwn={WWN:#x}",
        f"{controller.device},id=hbb,bus=port1",
        f"scsi-hd,drive=other,bus=hbb.0,wwn={WWN + 1:#x}",
    ]
    drives = ["-drive", SLOW.format(image), "-drive", f"if=none,id=other,file={other},format=raw"]
    platform = QemuPlatform(devices, arguments=drives)
    with VMkernel(platform, **engine.options) as host:
        events: Events = queue.Queue()
        host.watch_devices(events.put)
        host.wait_storage(2, timeout=LIMIT)
        disks = sorted(host.storage.values(), key=lambda disk: disk.path)
        yield host, platform, events, disks[0], disks[1]
        assert disks[1].read(0, 1) == other.read_bytes()[:512]
        assert disks[1].adapter.state == "online"
    assert [leak for leak in host.leaks if not leak.excuse] == []


def comes_back(
    host: VMkernel, platform: QemuPlatform, events: Events, controller: Controller, image: Path
) -> None:
    """A controller is put into the slot again, and its disk read."""
    address = platform.plug(f"{controller.device},id=again,bus=port0")
    put_disk(platform, image, "again")
    assert events.get(timeout=LIMIT) == DeviceEvent("added", address)
    for adapter in list(host.storage_adapters.values()):
        if adapter.state == "online":
            adapter.rescan()
    host.wait_storage(2, timeout=LIMIT)
    disk = next(disk for disk in host.storage.values() if disk.name != OTHER)
    assert disk.read(0, 1) == image.read_bytes()[:512]


@pytest.mark.parametrize("by", ["the platform", "the host"])
def test_a_controller_is_taken_out_in_order(
    engine: Engine, controller: Controller, image: Path, by: str
) -> None:
    with machine(engine, controller, image) as (host, platform, events, disk, other):
        requests = load(disk)
        address = PciAddress(0, 1, 0, 0)
        (platform if by == "the platform" else host).unplug(address)
        assert events.get(timeout=LIMIT) == DeviceEvent("removed", address)
        found = ends(requests)
        assert found.keys() <= {HostStatus.OK, HostStatus.NO_CONNECT}
        assert found.total() == len(requests)
        took_nobody(disk)
        assert list(host.storage.values()) == [other]
        assert list(host.storage_adapters) == ["vmhba1"]
        comes_back(host, platform, events, controller, image)
    assert host.leaks == []


def test_a_controller_is_pulled(engine: Engine, controller: Controller, image: Path) -> None:
    """Its commands end at once. The other one goes on, although the same driver has both."""
    with machine(engine, controller, image) as (host, platform, events, disk, other):
        requests = load(disk)
        address = PciAddress(0, 1, 0, 0)
        platform.pull(address)
        found = ends(requests)
        assert found[HostStatus.NO_CONNECT] > len(requests) // 8
        assert found.keys() <= {HostStatus.OK, HostStatus.NO_CONNECT}
        took_nobody(disk)
        assert other.read(0, 8)
        assert events.get(timeout=LIMIT) == DeviceEvent("removed", address, surprise=True)
        assert list(host.storage.values()) == [other]
        comes_back(host, platform, events, controller, image)
