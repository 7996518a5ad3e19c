"""Operations on uplinks: ``vmk network nic``."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import msgspec

from vmkernel_core.console.protocol import Nothing, one_of, operation
from vmkernel_core.errors import DeviceGone, UsageError, VmkError
from vmkernel_core.net.settings import Duplex

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.adapter import Adapter
    from vmkernel_core.boot import VMkernel
    from vmkernel_core.net.settings import Wake
    from vmkernel_core.net.uplink import Uplink

log = logging.getLogger(__name__)

State = Literal["ready", "suspended", "removed", "stopped"]
UpDown = Literal["up", "down"]


class NicName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an uplink's name, like ``vmnic0``."""

    name: str


class Nic(msgspec.Struct, frozen=True):
    """An uplink. Of one whose device was removed, or whose driver was stopped, ``error`` says why; it has no values.

    What the driver does not tell is None. ``speed`` is in Mb/s, 0 without a link; ``mtu`` in bytes.
    """

    name: str
    pci_device: str | None
    driver: str
    state: State
    admin_status: UpDown
    link_status: UpDown
    speed: int | None = None
    duplex: Duplex | None = None
    mac: str | None = None
    mtu: int | None = None
    description: str | None = None
    error: str | None = None


class NicDetails(Nic, frozen=True):
    """The same, and what its driver tells of the link, the device and itself; names are ethtool's."""

    auto_negotiation: bool | None = None
    advertised_link_modes: list[str] | None = None
    supported_link_modes: list[str] | None = None
    port: str | None = None
    pause_auto_negotiation: bool | None = None
    pause_rx: bool | None = None
    pause_tx: bool | None = None
    wake_on_lan: list[str] | None = None
    supported_wake_on_lan: list[str] | None = None
    message_level: list[str] | None = None
    features: list[str] | None = None
    driver_version: str | None = None
    firmware_version: str | None = None


class NicStats(msgspec.Struct, frozen=True):
    """Counters since the device appeared; ``driver`` has the driver's own (``ethtool -S``).

    What is received counts when a program fetches it.
    """

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
    """Arguments: an uplink and what to change of it.

    ``speed`` (Mb/s) and ``duplex`` go together and end autonegotiation, ``auto`` begins it again.
    """

    name: str
    mtu: int | None = None
    mac: str | None = None
    auto: bool = False
    speed: int | None = None
    duplex: Literal["half", "full"] | None = None
    wake_on_lan: list[str] | None = None
    message_level: list[str] | None = None


def find(host: VMkernel, name: str) -> Uplink:
    """The uplink of that name; UsageError."""
    try:
        return host.uplinks[name]
    except KeyError:
        raise UsageError(f"there is no uplink {name}", remedy=one_of(host.uplinks)) from None


def adapter_of(host: VMkernel, uplink: Uplink) -> Adapter | None:
    """The device behind an uplink."""
    return next((adapter for adapter in host.adapters if adapter.uplink is uplink), None)


@operation("network.nic.list", Nothing, list[Nic])
def nic_list(host: VMkernel, _: Nothing) -> list[Nic]:
    """Every uplink, by name."""
    return [_nic(host, uplink) for uplink in sorted(host.uplinks.values(), key=_number)]


@operation("network.nic.get", NicName, NicDetails)
def nic_get(host: VMkernel, wanted: NicName) -> NicDetails:
    """One uplink."""
    return _details(host, find(host, wanted.name))


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


@operation("network.nic.suspend", NicName, Nic)
def nic_suspend(host: VMkernel, wanted: NicName) -> Nic:
    """Put it to sleep; its wake-on-LAN setting tells what may wake the machine."""
    uplink = find(host, wanted.name)
    uplink.suspend()
    return _nic(host, uplink)


@operation("network.nic.resume", NicName, Nic)
def nic_resume(host: VMkernel, wanted: NicName) -> Nic:
    """Wake it up; the link comes back some time later."""
    uplink = find(host, wanted.name)
    uplink.resume()
    return _nic(host, uplink)


