"""ethtool's settings: Linux's structs (uapi/linux/ethtool.h), and what vmkernel_core calls their members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from vmkernel_core.errors import UsageError
from vmkernel_core.memory import store_bytes
from vmkernel_core.net.settings import (
    Channels,
    Coalescing,
    Duplex,
    LinkSettings,
    Pause,
    Rings,
    Wake,
    WakeOnLan,
)
from vmklinux.btf import EnumType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vmkernel_core.net.settings import Setting
    from vmklinux.btf import Btf
    from vmklinux.kobject import Obj

SPEED_UNKNOWN = 0xFFFF_FFFF
DUPLEX: dict[int, Duplex] = {0: "half", 1: "full", 0xFF: "unknown"}
PORT = {0: "TP", 1: "AUI", 2: "MII", 3: "FIBRE", 4: "BNC", 5: "DA", 0xEF: "none", 0xFF: "other"}
#: WAKE_* by bit.
WAKE: tuple[Wake, ...] = get_args(Wake)
#: NETIF_MSG_* by bit.
MESSAGES = (
    "drv", "probe", "link", "timer", "ifdown", "ifup", "rx_err", "tx_err", "tx_queued", "intr", "tx_done",
    "rx_status", "pktdata", "hw", "wol",
)  # fmt: skip
_MODE, _BIT = "ETHTOOL_LINK_MODE_", "_BIT"


def names(bits: int, table: Iterable[str]) -> frozenset[Any]:
    """The names of the bits that are set, by a table of names; bits beyond it have none."""
    return frozenset(name for place, name in enumerate(table) if bits >> place & 1)


def bits(wanted: Iterable[str], table: tuple[str, ...]) -> int:
    """The bits of those names; UsageError for one that is not in the table."""
    wanted = frozenset(wanted)
    if strange := wanted.difference(table):
        raise UsageError(f"there is no {', '.join(sorted(strange))}", remedy=f"known are {', '.join(table)}")
    return sum(1 << place for place, name in enumerate(table) if name in wanted)


def words(setting: Setting) -> str:
    """``wake on lan`` of a WakeOnLan."""
    name = type(setting).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def link_modes(types: Btf) -> tuple[str, ...]:
    """ethtool's name of each link mode, by bit: ``100baseT/Full`` from ETHTOOL_LINK_MODE_100baseT_Full_BIT."""
    kind = types.named("ethtool_link_mode_bit_indices")
    assert isinstance(kind, EnumType)
    found = {
        value: name.removeprefix(_MODE).removesuffix(_BIT)
        for name, value in kind.enumerators.items()
        if name.startswith(_MODE)
    }
    return tuple(
        name.replace("_Half", "/Half").replace("_Full", "/Full") for _, name in sorted(found.items())
    )


def read_link(types: Btf, settings: Obj) -> LinkSettings:
    """Of a struct ethtool_link_ksettings."""
    base, table = settings.base, link_modes(types)

    def modes(kind: str) -> frozenset[str]:
        return names(int.from_bytes(getattr(settings.link_modes, kind).raw(), "little"), table)

    return LinkSettings(
        0 if base.speed == SPEED_UNKNOWN else base.speed,
        DUPLEX.get(base.duplex, "unknown"),
        base.autoneg == 1,
        modes("advertising"),
        modes("supported"),
        modes("lp_advertising"),
        PORT.get(base.port, "other"),
    )


def write_link(types: Btf, settings: Obj, value: LinkSettings) -> None:
    """Into a struct ethtool_link_ksettings, as it was read."""
    base, modes = settings.base, settings.link_modes.advertising
    base.speed = value.speed or SPEED_UNKNOWN
    base.duplex = next(number for number, name in DUPLEX.items() if name == value.duplex)
    base.autoneg = value.autonegotiation
    advertised = bits(value.advertised, link_modes(types))
    store_bytes(modes.address, advertised.to_bytes(len(modes.raw()), "little"))


def read_wake(types: Btf, wol: Obj) -> WakeOnLan:
    """Of a struct ethtool_wolinfo."""
    enabled = names(wol.wolopts, WAKE)
    return WakeOnLan(enabled, names(wol.supported, WAKE), wol.sopass.raw() if "secure-on" in enabled else b"")


def write_wake(types: Btf, wol: Obj, value: WakeOnLan) -> None:
    """Into a struct ethtool_wolinfo, as it was read."""
    if missing := value.enabled - names(wol.supported, WAKE):
        raise UsageError(f"the device cannot wake on {', '.join(sorted(missing))}")
    wol.wolopts = bits(value.enabled, WAKE)
    if "secure-on" in value.enabled:
        if len(value.password) != len(wol.sopass):
            raise UsageError(f"a wake-on-LAN password has {len(wol.sopass)} bytes, not {len(value.password)}")
        store_bytes(wol.sopass.address, value.password)


