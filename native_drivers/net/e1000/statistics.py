"""The chip's counters (SDM 13.7). They stop at their greatest value, and a read clears them: they are added up here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import STATISTICS, STATUS

if TYPE_CHECKING:
    from vmklinux.native.register import Registers

#: Offset of a counter of 32 bits: its name.
_COUNTERS = {
    0x4000: "CRCERRS", 0x4004: "ALGNERRC", 0x4008: "SYMERRS", 0x400C: "RXERRC", 0x4010: "MPC", 0x4014: "SCC",
    0x4018: "ECOL", 0x401C: "MCC", 0x4020: "LATECOL", 0x4028: "COLC", 0x4030: "DC", 0x4034: "TNCRS", 0x4038: "SEC",
    0x403C: "CEXTERR", 0x4040: "RLEC", 0x4048: "XONRXC", 0x404C: "XONTXC", 0x4050: "XOFFRXC", 0x4054: "XOFFTXC",
    0x4058: "FCRUC", 0x405C: "PRC64", 0x4060: "PRC127", 0x4064: "PRC255", 0x4068: "PRC511", 0x406C: "PRC1023",
    0x4070: "PRC1522", 0x4074: "GPRC", 0x4078: "BPRC", 0x407C: "MPRC", 0x4080: "GPTC", 0x40A0: "RNBC", 0x40A4: "RUC",
    0x40A8: "RFC", 0x40AC: "ROC", 0x40B0: "RJC", 0x40B4: "MGTPRC", 0x40B8: "MGTPDC", 0x40BC: "MGTPTC", 0x40D0: "TPR",
    0x40D4: "TPT", 0x40D8: "PTC64", 0x40DC: "PTC127", 0x40E0: "PTC255", 0x40E4: "PTC511", 0x40E8: "PTC1023",
    0x40EC: "PTC1522", 0x40F0: "MPTC", 0x40F4: "BPTC", 0x40F8: "TSCTC", 0x40FC: "TSCTFC",
}  # fmt: skip
#: Offset of the lower half of a counter of 64 bits; reading the upper half, which comes behind it, clears both.
_WIDE = {0x4088: "GORC", 0x4090: "GOTC", 0x40C0: "TOR", 0x40C8: "TOT"}

#: ethtool's names, as Linux's driver has them, of what the chip counts.
ETHTOOL_NAMES = {
    "rx_packets": "GPRC", "tx_packets": "GPTC", "rx_bytes": "GORC", "tx_bytes": "GOTC", "rx_broadcast": "BPRC",
    "tx_broadcast": "BPTC", "rx_multicast": "MPRC", "tx_multicast": "MPTC", "collisions": "COLC",
    "rx_length_errors": "RLEC", "rx_crc_errors": "CRCERRS", "rx_no_buffer_count": "RNBC", "rx_missed_errors": "MPC",
    "tx_aborted_errors": "ECOL", "tx_carrier_errors": "TNCRS", "tx_window_errors": "LATECOL", "tx_deferred_ok": "DC",
    "tx_single_coll_ok": "SCC", "tx_multi_coll_ok": "MCC", "rx_long_length_errors": "ROC",
    "rx_short_length_errors": "RUC", "rx_align_errors": "ALGNERRC", "rx_symbol_errors": "SYMERRS",
    "rx_data_errors": "RXERRC", "tx_tcp_seg_good": "TSCTC", "tx_tcp_seg_failed": "TSCTFC",
    "rx_flow_control_xon": "XONRXC", "rx_flow_control_xoff": "XOFFRXC", "tx_flow_control_xon": "XONTXC",
    "tx_flow_control_xoff": "XOFFTXC", "rx_jabber_errors": "RJC", "rx_fragments": "RFC",
    **{f"rx_{size}_bytes": f"PRC{size}" for size in (64, 127, 255, 511, 1023, 1522)},
    **{f"tx_{size}_bytes": f"PTC{size}" for size in (64, 127, 255, 511, 1023, 1522)},
}  # fmt: skip
_GONE = (1 << STATUS.width) - 1
#: What is wrong with frames that did not become any (Linux's rx_errors and tx_errors).
_RX_ERRORS = ("RXERRC", "CRCERRS", "ALGNERRC", "RUC", "ROC", "CEXTERR")
_TX_ERRORS = ("ECOL", "LATECOL")


class Statistics:
    """What the chip counted since the driver took it: ``counters`` by the SDM's names. ``dropped``: frames that the chip
    cannot send as they were to be sent.
    """

    def __init__(self, registers: Registers) -> None:
        """All zero; what the chip counted before is forgotten."""
        self._registers = registers
        self.counters: dict[str, int] = dict.fromkeys([*_COUNTERS.values(), *_WIDE.values()], 0)
        self.dropped = 0
        self.update()
        self.counters = dict.fromkeys(self.counters, 0)

    def update(self) -> None:
        """Add what the chip counted since the last time; nothing once it has gone, when everything reads as ones."""
        if self._registers.read(STATUS).raw == _GONE:
            return
        found = {name: self._load(offset) for offset, name in _COUNTERS.items()}
        for offset, name in _WIDE.items():
            found[name] = self._load(offset) | self._load(offset + 4) << 32
        for name, count in found.items():
            self.counters[name] += count

    def _load(self, offset: int) -> int:
        return self._registers.load(STATISTICS[(offset - STATISTICS.offset) // STATISTICS.stride])

    @property
    def rx_errors(self) -> int:
        """Frames that came in damaged."""
        return sum(self.counters[name] for name in _RX_ERRORS)

    @property
    def tx_errors(self) -> int:
        """Frames that were not sent."""
        return self.dropped + sum(self.counters[name] for name in _TX_ERRORS)

    def by_ethtool_names(self) -> dict[str, int]:
        """The counters as ``ethtool -S`` shows them."""
        return {name: self.counters[counter] for name, counter in ETHTOOL_NAMES.items()} | {
            "tx_dropped": self.dropped
        }
