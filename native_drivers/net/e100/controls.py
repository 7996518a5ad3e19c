"""What ethtool asks of an 8255x: link, rings, wake on LAN, tests, dumps, lights."""

from __future__ import annotations

import errno
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from native_drivers.net.e100 import blocks
from native_drivers.net.e100.configuration import Loopback
from native_drivers.net.e100.eeprom import EepromDamaged, read_eeprom
from native_drivers.net.e100.mdi import LEDS
from native_drivers.net.e100.registers import PORT, SCB_COMMAND, SCB_INTERRUPT, SCB_STATUS, SELF_TEST
from vmkernel_core.errors import NotSupported, TimedOut
from vmkernel_core.net.settings import RegisterDump, Rings, SelfTest, WakeOnLan
from vmklinux.native.ethernet import EthernetDriver
from vmklinux.native.mii import BMCR
from vmklinux.native.register import Register
from vmklinux.native.timer import msleep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from native_drivers.net.e100.chip import Chip
    from native_drivers.net.e100.command_unit import CommandUnit
    from native_drivers.net.e100.configuration import Wanted
    from native_drivers.net.e100.counters import HardwareCounters
    from native_drivers.net.e100.mdi import MdiRegisters
    from native_drivers.net.e100.receive_unit import ReceiveUnit
    from vmkernel_core.net.settings import LinkSettings
    from vmklinux.native.ethtool import PhysId
    from vmklinux.native.mii import Mii
    from vmklinux.native.register import Registers

#: Descriptors per ring: the least and the most.
_RX_RANGE, _TX_RANGE = (16, 256), (64, 256)
#: Milliseconds that the self test (manual, 6.3.3.1) and a frame on its way back may take, and between two looks.
_TEST_LIMIT, _LOOP_LIMIT, _PAUSE = 100, 20, 1
#: Values of LEDS.SWITCH: an 82557's lights have other wires.
_LIGHT_ON, _LIGHT_ON_82557, _LIGHT_OFF, _LIGHT_NORMAL = 5, 7, 4, 0
#: The PHY's registers that a dump has, the last one first as ethtool wants them.
_PHY_DUMP = range(28, -1, -1)
_LOOP_FRAME = b"\xff" * 1500


