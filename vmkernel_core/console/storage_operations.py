"""Operations on storage: ``vmk storage core``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from vmkernel_core.console.protocol import Nothing, one_of, operation
from vmkernel_core.errors import UsageError
from vmkernel_core.storage.adapter import AdapterState
from vmkernel_core.storage.command import UNMAP
from vmkernel_core.storage.device import DeviceState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmkernel_core.boot import VMkernel
    from vmkernel_core.storage.adapter import StorageAdapter, StorageStats
    from vmkernel_core.storage.device import StorageDevice


class AdapterFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an adapter's name, like ``vmhba0``; none for all."""

    adapter: str | None = None


class DeviceFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: a device's name, or that of a path to it; none for all."""

    device: str | None = None


class DeviceName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: a device's name, or that of a path to it."""

    device: str


class Hba(msgspec.Struct, frozen=True):
    """A storage adapter. Of one that is dead ``error`` says why, if it has gone; it has no values then."""

    name: str
    pci_device: str | None
    driver: str
    state: AdapterState
    queue_depth: int | None
    devices: list[str]
    model: str | None
    """What the driver says of it."""
    description: str | None
    """What the system's pci.ids has."""
    error: str | None = None


class StorageCounters(msgspec.Struct, frozen=True):
    """Counters of a device since it appeared, or of an adapter: those of the devices that it has, together."""

    name: str
    successful_commands: int
    failed_commands: int
    bytes_read: int
    bytes_written: int
    retries: int
    timeouts: int
    busy: int
    queue_full: int
    unit_attentions: int
    in_flight: int
    in_flight_most: int


class ScsiDevice(msgspec.Struct, frozen=True):
    """A device that holds blocks, by whichever path. ``size`` is in bytes."""

    name: str
    paths: list[str]
    state: DeviceState
    vendor: str
    model: str
    revision: str
    size: int
    blocks: int
    block_size: int
    error: str | None


class ScsiDeviceDetails(ScsiDevice, frozen=True):
    """The same, and what can be done with it. ``maximum_transfer`` is in bytes, for one command."""

    queue_depth: int | None
    maximum_transfer: int
    write_cache: bool
    read_only: bool
    removable: bool
    discard: str | None
    maximum_discard: int | None


class ScsiPath(msgspec.Struct, frozen=True):
    """A path: an adapter's way to a device."""

    runtime_name: str
    device: str
    adapter: str
    channel: int
    target: int
    lun: int
    state: DeviceState
    error: str | None


Named = TypeVar("Named")


def _known(named: Mapping[str, Named], name: str, what: str) -> Named:
    try:
        return named[name]
    except KeyError:
        raise UsageError(f"there is no storage {what} {name}", remedy=one_of(named)) from None


def adapters(host: VMkernel, name: str | None) -> list[StorageAdapter]:
    """The adapter of that name, or all. UsageError."""
    known = dict(host.storage_adapters)
    return list(known.values()) if name is None else [_known(known, name, "adapter")]


def paths_to(host: VMkernel, name: str) -> list[StorageDevice]:
    """The device of that name by each path to it, usable ones first; by one if the name is a path's. UsageError."""
    every = list(host.storage.values())
    if found := [one for one in every if one.name == name] or [one for one in every if one.path == name]:
        return sorted(found, key=lambda one: one.state != "active")
    raise UsageError(f"there is no storage device {name}", remedy=one_of(one.name for one in every))


def _devices(host: VMkernel, name: str | None) -> list[list[StorageDevice]]:
    names = [name] if name else dict.fromkeys(device.name for device in host.storage.values())
    return [paths_to(host, one) for one in names]


@operation("storage.core.adapter.list", Nothing, list[Hba])
def adapter_list(host: VMkernel, _: Nothing) -> list[Hba]:
    """Every adapter, by name."""
    return [_hba(host, adapter) for adapter in adapters(host, None)]


@operation("storage.core.adapter.rescan", AdapterFilter, list[Hba])
def adapter_rescan(host: VMkernel, wanted: AdapterFilter) -> list[Hba]:
    """Look for devices that came; the adapters with what they have then."""
    chosen = adapters(host, wanted.adapter)
    for adapter in chosen:
        adapter.rescan()
    return [_hba(host, adapter) for adapter in chosen]


