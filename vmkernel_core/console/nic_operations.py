"""Operations on uplinks: ``vmk network nic``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from vmkernel_core.console.protocol import Nothing, operation
from vmkernel_core.errors import DeviceGone, UsageError

if TYPE_CHECKING:
    from vmkernel_core.boot import Adapter, VMkernel
    from vmkernel_core.net.uplink import Uplink

State = Literal["ready", "removed", "stopped"]
UpDown = Literal["up", "down"]


class NicName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an uplink's name, like ``vmnic0``."""

    name: str


class Nic(msgspec.Struct, frozen=True):
    """An uplink. Of one whose device was removed, or whose driver was stopped, ``error`` says why; it has no values."""

    name: str
    pci_device: str | None
    driver: str
    state: State
    admin_status: UpDown
    link_status: UpDown
    speed: int | None = None
    mac: str | None = None
    mtu: int | None = None
    description: str | None = None
    error: str | None = None


class NicStats(msgspec.Struct, frozen=True):
    """Counters since the device appeared; ``driver`` has the driver's own (``ethtool -S``)."""

    name: str
    packets_received: int
    packets_sent: int
    bytes_received: int
    bytes_sent: int
    receive_packets_dropped: int
    transmit_packets_busy: int
    multicast_packets_received: int
    total_receive_errors: int
    total_transmit_errors: int
    driver: dict[str, int]


class NicSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an uplink and what to change of it."""

    name: str
    mtu: int | None = None
    mac: str | None = None


def find(host: VMkernel, name: str) -> Uplink:
    """The uplink of that name; UsageError."""
    try:
        return host.uplinks[name]
    except KeyError:
        raise UsageError(
            f"there is no uplink {name}", remedy=f"use one of {', '.join(host.uplinks) or 'none'}"
        ) from None


def adapter_of(host: VMkernel, uplink: Uplink) -> Adapter | None:
    """The device behind an uplink."""
    return next((adapter for adapter in host.adapters if adapter.uplink is uplink), None)


@operation("network.nic.list", Nothing, list[Nic])
def nic_list(host: VMkernel, _: Nothing) -> list[Nic]:
    """Every uplink, by name."""
    return [_nic(host, host.uplinks[name]) for name in sorted(host.uplinks, key=_number)]


@operation("network.nic.get", NicName, Nic)
def nic_get(host: VMkernel, wanted: NicName) -> Nic:
    """One uplink."""
    return _nic(host, find(host, wanted.name))


@operation("network.nic.stats.get", NicName, NicStats)
def nic_stats_get(host: VMkernel, wanted: NicName) -> NicStats:
    """Its counters."""
    stats = find(host, wanted.name).stats
    return NicStats(
        name=wanted.name,
        packets_received=stats.rx_frames,
        packets_sent=stats.tx_frames,
        bytes_received=stats.rx_bytes,
        bytes_sent=stats.tx_bytes,
        receive_packets_dropped=stats.rx_dropped,
        transmit_packets_busy=stats.tx_busy,
        multicast_packets_received=stats.multicast,
        total_receive_errors=stats.rx_errors,
        total_transmit_errors=stats.tx_errors,
        driver=stats.driver,
    )


@operation("network.nic.up", NicName, Nic)
def nic_up(host: VMkernel, wanted: NicName) -> Nic:
    """Open it; the link comes up some time later."""
    uplink = find(host, wanted.name)
    uplink.open()
    return _nic(host, uplink)


@operation("network.nic.down", NicName, Nic)
def nic_down(host: VMkernel, wanted: NicName) -> Nic:
    """Close it: no frame and no interrupt comes from it any more."""
    uplink = find(host, wanted.name)
    uplink.close()
    return _nic(host, uplink)


@operation("network.nic.set", NicSettings, Nic)
def nic_set(host: VMkernel, wanted: NicSettings) -> Nic:
    """Change settings one after another; what was changed before one that fails stays so."""
    uplink = find(host, wanted.name)
    if wanted.mac is not None:
        uplink.mac = wanted.mac
    if wanted.mtu is not None:
        uplink.mtu = wanted.mtu
    return _nic(host, uplink)


def _number(name: str) -> int:
    return int(name.removeprefix("vmnic"))


def _nic(host: VMkernel, uplink: Uplink) -> Nic:
    import hcl

    adapter = adapter_of(host, uplink)
    function = adapter.function if adapter else None
    nic = Nic(
        name=uplink.name,
        pci_device=str(function.address) if function else None,
        driver=uplink.driver_name,
        state="ready",
        admin_status="up" if uplink.is_open else "down",
        link_status="down",
        description=hcl.device_name(function.vendor, function.device) if function else None,
    )
    if uplink.error is not None:
        state: State = "removed" if isinstance(uplink.error, DeviceGone) else "stopped"
        return msgspec.structs.replace(nic, state=state, error=str(uplink.error))
    return msgspec.structs.replace(
        nic,
        link_status="up" if uplink.link_up else "down",
        speed=uplink.speed,
        mac=uplink.mac,
        mtu=uplink.mtu,
    )
