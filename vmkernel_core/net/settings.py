"""What can be set at a network device and asked of it, besides frames: ethtool's subjects, as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Duplex: TypeAlias = Literal["half", "full", "unknown"]
Wake: TypeAlias = Literal["phy", "unicast", "multicast", "broadcast", "arp", "magic", "secure-on", "filter"]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How the link runs and may run; ``speed`` in Mb/s, 0 when unknown (no link).

    Modes have ethtool's names (``100baseT/Full``, ``Autoneg``, ``Pause``). ``advertised`` are those offered to the
    link partner, ``partner`` those that it offers. To force speed and duplex, set ``autonegotiation`` to False; with
    autonegotiation what is advertised counts. ``supported``, ``partner`` and ``port`` are read only.
    """

    speed: int
    duplex: Duplex
    autonegotiation: bool
    advertised: frozenset[str]
    supported: frozenset[str]
    partner: frozenset[str]
    port: str


@dataclass(frozen=True, slots=True)
class WakeOnLan:
    """What wakes the machine: ``enabled`` of those ``supported`` (read only).

    ``password`` goes with "secure-on": six bytes, or none.
    """

    enabled: frozenset[Wake]
    supported: frozenset[Wake]
    password: bytes = b""


@dataclass(frozen=True, slots=True)
class Rings:
    """Descriptors per ring; the maxima are read only, 0 where the device has no such ring."""

    rx: int
    tx: int
    rx_mini: int
    rx_jumbo: int
    rx_max: int
    tx_max: int
    rx_mini_max: int
    rx_jumbo_max: int


@dataclass(frozen=True, slots=True)
class Pause:
    """IEEE 802.3x flow control: heeded (rx), sent (tx), or left to autonegotiation."""

    autonegotiation: bool
    rx: bool
    tx: bool


@dataclass(frozen=True, slots=True)
class Coalescing:
    """When a device interrupts: after microseconds or frames; ``irq`` while an interrupt is being served.

    ``low`` and ``high`` hold below and above the packet rates (packets a second), if adaptive coalescing is on.
    """

    rx_usecs: int = 0
    rx_frames: int = 0
    rx_usecs_irq: int = 0
    rx_frames_irq: int = 0
    tx_usecs: int = 0
    tx_frames: int = 0
    tx_usecs_irq: int = 0
    tx_frames_irq: int = 0
    stats_block_usecs: int = 0
    adaptive_rx: bool = False
    adaptive_tx: bool = False
    rate_low: int = 0
    rx_usecs_low: int = 0
    rx_frames_low: int = 0
    tx_usecs_low: int = 0
    tx_frames_low: int = 0
    rate_high: int = 0
    rx_usecs_high: int = 0
    rx_frames_high: int = 0
    tx_usecs_high: int = 0
    tx_frames_high: int = 0
    sample_interval: int = 0


@dataclass(frozen=True, slots=True)
class Channels:
    """Queues with an interrupt of their own: for receiving, sending, other things, or both ways (combined).

    The maxima are read only.
    """

    rx: int
    tx: int
    other: int
    combined: int
    rx_max: int
    tx_max: int
    other_max: int
    combined_max: int


Setting: TypeAlias = LinkSettings | WakeOnLan | Rings | Pause | Coalescing | Channels


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """The driver's name and version (the kernel's release, when it has none), the device's firmware and place."""

    driver: str
    version: str
    firmware: str
    bus: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The device tested by its driver: the driver's verdict, and a number per test: 0 when it found nothing,
    else what the driver put there (a register, or a negative Linux error code).

    ``offline``: whether tests that interrupt traffic were run as well.
    """

    passed: bool
    offline: bool
    results: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RegisterDump:
    """The device's registers, in the driver's own order; ``version`` tells the order."""

    version: int
    data: bytes
