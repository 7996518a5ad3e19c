"""A storage adapter: a SCSI or RAID controller as the hypervisor sees it (ESX's vmhba)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from vmkernel_core.errors import DeviceGone, VmkError

if TYPE_CHECKING:
    from vmkernel_core.platform.base import PciAddress
    from vmkernel_core.storage.device import StorageDevice
    from vmkernel_core.storage.iscsi import IscsiControls

log = logging.getLogger(__name__)

#: online; recovering: error handling is at work, commands wait; dead: its hardware or its driver has gone.
AdapterState: TypeAlias = Literal["online", "recovering", "dead"]


@dataclass(frozen=True, slots=True)
class StorageStats:
    """Counters since the device appeared; ``in_flight`` is how many commands the driver has now,
    ``in_flight_most`` the most that it ever had.

    ``errors`` counts commands that ended with one, ``busy`` those that the driver handed back, ``queue_full`` the
    times that the device said so.
    """

    commands: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    errors: int = 0
    retries: int = 0
    timeouts: int = 0
    busy: int = 0
    queue_full: int = 0
    unit_attentions: int = 0
    in_flight: int = 0
    in_flight_most: int = 0

    def __add__(self, other: StorageStats) -> StorageStats:
        """Both together."""
        return StorageStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class AdapterDriver(Protocol):
    """What stands behind an adapter; vmklinux makes it of a Scsi_Host."""

    driver_name: str

    def pci_address(self) -> PciAddress | None:
        """Where the controller is on the PCI bus; None for one that is on none."""

    def model(self) -> str:
        """What the driver says of the hardware, in a line."""

    def state(self) -> AdapterState:
        """How it is."""

    def queue_depth(self) -> int:
        """Commands that the adapter takes at once."""

    def iscsi(self) -> IscsiControls | None:
        """What an iSCSI initiator can be asked and told; None of an adapter of another kind."""

    def rescan(self) -> None:
        """Look for devices that came, and for those that went."""

    def reset(self) -> None:
        """Let error handling reset the adapter; NotSupported, DriverRefused when it did not work."""


class StorageAdapter:
    """A controller: ``name`` (``vmhba0``), ``driver`` (the module's name) and ``devices``, those that it serves now.

    ``pci_address`` is its place on the PCI bus, None for one that is on none.
    """

    def __init__(self, name: str, driver: AdapterDriver) -> None:
        self.name = name
        self.devices: list[StorageDevice] = []
        self.pci_address = driver.pci_address()
        self.error: VmkError | None = None
        self._driver = driver

    @property
    def driver(self) -> str:
        """The name of the driver that serves it."""
        return self._driver.driver_name

    @property
    def model(self) -> str:
        """What the driver says of the hardware, in a line."""
        return self._driver.model()

    @property
    def state(self) -> AdapterState:
        """How it is."""
        return "dead" if self.error else self._driver.state()

    @property
    def queue_depth(self) -> int:
        """Commands that it takes at once, from all devices together."""
        return self._driver.queue_depth()

    @property
    def iscsi(self) -> IscsiControls | None:
        """Its targets and sessions, if it is an iSCSI initiator and has not gone; else None."""
        return None if self.error else self._driver.iscsi()

    def stats(self) -> StorageStats:
        """The counters of its devices together."""
        return sum((device.stats() for device in self.devices), StorageStats())

    def rescan(self) -> None:
        """Look for devices that came, and take away those that went: as ESX does (Linux leaves them until told).

        A device is gone when it does not answer any more, or when another one answers at its place; one that is not
        running (``StorageDevice.state``) stays. Those that stay are asked for their size again. A transport may look at
        those only that its adapter told of: mptsas behind QEMU, which tells of none that is plugged in, finds it after
        ``reset``. DeviceGone, DriverStopped.
        """
        self._alive()
        self._driver.rescan()
        for device in self.devices:
            if device.state == "active":
                try:
                    device.refresh()
                except VmkError as error:
                    log.warning("%s: %s", device.name, error)

    def reset(self) -> None:
        """Reset the adapter; commands in flight are sent again.

        DeviceGone; NotSupported when its driver has no such function, DriverRefused when that failed.
        """
        self._alive()
        self._driver.reset()

    def _alive(self) -> None:
        if self.error:
            raise self.error

    def removed(self, error: VmkError | None = None) -> None:
        """The hardware or the driver has gone: it and its devices are dead from now on."""
        if self.error is None:
            self.error = error or DeviceGone(f"{self.name} has gone", where=self._driver.driver_name)
        for device in self.devices:
            device.removed(self.error)

    def __repr__(self) -> str:
        """Name, driver and state."""
        return f"<StorageAdapter {self.name}: {self.driver}, {self.state}>"
