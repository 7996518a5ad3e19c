"""ethtool, called from this side: a driver's ethtool_ops (Linux net/ethtool)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core.memory import load_bytes

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

SPEED_UNKNOWN = 0xFFFF_FFFF  # include/uapi/linux/ethtool.h
ETH_GSTRING_LEN = 32
ETH_SS_STATS = 1


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Speed in Mb/s (0: unknown), duplex and autonegotiation."""

    speed: int
    full_duplex: bool
    autoneg: bool


def get_link_ksettings(linux: Linux, netdev: Obj) -> LinkSettings | None:
    """What the driver says about the link; None when it has no such function or refuses."""
    ops = netdev.ethtool_ops
    if not ops or not ops.get_link_ksettings:
        return None
    settings = linux.new("ethtool_link_ksettings")
    try:
        if linux.call_int(ops.get_link_ksettings, netdev, settings):
            return None
        base = settings.base
        speed = 0 if base.speed == SPEED_UNKNOWN else base.speed
        return LinkSettings(speed, base.duplex == 1, base.autoneg == 1)
    finally:
        linux.free(settings)


def get_strings(linux: Linux, netdev: Obj) -> dict[str, int]:
    """The driver's own statistics (``ethtool -S``), by name."""
    ops = netdev.ethtool_ops
    if not ops or not ops.get_sset_count:
        return {}
    count = linux.call_int(ops.get_sset_count, netdev, ETH_SS_STATS)
    if count <= 0:
        return {}
    stats = linux.new("ethtool_stats")
    names, values = linux.allocate(count * ETH_GSTRING_LEN), linux.allocate(count * 8)
    try:
        stats.n_stats = count
        linux.call(ops.get_strings, netdev, ETH_SS_STATS, names)
        linux.call(ops.get_ethtool_stats, netdev, stats, values)
        texts = (load_bytes(names + n * ETH_GSTRING_LEN, ETH_GSTRING_LEN) for n in range(count))
        numbers = load_bytes(values, count * 8)
        return {
            text.split(b"\0")[0].decode("ascii", "replace"): int.from_bytes(
                numbers[n * 8 : n * 8 + 8], "little"
            )
            for n, text in enumerate(texts)
        }
    finally:
        for memory in (int(stats), names, values):
            linux.free(memory)