class Controls(EthernetDriver):
    """The half of the driver that ethtool speaks with."""

    chip: Chip
    csr: Registers
    phy: MdiRegisters
    mii: Mii
    eeprom: bytes
    counters: HardwareCounters
    commands: CommandUnit
    receiver: ReceiveUnit
    wanted: Wanted
    discarded: int
    in_chipset: bool
    can_wake: bool
    wakes: bool
    link_settings: LinkSettings | None
    self_test_block: tuple[blocks.SelfTest, int]  # and where the device sees it
    dump_buffer: tuple[memoryview, int]

    # ---- what the other half does ----

    @abstractmethod
    def reset(self) -> None:
        """It has forgotten all."""

    @abstractmethod
    def program(self) -> None:
        """It has its settings and can send."""

    @abstractmethod
    def configure(self) -> None:
        """Tell it what ``wanted`` has."""

    @abstractmethod
    def collect(self) -> Mapping[str, int]:
        """Add up what it counted."""

    # ---- the link ----

    def get_link_settings(self) -> LinkSettings:
        """As the PHY has them."""
        return self.mii.get_link_settings()

    def set_link_settings(self, settings: LinkSettings) -> None:
        """Change the PHY's; the device is told of a duplex that is forced."""
        self.mii.set_link_settings(settings)
        self.link_settings = settings
        full = not settings.autonegotiation and settings.duplex == "full"
        self.wanted = replace(self.wanted, full_duplex=full)
        if self.netdev.running:
            self.configure()

    def restore_link(self) -> None:
        """What was set is to hold again: QEMU's PHY forgets it in a reset of the device."""
        if self.link_settings and not self.mii.has(self.link_settings):
            self.mii.set_link_settings(self.link_settings)

    def nway_reset(self) -> None:
        """Negotiate anew."""
        self.mii.nway_reset()

    # ---- rings ----

    def get_ringparam(self) -> Rings:
        """Descriptors per ring."""
        return Rings(self.rx_slots, self.tx_slots, 0, 0, _RX_RANGE[1], _TX_RANGE[1], 0, 0)

    def set_ringparam(self, settings: Rings) -> None:
        """Other rings; too small ones are made as small as can be."""
        self.resize_rings(max(settings.rx, _RX_RANGE[0]), max(settings.tx, _TX_RANGE[0]))

    # ---- wake on LAN ----

    def get_wol(self) -> WakeOnLan:
        """Magic packets, from the 82558 on."""
        return WakeOnLan(
            frozenset({"magic"} if self.wakes else ()), frozenset({"magic"} if self.can_wake else ())
        )

    def set_wol(self, settings: WakeOnLan) -> None:
        """Let them wake the machine, or not."""
        if settings.enabled and not self.can_wake:
            raise NotSupported("the device cannot wake the machine")
        self.wakes = bool(settings.enabled)

    # ---- counters and contents ----

    def get_ethtool_stats(self) -> Mapping[str, int]:
        """The device's counters, by Linux's names where it has some, and frames that were bad or too long."""
        if self.netdev.running:
            self.collect()
        total = self.counters.total
        return {
            "rx_packets": total["rx_good_frames"],
            "tx_packets": total["tx_good_frames"],
            "collisions": total["tx_total_collisions"],
            "rx_crc_errors": total["rx_crc_errors"],
            "rx_frame_errors": total["rx_alignment_errors"],
            "rx_fifo_errors": total["rx_overrun_errors"],
            "rx_missed_errors": total["rx_resource_errors"],
            "rx_collisions": total["rx_cdt_errors"],
            "tx_aborted_errors": total["tx_max_collisions"],
            "tx_carrier_errors": total["tx_lost_crs"],
            "tx_fifo_errors": total["tx_underruns"],
            "tx_window_errors": total["tx_late_collisions"],
            "tx_deferred": total["tx_deferred"],
            "tx_single_collisions": total["tx_single_collisions"],
            "tx_multi_collisions": total["tx_multiple_collisions"],
            "tx_flow_control_pause": total["fc_xmt_pause"],
            "rx_flow_control_pause": total["fc_rcv_pause"],
            "rx_flow_control_unsupported": total["fc_rcv_unsupported"],
            "tx_tco_packets": total["xmt_tco_frames"],
            "rx_tco_packets": total["rcv_tco_frames"],
            "rx_short_frame_errors": total["rx_short_frames"],
            "rx_discarded": self.discarded,
        }

    def get_regs(self) -> RegisterDump:
        """SCB, PHY registers, and what the device dumps of itself while it runs, in the order of Linux's e100."""
        scb = (
            self.csr.read(SCB_STATUS).raw
            | self.csr.read(SCB_COMMAND).raw << 16
            | self.csr.read(SCB_INTERRUPT).raw << 24
        )
        phy = [self._phy_register(number) for number in _PHY_DUMP]
        view, dma = self.dump_buffer
        view[:] = bytes(len(view))
        if self.netdev.running:
            self.commands.wait(self.commands.act(blocks.Dump, blocks.DUMP, buffer=dma))
        words = b"".join(word.to_bytes(4, "little") for word in (scb, *phy))
        return RegisterDump(1 << 24 | self.netdev.pdev.function.revision, words + bytes(view))

    def _phy_register(self, number: int) -> int:
        return self.phy.load(type("PHY", (Register,), {"offset": number, "width": 16}))

    def get_eeprom_len(self) -> int:
        """128 or 512."""
        return len(self.eeprom)

    def get_eeprom(self, offset: int, length: int) -> bytes:
        """As it was read when the driver took the device."""
        return self.eeprom[offset : offset + length]

    # ---- tests and lights ----

    def self_test(self, offline: bool) -> SelfTest:
        """Link and EEPROM; offline also the device itself, and whether a frame comes back from MAC and PHY."""
        results = {"Link": 0 if self.mii.link_ok() else 1, "EEPROM": self._eeprom_test()}
        if offline:
            with self.paused():
                results["Self test"] = self.internal_test()
                results["MAC loopback"] = self._loopback_test(Loopback.MAC)
                # The PHY of a chipset's device cannot do it.
                phy = Loopback.MAC if self.in_chipset else Loopback.PHY
                results["PHY loopback"] = self._loopback_test(phy)
        return SelfTest(not any(results.values()), offline, results)

    def internal_test(self) -> int:
        """What the device finds wrong with itself: 0 for nothing, all ones when it did not even tell. It is to be reset
        before and needs that after it, but for interrupts, which it cannot give.
        """
        block, dma = self.self_test_block
        block.signature, block.result = 0, 0xFFFF_FFFF
        self.csr.write(PORT(FUNCTION=SELF_TEST, POINTER=dma >> 4))
        self.csr.read(SCB_STATUS)
        for _ in range(0, _TEST_LIMIT, _PAUSE):
            if block.signature:
                break
            msleep(_PAUSE)
        self.csr.write(SCB_INTERRUPT(M=1))
        return block.result

    def _eeprom_test(self) -> int:
        try:
            read_eeprom(self.csr)
        except EepromDamaged:
            return -errno.EIO
        return 0

    def _loopback_test(self, loopback: Loopback) -> int:
        """Whether a frame comes back; 0 or -EAGAIN, as Linux has it. The device is stopped, and is so again."""
        before, control = self.wanted, self.phy.read(BMCR)
        self.wanted = replace(before, loopback=loopback)
        try:
            self.reset()
            self.program()
            if loopback is Loopback.PHY:
                self.phy.write(BMCR(LOOPBACK=1))
            self.receiver.start()
            self.commands.send(_LOOP_FRAME)
            return 0 if self._came_back(_LOOP_FRAME) else -errno.EAGAIN
        except TimedOut:
            return -errno.ETIMEDOUT
        finally:
            self.wanted = before
            self.reset()
            if loopback is Loopback.PHY:
                self.phy.write(control.replace(ANRESTART=control.ANENABLE))

    def _came_back(self, frame: bytes) -> bool:
        for _ in range(0, _LOOP_LIMIT, _PAUSE):
            msleep(_PAUSE)
            if self.receiver.ring.ready(1):
                return bytes(self.receiver.ring.buffer(0)[: len(frame)]) == frame
        return False

    def set_phys_id(self, state: PhysId) -> int:
        """Blink twice a second."""
        on = _LIGHT_ON if self.chip.tco else _LIGHT_ON_82557
        light = {"on": on, "off": _LIGHT_OFF, "inactive": _LIGHT_NORMAL}
        if state in light:
            self.phy.write(LEDS(SWITCH=light[state]))
        return 2