@operation("storage.core.adapter.stats.get", AdapterFilter, list[StorageCounters])
def adapter_stats_get(host: VMkernel, wanted: AdapterFilter) -> list[StorageCounters]:
    """Counters of adapters."""
    return [_counters(adapter.name, adapter.stats()) for adapter in adapters(host, wanted.adapter)]


@operation("storage.core.device.list", DeviceFilter, list[ScsiDevice])
def device_list(host: VMkernel, wanted: DeviceFilter) -> list[ScsiDevice]:
    """Devices, each once, however many paths lead to it."""
    return [_device(paths) for paths in _devices(host, wanted.device)]


@operation("storage.core.device.get", DeviceName, ScsiDeviceDetails)
def device_get(host: VMkernel, wanted: DeviceName) -> ScsiDeviceDetails:
    """One device."""
    paths = paths_to(host, wanted.device)
    device, limits = paths[0], paths[0].limits
    return ScsiDeviceDetails(
        **msgspec.structs.asdict(_device(paths)),
        queue_depth=None if device.error else device.queue_depth,
        maximum_transfer=limits.transfer,
        write_cache=device.write_cache,
        read_only=device.read_only,
        removable=device.removable,
        discard=("unmap" if limits.discard == UNMAP else "write-same") if limits.discard else None,
        maximum_discard=limits.discard_most if limits.discard else None,
    )


@operation("storage.core.device.stats.get", DeviceFilter, list[StorageCounters])
def device_stats_get(host: VMkernel, wanted: DeviceFilter) -> list[StorageCounters]:
    """Counters of devices, of all their paths together."""
    return [
        _counters(paths[0].name, sum((path.stats() for path in paths[1:]), paths[0].stats()))
        for paths in _devices(host, wanted.device)
    ]


@operation("storage.core.path.list", DeviceFilter, list[ScsiPath])
def path_list(host: VMkernel, wanted: DeviceFilter) -> list[ScsiPath]:
    """Paths, of all devices or of one."""
    return [_path(path) for paths in _devices(host, wanted.device) for path in paths]


def _hba(host: VMkernel, adapter: StorageAdapter) -> Hba:
    import hcl

    function = next(
        (one.function for one in host.adapters if one.function.address == adapter.pci_address), None
    )
    gone = adapter.error is not None
    return Hba(
        name=adapter.name,
        pci_device=str(adapter.pci_address) if adapter.pci_address else None,
        driver=adapter.driver,
        state=adapter.state,
        queue_depth=None if gone else adapter.queue_depth,
        devices=[device.name for device in adapter.devices],
        model=None if gone else adapter.model,
        description=hcl.device_name(function.vendor, function.device) if function else None,
        error=str(adapter.error) if gone else None,
    )


def _counters(name: str, stats: StorageStats) -> StorageCounters:
    return StorageCounters(
        name=name,
        successful_commands=stats.commands - stats.errors,
        failed_commands=stats.errors,
        bytes_read=stats.bytes_read,
        bytes_written=stats.bytes_written,
        retries=stats.retries,
        timeouts=stats.timeouts,
        busy=stats.busy,
        queue_full=stats.queue_full,
        unit_attentions=stats.unit_attentions,
        in_flight=stats.in_flight,
        in_flight_most=stats.in_flight_most,
    )


def _device(paths: list[StorageDevice]) -> ScsiDevice:
    device = paths[0]
    return ScsiDevice(
        name=device.name,
        paths=sorted(path.path for path in paths),
        state=device.state,
        vendor=device.vendor,
        model=device.model,
        revision=device.revision,
        size=device.capacity,
        blocks=device.blocks,
        block_size=device.block_size,
        error=str(device.error) if device.error else None,
    )


def _path(device: StorageDevice) -> ScsiPath:
    channel, target, lun = (int(part[1:]) for part in device.path.split(":")[1:])
    return ScsiPath(
        runtime_name=device.path,
        device=device.name,
        adapter=device.adapter.name,
        channel=channel,
        target=target,
        lun=lun,
        state=device.state,
        error=str(device.error) if device.error else None,
    )
