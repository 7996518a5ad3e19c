"""The disk driver's place (Linux drivers/scsi/sd.c): what of a scsi_device a StorageDevice of the vmkernel needs."""

from __future__ import annotations

import logging
import threading
from itertools import count
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import DeviceGone, UsageError, VmkError
from vmkernel_core.storage.adapter import StorageAdapter
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.events import StorageEvent
from vmklinux.scsi import Scsi, scsi_change_queue_depth, vpd_page
from vmklinux.scsi_lib import scsi_device_set_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmkernel_core.storage.adapter import StorageStats
    from vmkernel_core.storage.command import Command, Completion
    from vmkernel_core.storage.device import DeviceState
    from vmkernel_core.storage.events import StorageEventKind
    from vmkernel_core.storage.sg_array import SgArray
    from vmklinux.hosts import Host
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.scsi import Device

log = logging.getLogger(__name__)

#: Peripheral device types that hold blocks (SPC-4, 6.6.2): direct access, CD and DVD, optical memory, reduced blocks.
BLOCK_TYPES = frozenset({0x00, 0x05, 0x07, 0x0E})
#: enum scsi_device_state; one in another state is going.
_STATES: dict[str, DeviceState] = {
    "RUNNING": "active", "QUIESCE": "active", "BLOCK": "blocked", "CREATED_BLOCK": "blocked",
    "OFFLINE": "dead", "TRANSPORT_OFFLINE": "dead",
}  # fmt: skip
#: What an event says of them.
_WORDS: dict[DeviceState, str] = {
    "active": "it takes commands again",
    "blocked": "its transport has lost it for now",
    "dead": "error handling, or its transport, has given it up",
}


def _state(device: Device) -> DeviceState | None:
    """How the way to it is; None for one that is going."""
    scsi, state = device.host.scsi, device.obj.sdev_state
    return next((word for name, word in _STATES.items() if state == scsi.enum(f"SDEV_{name}")), None)


class Disk:
    """A scsi_device as the vmkernel uses it (DeviceDriver)."""

    def __init__(self, device: Device) -> None:
        """Stand on a device of the mid-layer's."""
        self._device = device
        self.memory = device.host.linux.memory
        shost = device.host.obj
        limits = device.obj.request_queue.limits
        segments = max(min(shost.sg_tablesize, limits.max_segments) - 1, 1)  # a buffer may begin amid a page
        segment = min(shost.max_segment_size, limits.max_segment_size)
        self.max_transfer = min(shost.max_sectors, limits.max_hw_sectors) * 512
        self.max_transfer = max(min(self.max_transfer, segments * segment), 4096)
        self.alignment = limits.dma_alignment + 1

    def inquiry(self) -> bytes:
        """What the scan read."""
        return self._device.inquiry

    def vpd(self, page: int) -> bytes:
        """What the scan read, else the device's answer now."""
        if page in self._device.vpd:
            return self._device.vpd[page]
        supported = self._device.vpd.get(0)
        if self._device.obj.skip_vpd_pages or (supported is not None and page not in supported[4:]):
            return b""
        return vpd_page(self._device, page)

    def address(self) -> tuple[int, int, int]:
        """Channel, target and LUN."""
        return self._device.address

    def state(self) -> DeviceState:
        """How the way to it is, by its state in Linux."""
        return _state(self._device) or "dead"

    def set_online(self, on: bool) -> None:
        """What a write of ``running`` or ``offline`` to a device's ``state`` in sysfs does."""
        linux, sdev = self._device.host.linux, self._device.obj
        with linux.baton():
            state = self._device.host.scsi.enum("SDEV_RUNNING" if on else "SDEV_OFFLINE")
            if scsi_device_set_state(linux, sdev, state):
                raise UsageError("the device is going", where=linux.string(sdev.sdev_gendev.kobj.name))
            lib.linux_scsi_run(self._device.host.handle)

    def queue_depth(self) -> int:
        """scsi_device.queue_depth."""
        return int(self._device.obj.queue_depth)

    def set_queue_depth(self, depth: int) -> int:
        """As a write to queue_depth in sysfs: the driver's change_queue_depth, else none."""
        host, sdev = self._device.host, self._device.obj
        with host.linux.baton():
            if change := sdev.host.hostt.change_queue_depth:
                return host.linux.call_int(change, sdev, depth, owner=host.owner)
            return scsi_change_queue_depth(host.linux, sdev, depth)

    def configured(self, block_size: int) -> None:
        """Drivers read the block size there."""
        self._device.obj.sector_size = block_size

    def fits(self, buffer: SgArray, offset: int, length: int) -> int:
        """As the limits of host and queue have it."""
        return self._device.queue.fits(buffer, offset, length)

    def execute(self, command: Command) -> Completion:
        """Send a command and wait."""
        return self._device.queue.execute(command)

    def submit(self, commands: Sequence[tuple[int, Command]]) -> int:
        """Send commands."""
        return self._device.queue.submit(commands)

    def reap(self, most: int) -> list[tuple[int, Completion]]:
        """Fetch what ended."""
        return self._device.queue.reap(most)

    def wait(self, timeout: float) -> bool:
        """Wait for something to reap."""
        return self._device.queue.wait(timeout)

    def stats(self) -> StorageStats:
        """Counters."""
        return self._device.queue.stats()


