"""The disk driver's place (Linux drivers/scsi/sd.c): what of a scsi_device a StorageDevice of the vmkernel needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import UsageError
from vmkernel_core.storage.inventory import BLOCK_TYPES
from vmklinux.scsi import Scsi, scsi_change_queue_depth, vpd_page
from vmklinux.scsi_lib import scsi_device_set_state
from vmklinux.scsi_policy import DEVICE_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.errors import VmkError
    from vmkernel_core.storage.adapter import StorageStats
    from vmkernel_core.storage.command import Command, Completion
    from vmkernel_core.storage.device import DeviceState, StorageDevice
    from vmkernel_core.storage.inventory import Inventory
    from vmkernel_core.storage.sg_array import SgArray
    from vmklinux.hosts import Host
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.scsi import Device


def _state(device: Device) -> DeviceState | None:
    """How the way to it is; None for one that is going."""
    scsi, state = device.host.scsi, device.obj.sdev_state
    return next((word for name, word in DEVICE_STATES.items() if state == scsi.enum(f"SDEV_{name}")), None)


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


class Disks:
    """Tells the vmkernel's inventory of the mid-layer's hosts and devices."""

    def __init__(self, linux: Linux, inventory: Inventory) -> None:
        """Be told of hosts and devices as they come and go."""
        self._inventory = inventory
        self._by_device: dict[Device, StorageDevice] = {}
        self._scsi = linux.state(Scsi)
        self._scsi.on_host, self._scsi.on_host_gone = self._host_came, self._host_went
        self._scsi.on_device, self._scsi.on_device_gone = self._device_came, self._device_went
        self._scsi.on_device_state = self._device_state
        self._scsi.on_device_changed = self._device_changed

    def _host_came(self, host: Host) -> None:
        host.adapter = self._inventory.add_adapter(host)

    def _host_went(self, host: Host) -> None:
        if host.adapter is not None:
            self._inventory.remove_adapter(host.adapter)

    def _device_came(self, device: Device) -> None:
        adapter = device.host.adapter
        if device.obj.type not in BLOCK_TYPES or adapter is None:
            return
        if (storage := self._inventory.add_device(adapter, Disk(device))) is not None:
            self._by_device[device] = storage

    def _device_went(self, device: Device) -> None:
        if (storage := self._by_device.pop(device, None)) is not None:
            self._inventory.remove_device(storage)

    def _device_state(self, device: Device) -> None:
        storage, state = self._by_device.get(device), _state(device)
        if storage is not None and state is not None:
            self._inventory.device_state(storage, state)

    def _device_changed(self, device: Device) -> None:
        if (storage := self._by_device.get(device)) is not None:
            self._inventory.device_changed(storage)

    def stopped(self, low: int, high: int, error: VmkError) -> None:
        """The driver that lies in [low, high) was stopped: ``error``, which its adapters and devices have now."""
        for host in self._scsi.of_driver(low, high):
            if host.adapter is not None:
                self._inventory.dead(host.adapter, "stopped", error)

    def gone(self, below: Obj | None = None) -> None:
        """The hardware has gone, all of it or what hangs at one PCI device: every command there ends now."""
        with self._scsi.linux.baton():  # its driver may be letting go of it in another world
            for host in list(self._scsi.hosts.values()) if below is None else self._scsi.of_device(below):
                if host.adapter is not None:
                    self._inventory.dead(host.adapter, "dead")
                host.end()