@dataclass(frozen=True)
class Form:
    """A setting's struct, and the functions of ethtool_ops that take it (``get_`` and ``set_`` with that name).

    ``extension`` is the struct that they take as third argument, "" for none.
    """

    struct: str
    operation: str
    read: Callable[[Btf, Obj], Any]
    write: Callable[[Btf, Obj, Any], None]
    extension: str = ""


#: Of a member's name, that of the one which bounds it: read only, and 0 where the device has it not.
_MAX = "_max"


def _plain(kind: type, struct: str, operation: str, members: Mapping[str, str], extension: str = "") -> Form:
    """A form whose members are numbers and flags, in the order of the dataclass's."""
    flags = {name for name, type_ in kind.__annotations__.items() if type_ == "bool"}

    def read(types: Btf, obj: Obj) -> Any:
        values = {name: getattr(obj, field) for name, field in members.items()}
        return kind(**{name: bool(value) if name in flags else value for name, value in values.items()})

    def write(types: Btf, obj: Obj, value: Any) -> None:
        for name, field in members.items():
            if name.endswith(_MAX):
                continue
            number, bound = getattr(value, name), members.get(name + _MAX)
            highest = getattr(obj, bound) if bound else 0xFFFF_FFFF
            if not 0 <= number <= highest:
                raise UsageError(f"{number} is out of range for {name}", remedy=f"use 0 to {highest}")
            setattr(obj, field, number)

    return Form(struct, operation, read, write, extension)


_COALESCE = {
    "rx_usecs": "rx_coalesce_usecs",
    "rx_frames": "rx_max_coalesced_frames",
    "rx_usecs_irq": "rx_coalesce_usecs_irq",
    "rx_frames_irq": "rx_max_coalesced_frames_irq",
    "tx_usecs": "tx_coalesce_usecs",
    "tx_frames": "tx_max_coalesced_frames",
    "tx_usecs_irq": "tx_coalesce_usecs_irq",
    "tx_frames_irq": "tx_max_coalesced_frames_irq",
    "stats_block_usecs": "stats_block_coalesce_usecs",
    "adaptive_rx": "use_adaptive_rx_coalesce",
    "adaptive_tx": "use_adaptive_tx_coalesce",
    "rate_low": "pkt_rate_low",
    "rx_usecs_low": "rx_coalesce_usecs_low",
    "rx_frames_low": "rx_max_coalesced_frames_low",
    "tx_usecs_low": "tx_coalesce_usecs_low",
    "tx_frames_low": "tx_max_coalesced_frames_low",
    "rate_high": "pkt_rate_high",
    "rx_usecs_high": "rx_coalesce_usecs_high",
    "rx_frames_high": "rx_max_coalesced_frames_high",
    "tx_usecs_high": "tx_coalesce_usecs_high",
    "tx_frames_high": "tx_max_coalesced_frames_high",
    "sample_interval": "rate_sample_interval",
}
#: Coalescing's members by bit of ethtool_ops.supported_coalesce_params (ETHTOOL_COALESCE_*).
COALESCING = tuple(_COALESCE)

FORMS: dict[type, Form] = {
    LinkSettings: Form("ethtool_link_ksettings", "link_ksettings", read_link, write_link),
    WakeOnLan: Form("ethtool_wolinfo", "wol", read_wake, write_wake),
    Rings: _plain(
        Rings,
        "ethtool_ringparam",
        "ringparam",
        {
            "rx": "rx_pending", "tx": "tx_pending", "rx_mini": "rx_mini_pending", "rx_jumbo": "rx_jumbo_pending",
            "rx_max": "rx_max_pending", "tx_max": "tx_max_pending", "rx_mini_max": "rx_mini_max_pending",
            "rx_jumbo_max": "rx_jumbo_max_pending",
        },
        "kernel_ethtool_ringparam",
    ),
    Pause: _plain(
        Pause,
        "ethtool_pauseparam",
        "pauseparam",
        {"autonegotiation": "autoneg", "rx": "rx_pause", "tx": "tx_pause"},
    ),
    Coalescing: _plain(Coalescing, "ethtool_coalesce", "coalesce", _COALESCE, "kernel_ethtool_coalesce"),
    Channels: _plain(
        Channels,
        "ethtool_channels",
        "channels",
        {
            "rx": "rx_count", "tx": "tx_count", "other": "other_count", "combined": "combined_count",
            "rx_max": "max_rx", "tx_max": "max_tx", "other_max": "max_other", "combined_max": "max_combined",
        },
    ),
}  # fmt: skip
