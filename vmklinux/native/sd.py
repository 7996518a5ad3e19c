"""The disk driver's place (Linux drivers/scsi/sd.c): drivers in Python as the vmkernel's storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.storage.inventory import BLOCK_TYPES
from vmklinux.native.device import baton
from vmklinux.native.scsi import scsi_hosts

if TYPE_CHECKING:
    from vmkernel_core.storage.device import StorageDevice
    from vmkernel_core.storage.inventory import Inventory
    from vmklinux.native.device import Device
    from vmklinux.native.scsi_device import ScsiDevice
    from vmklinux.native.scsi_host import ScsiHost


class Disks:
    """Tells the vmkernel's inventory of hosts and devices of drivers in Python."""

    def __init__(self, inventory: Inventory) -> None:
        """Be told of hosts and devices as they come and go."""
        self._inventory = inventory
        self._by_device: dict[ScsiDevice, StorageDevice] = {}
        scsi_hosts.on_host, scsi_hosts.on_host_gone = self._host_came, self._host_went
        scsi_hosts.on_device, scsi_hosts.on_device_gone = self._device_came, self._device_went
        scsi_hosts.on_device_state, scsi_hosts.on_device_changed = self._device_state, self._device_changed

    def _host_came(self, host: ScsiHost) -> None:
        host.adapter = self._inventory.add_adapter(host)

    def _host_went(self, host: ScsiHost) -> None:
        if host.adapter is not None:
            self._inventory.remove_adapter(host.adapter)

    def _device_came(self, device: ScsiDevice) -> None:
        adapter = device.host.adapter
        if device.type not in BLOCK_TYPES or adapter is None:
            return
        if (storage := self._inventory.add_device(adapter, device)) is not None:
            self._by_device[device] = storage

    def _device_went(self, device: ScsiDevice) -> None:
        if (storage := self._by_device.pop(device, None)) is not None:
            self._inventory.remove_device(storage)

    def _device_state(self, device: ScsiDevice) -> None:
        storage = self._by_device.get(device)
        if storage is not None and device.sdev_state not in ("CANCEL", "DEL"):
            self._inventory.device_state(storage, device.state())

    def _device_changed(self, device: ScsiDevice) -> None:
        if (storage := self._by_device.get(device)) is not None:
            self._inventory.device_changed(storage)

    def stopped(self, device: Device) -> None:
        """A driver was stopped (``Device.on_stopped``): every command of its hosts ends now."""
        with baton():
            for host in scsi_hosts.of_device(device):
                if host.adapter is not None:
                    self._inventory.dead(host.adapter, "stopped", device.stopped)
                host.end()

    def gone(self, device: Device) -> None:
        """The hardware has gone (``Device.gone``): every command there ends now."""
        with baton():  # its driver may be letting go of it in another world
            for host in scsi_hosts.of_device(device):
                if host.adapter is not None:
                    self._inventory.dead(host.adapter, "dead")
                host.end()
