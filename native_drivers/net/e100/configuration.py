"""What the configure action tells the device (manual, 6.4.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from native_drivers.net.e100.chip import Chip


class Loopback(IntEnum):
    """Where frames turn back (byte 10)."""

    NONE = 0
    MAC = 1
    PHY = 3


#: Bytes of the configuration: up to multicast_all, and with those of the 82551.
_LENGTH, _EXTENDED_LENGTH = 22, 32

#: What every chip is told. The names are Configure's; those of reserved bits have the values that the manual demands.
_ALWAYS = {
    "rx_fifo_limit": 8,
    "direct_dma": 1,
    "ci_interrupt": 1,  # the end of the list interrupts, a suspension does not
    "standard_tcb": 1,
    "standard_counters": 1,
    "underrun_retry": 3,
    "mii": 1,
    "reserved_10": 6,
    "no_source_insertion": 1,
    "preamble": 2,  # 7 bytes
    "interframe_spacing": 6,  # 96 bit times
    "arp_ip_high": 0xF2,
    "reserved_15_3": 1,
    "reserved_15_6": 1,
    "fc_delay": 0x4000,
    "padding": 1,
    "fc_priority_threshold": 7,  # off
    "reserved_18_7": 1,
    "full_duplex_pin": 1,  # duplex is as the PHY tells
    "reserved_20": 0x1F,
    "fc_priority_byte": 1,
    "reserved_21": 5,
}


@dataclass(frozen=True)
class Wanted:
    """What of it changes: filters, collisions, the PHY, and whether magic packets wake the machine."""

    promiscuous: bool = False
    all_multicast: bool = False
    full_duplex: bool = False
    interframe_spacing: int = 0
    loopback: Loopback = Loopback.NONE


def configuration(chip: Chip, wanted: Wanted) -> dict[str, int]:
    """The fields of Configure for this chip."""
    everything = wanted.promiscuous or wanted.loopback is not Loopback.NONE
    return _ALWAYS | {
        "byte_count": _EXTENDED_LENGTH if chip.extended else _LENGTH,
        "adaptive_ifs": wanted.interframe_spacing,
        "mwi_enable": chip.masks,
        "tno_or_tco": chip.tco,
        "standard_counters": chip.tco or not chip.masks,
        "discard_short_frames": not everything,
        "save_bad_frames": everything,
        "loopback": wanted.loopback,
        "promiscuous": everything,
        "long_receive": chip.masks,
        "fc_disable": chip.masks,
        "magic_disable": 1,
        "force_full_duplex": wanted.full_duplex,
        "multicast_all": wanted.all_multicast,
        "gamla_mode": chip.extended,
    }
