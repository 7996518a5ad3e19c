"""What happens to storage, as it is told and as the console shows it then: disks that come later, paths that are lost,
a driver that was stopped.

Independent side: QEMU's monitor, which plugs disks in, Debian's megaraid_sas, vmw_pvscsi and scsi_debug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

import pytest

from tests.vmkernel_core.hardware import until
from vmkernel_core.boot import VMkernel
from vmkernel_core.console.storage_operations import (
    AdapterFilter,
    DeviceFilter,
    adapter_list,
    adapter_rescan,
    device_list,
    path_list,
)
from vmkernel_core.console.target import InProcess
from vmkernel_core.memory import store
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.errors import ScsiError
from vmkernel_core.storage.events import StorageEvent
from vmklinux.btf import Btf
from vmklinux.errors import DriverStopped
from vmklinux.kernels import Kernel
from vmklinux.kobject import addressof
from vmklinux.scsi import Scsi
from vmklinux.scsi_lib import scsi_device_set_state

#: Seconds until what was to come has failed to come.
LIMIT = 60.0
DISK, LATE = "naa.3000000000000001", "naa.3000000000000009"

Boot: TypeAlias = Callable[..., tuple[VMkernel, list[StorageEvent]]]


@pytest.fixture
def boot(kernel: Kernel) -> Iterator[Boot]:
    """Boots a host on a platform; it, and what it tells of storage."""
    with ExitStack() as stack:

        def start(
            platform: QemuPlatform | ModelPlatform, **settings: list[str]
        ) -> tuple[VMkernel, list[StorageEvent]]:
            host = VMkernel(platform, kernel=kernel.release, settings=settings)
            events: list[StorageEvent] = []
            host.watch_storage(events.append)
            return stack.enter_context(host), events

        yield start


def _plug(platform: QemuPlatform) -> None:
    """Put a disk of 1 MiB in."""
    platform.monitor("blockdev-add", **{"driver": "null-co", "node-name": "late", "size": 1 << 20})
    platform.monitor("device_add", driver="scsi-hd", id="late", drive="late", wwn=f"0x{LATE[4:]}")


def _names(events: list[StorageEvent], kind: str) -> list[str]:
    return [event.name for event in events if event.kind == kind]


def test_a_rescan_finds_a_disk_that_came(boot: Boot) -> None:
    platform = QemuPlatform(["megasas"], disks=["null-co://"])
    host, events = boot(platform)
    host.wait_storage(timeout=LIMIT)
    _plug(platform)
    caller = InProcess(host)
    assert [hba.devices for hba in caller.call(adapter_list)] == [[DISK]]
    [hba] = caller.call(adapter_rescan, AdapterFilter("vmhba0"))
    assert (hba.devices, hba.state) == ([DISK, LATE], "online")
    assert _names(events, "appeared") == ["vmhba0", DISK, LATE]
    [late] = caller.call(device_list, DeviceFilter(LATE))
    assert (late.size, late.paths) == (1 << 20, ["vmhba0:C2:T1:L0"])


def test_an_adapter_that_tells_needs_no_rescan(boot: Boot) -> None:
    """QEMU's pvscsi sends a message when a disk comes, and its driver looks."""
    platform = QemuPlatform(["pvscsi"], disks=["null-co://"])
    host, events = boot(platform)
    host.wait_storage(timeout=LIMIT)
    _plug(platform)
    host.wait_storage(2, timeout=LIMIT)
    until("it is told", lambda: LATE in _names(events, "appeared"))


def test_the_state_of_a_path(boot: Boot) -> None:
    """As the mid-layer's functions change it, which transports and drivers of SANs call; nothing goes twice."""
    host, events = boot(ModelPlatform([]), scsi_debug=["dev_size_mb=8"])
    host.load("scsi_debug")
    [disk] = host.storage.values()
    scsi = host.linux.state(Scsi)
    [shost] = scsi.hosts.values()
    [device] = shost.devices.values()
    caller = InProcess(host)
    before = len(events)
    for linux_state, state in (
        ("BLOCK", "blocked"),
        ("RUNNING", "active"),
        ("QUIESCE", "active"),
        ("OFFLINE", "dead"),
        ("TRANSPORT_OFFLINE", "dead"),
        ("RUNNING", "active"),
    ):
        with host.linux.baton():
            assert scsi_device_set_state(host.linux, device.obj, scsi.enum(f"SDEV_{linux_state}")) == 0
        assert [path.state for path in caller.call(path_list)] == [state]
        assert [hba.state for hba in caller.call(adapter_list)] == ["online"]
    told = [(event.name, event.kind) for event in events[before:]]
    assert told == [(disk.name, kind) for kind in ("blocked", "active", "dead", "active")]
    assert disk.read(0, 1)
    host.unload("scsi_debug")
    assert [event.kind for event in events[before + 4 :]] == ["removed", "removed"]


def test_a_driver_that_was_stopped(boot: Boot) -> None:
    """Its pointer to the ring of requests leads to nobody's memory; its devices are told as stopped, then go."""
    host, events = boot(QemuPlatform(["pvscsi"], disks=["null-co://"]))
    host.wait_storage(timeout=LIMIT)
    [disk] = host.storage.values()
    [adapter] = host.storage_adapters.values()
    types = Btf(host.loader.modules["vmw_pvscsi"].file.btf, host.linux.types, origin="vmw_pvscsi")
    [shost] = host.linux.state(Scsi).hosts.values()
    field = addressof(shost.obj, "hostdata") + types.offsetof("pvscsi_adapter", "req_ring")
    store(field, 8, 0x6660_0000_0000)
    with pytest.raises(ScsiError, match="no connect"):
        disk.read(0, 1)
    assert _names(events, "stopped") == ["vmhba0", DISK]
    assert all("vmw_pvscsi was stopped" in event.detail for event in events if event.kind == "stopped")
    until("they are removed", lambda: _names(events, "removed") == [DISK, "vmhba0"])
    caller = InProcess(host)
    assert (caller.call(adapter_list), caller.call(device_list, DeviceFilter())) == ([], [])
    assert (disk.state, adapter.state) == ("dead", "dead")
    for call in (lambda: disk.read(0, 1), adapter.rescan):
        with pytest.raises(DriverStopped):
            call()
    host.unload("vmw_pvscsi")
    host.load("vmw_pvscsi")
    host.wait_storage(timeout=LIMIT)
    assert [path.state for path in caller.call(path_list)] == ["active"]