@operation("network.nic.set", NicSettings, NicDetails)
def nic_set(host: VMkernel, wanted: NicSettings) -> NicDetails:
    """Change settings one after another; what was changed before one that fails stays so."""
    uplink = find(host, wanted.name)
    forced = wanted.speed is not None and wanted.duplex is not None
    if not forced and (wanted.speed is not None or wanted.duplex is not None):
        raise UsageError("speed and duplex go together", remedy="give both")
    if forced and wanted.auto:
        raise UsageError("speed and duplex are forced, or negotiated", remedy="give them, or auto")
    if wanted.mac is not None:
        uplink.mac = wanted.mac
    if wanted.mtu is not None:
        uplink.mtu = wanted.mtu
    if wanted.auto:
        uplink.link = replace(uplink.link, autonegotiation=True)
    if wanted.speed is not None and wanted.duplex is not None:
        uplink.link = replace(uplink.link, autonegotiation=False, speed=wanted.speed, duplex=wanted.duplex)
    if wanted.wake_on_lan is not None:
        names = cast("frozenset[Wake]", frozenset(wanted.wake_on_lan))  # the uplink refuses others
        uplink.wake_on_lan = replace(uplink.wake_on_lan, enabled=names)
    if wanted.message_level is not None:
        uplink.message_level = frozenset(wanted.message_level)
    return _details(host, uplink)


def _number(uplink: Uplink) -> int:
    return int(uplink.name.removeprefix("vmnic"))


def _nic(host: VMkernel, uplink: Uplink) -> Nic:
    import hcl

    adapter = adapter_of(host, uplink)
    function = adapter.function if adapter else None
    nic = Nic(
        name=uplink.name,
        pci_device=str(function.address) if function else None,
        driver=uplink.driver_name,
        state="suspended" if uplink.is_suspended else "ready",
        admin_status="up" if uplink.is_open else "down",
        link_status="down",
        description=hcl.device_name(function.vendor, function.device) if function else None,
    )
    if uplink.error is not None:
        state: State = "removed" if isinstance(uplink.error, DeviceGone) else "stopped"
        return msgspec.structs.replace(nic, state=state, error=str(uplink.error))
    link = _told(lambda: uplink.link)
    return msgspec.structs.replace(
        nic,
        link_status="up" if uplink.link_up else "down",
        speed=link.speed if link else None,
        duplex=link.duplex if link else None,
        mac=uplink.mac,
        mtu=uplink.mtu,
    )


def _details(host: VMkernel, uplink: Uplink) -> NicDetails:
    nic = msgspec.structs.asdict(_nic(host, uplink))
    if uplink.error is not None:
        return NicDetails(**nic)
    link, pause = _told(lambda: uplink.link), _told(lambda: uplink.pause)
    wake, info = _told(lambda: uplink.wake_on_lan), _told(lambda: uplink.driver_info)
    return NicDetails(
        **nic,
        auto_negotiation=link.autonegotiation if link else None,
        advertised_link_modes=sorted(link.advertised) if link else None,
        supported_link_modes=sorted(link.supported) if link else None,
        port=link.port if link else None,
        pause_auto_negotiation=pause.autonegotiation if pause else None,
        pause_rx=pause.rx if pause else None,
        pause_tx=pause.tx if pause else None,
        wake_on_lan=sorted(wake.enabled) if wake else None,
        supported_wake_on_lan=sorted(wake.supported) if wake else None,
        message_level=_told(lambda: sorted(uplink.message_level)),
        features=sorted(uplink.features),
        driver_version=info.version if info else None,
        firmware_version=info.firmware if info else None,
    )


Told = TypeVar("Told")


def _told(question: Callable[[], Told]) -> Told | None:
    """The driver's answer; None when it has none, or fails at it."""
    try:
        return question()
    except VmkError as error:
        log.info("%s", error)
        return None