def _size(storage: StorageDevice) -> str:
    if not storage.medium:
        return "no medium"
    return f"{storage.blocks} blocks of {storage.block_size} bytes"


class Inventory:
    """The adapters and devices that the vmkernel has, by name: ``vmhba0``, ``naa.…`` or ``vmhba0:C0:T1:L0``.

    A device that two paths lead to keeps its name on the first; the other is known by its path. ``on_event`` is told of
    what happens to them, in a thread of the vmkernel. Both tables, and an adapter's list of devices, are replaced when
    something comes or goes, never changed: a program may go through them at any time.
    """

    def __init__(self, linux: Linux) -> None:
        """Be told of hosts and devices as they come and go."""
        self.adapters: dict[str, StorageAdapter] = {}
        self.devices: dict[str, StorageDevice] = {}
        #: Notified when a device came or went.
        self.changed = threading.Condition()
        self.on_event: Callable[[StorageEvent], None] = lambda _event: None
        self._by_device: dict[Device, StorageDevice] = {}
        self._states: dict[Device, DeviceState | None] = {}
        self._scsi = linux.state(Scsi)
        self._scsi.on_host, self._scsi.on_host_gone = self._host_came, self._host_went
        self._scsi.on_device, self._scsi.on_device_gone = self._device_came, self._device_went
        self._scsi.on_device_state = self._device_state
        self._scsi.on_device_changed = self._device_changed

    def _host_came(self, host: Host) -> None:
        name = next(name for n in count() if (name := f"vmhba{n}") not in self.adapters)
        host.adapter = StorageAdapter(name, host)
        self.adapters = self.adapters | {name: host.adapter}
        self.on_event(StorageEvent(name, "appeared", f"{host.adapter.driver}: {host.adapter.model}"))

    def _host_went(self, host: Host) -> None:
        adapter = host.adapter
        if adapter is not None and adapter.name in self.adapters:
            self.adapters = {name: other for name, other in self.adapters.items() if other is not adapter}
            adapter.removed()
            self._tell(adapter.name, "removed", adapter.error)

    def _device_came(self, device: Device) -> None:
        adapter = device.host.adapter
        if device.obj.type not in BLOCK_TYPES or adapter is None:
            return
        try:
            storage = StorageDevice(adapter, Disk(device))
        except VmkError as error:
            log.warning("%s: %s", adapter.name, error)
            return
        adapter.devices = [*adapter.devices, storage]
        self._by_device[device] = storage
        self._states[device] = _state(device)
        name = storage.path if storage.name in self.devices else storage.name
        with self.changed:
            self.devices = self.devices | {name: storage}
            self.changed.notify_all()
        what = f"{storage.vendor} {storage.model}, {_size(storage)}"
        self.on_event(
            StorageEvent(name, "appeared", what if name == storage.path else f"{what}, {storage.path}")
        )

    def _device_went(self, device: Device) -> None:
        storage, _ = self._by_device.pop(device, None), self._states.pop(device, None)
        if storage is None:
            return
        storage.removed(DeviceGone(f"{storage.name} has gone", where=storage.path))
        storage.adapter.devices = [other for other in storage.adapter.devices if other is not storage]
        name = self._name(storage)
        with self.changed:
            self.devices = {name: other for name, other in self.devices.items() if other is not storage}
            self.changed.notify_all()
        self._tell(name, "removed", storage.error)

    def _device_state(self, device: Device) -> None:
        storage, state = self._by_device.get(device), _state(device)
        if storage is not None and state is not None and state != self._states[device]:
            self._states[device] = state
            self.on_event(StorageEvent(self._name(storage), state, _WORDS[state]))

    def _device_changed(self, device: Device) -> None:
        storage = self._by_device.get(device)
        if storage is None:
            return
        try:
            storage.refresh()
        except VmkError as error:
            log.warning("%s: %s", storage.name, error)
            return
        self.on_event(StorageEvent(self._name(storage), "changed", _size(storage)))

    def _name(self, storage: StorageDevice) -> str:
        return next(name for name, other in self.devices.items() if other is storage)

    def stopped(self, low: int, high: int, error: VmkError) -> None:
        """The driver that lies in [low, high) was stopped: ``error``, which its adapters and devices have now."""
        for host in self._scsi.of_driver(low, high):
            self._dead(host, "stopped", error)

    def _dead(self, host: Host, kind: StorageEventKind, error: VmkError | None = None) -> None:
        adapter = host.adapter
        if adapter is None or adapter.error is not None:
            return
        adapter.removed(error)
        for name in (adapter.name, *map(self._name, adapter.devices)):
            self._tell(name, kind, adapter.error)

    def _tell(self, name: str, kind: StorageEventKind, error: VmkError | None) -> None:
        self.on_event(StorageEvent(name, kind, error.what if error else ""))

    def gone(self, below: Obj | None = None) -> None:
        """The hardware has gone, all of it or what hangs at one PCI device: every command there ends now."""
        with self._scsi.linux.baton():  # its driver may be letting go of it in another world
            for host in list(self._scsi.hosts.values()) if below is None else self._scsi.of_device(below):
                self._dead(host, "dead")
                host.end()
