"""The driver: an 8255x from probe to remove, as a network device."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from native_drivers.net.e100.blocks import (
    CONFIGURE,
    IA_SETUP,
    MULTICAST_SETUP,
    RFD,
    Configure,
    Counters,
    Dump,
    IaSetup,
    MulticastSetup,
    SelfTest,
    TxCB,
)
from native_drivers.net.e100.chip import IDS, VENDOR, chip_of, in_chipset
from native_drivers.net.e100.command_unit import CommandUnit, CommandUnitBusy
from native_drivers.net.e100.configuration import Wanted, configuration
from native_drivers.net.e100.controls import Controls
from native_drivers.net.e100.counters import HardwareCounters
from native_drivers.net.e100.eeprom import ID, ID_WAKE, read_eeprom
from native_drivers.net.e100.mdi import NCONFIG, find_phy
from native_drivers.net.e100.receive_unit import ReceiveUnit
from native_drivers.net.e100.registers import (
    ALL_CAUSES,
    GONE,
    PORT,
    SCB_INTERRUPT,
    SCB_STATUS,
    SELECTIVE_RESET,
    SOFTWARE_RESET,
)
from native_drivers.net.e100.scb import Scb
from vmkernel_core.errors import TimedOut, VmkError
from vmklinux.module.param import TYPES, Parameter
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.mii import Mii
from vmklinux.native.netdevice import (
    alloc_etherdev,
    napi_complete,
    napi_schedule,
    netif_carrier_off,
    netif_carrier_on,
    netif_queue_stopped,
    netif_stop_queue,
    netif_txq_maybe_wake,
)
from vmklinux.native.pci import (
    pci_enable_device,
    pci_enable_wake,
    pci_iomap,
    pci_pme_capable,
    pci_set_master,
)
from vmklinux.native.register import Registers
from vmklinux.native.timer import udelay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmkernel_core.net.settings import LinkSettings
    from vmkernel_core.pci_function import PciFunction
    from vmklinux.native.ring import RxRing, TxRing
    from vmklinux.native.tx_batch import TxBatch

log = logging.getLogger(__name__)

_BOOL = TYPES["param_ops_bool"]
_MEMORY_BAR, _PORT_BAR = 0, 1
#: Microseconds for a reset (manual, 6.3.3).
_RESET = 10
#: Seconds that the queue may be stopped.
_TX_LIMIT = 2.0
#: Descriptors per ring, as they are at first.
_RX_SLOTS, _TX_SLOTS = 256, 128
#: Steps of the adaptive interframe spacing, and its most; frames in 2 s, by Mb/s, that make a link a busy one.
_SPACING, _MOST_SPACING, _BUSY = 5, 60, {10: 100, 100: 1000}

#: Where in the memory shared with the device what lies, and how much it is.
_SELF_TEST, _COUNTERS, _DUMP = 0, 64, 256
_SHARED = _DUMP + Dump.LENGTH


class SelfTestFailed(VmkError):
    """The device found itself broken, or does not reach memory."""


class E100(Controls):
    """A chip of the 8255x family with a PHY that has MII registers."""

    name = "e100"
    known_parameters = (
        Parameter(
            "e100", "eeprom_bad_csum_allow", _BOOL, "take a device whose EEPROM is damaged (default n)"
        ),
        Parameter("e100", "use_io", _BOOL, "reach the registers by ports (default n)"),
    )

    @classmethod
    def claims(cls, function: PciFunction) -> bool:
        """Whether it is one of the family."""
        return function.vendor == VENDOR and function.device in IDS

    # ---- life ----

    def probe(self) -> None:
        """Reset and test the device, read its EEPROM, and make it known."""
        pdev = self.pdev
        self.chip = chip_of(pdev.function)
        self.in_chipset = in_chipset(pdev.function)
        pci_enable_device(pdev)
        self.window = pci_iomap(pdev, _PORT_BAR if self.parameters.get("use_io") == "1" else _MEMORY_BAR)
        self.csr = Registers(self.window, f"{self.chip.name} at {pdev.name}")
        self.reset()
        pci_set_master(pdev)
        self.eeprom = read_eeprom(self.csr, damaged=self.parameters.get("eeprom_bad_csum_allow") == "1")
        shared = dma_alloc_coherent(pdev, _SHARED)
        self.self_test_block = SelfTest.at(shared.view, _SELF_TEST), shared.dma + _SELF_TEST
        self.dump_buffer = shared.view[_DUMP:_SHARED], shared.dma + _DUMP
        if failure := self.internal_test():
            raise SelfTestFailed(f"the self test failed: {failure:#010x}", where=self.csr.name)
        self.phy = find_phy(self.csr)
        self.mii = Mii(self.phy)
        if self.chip.crossing:
            self.phy.write(NCONFIG(AUTO_SWITCH=1))
        self.scb = Scb(self.csr)
        self.counters = HardwareCounters(
            self.scb, shared.view[_COUNTERS : _COUNTERS + Counters.size], shared.dma + _COUNTERS
        )
        self.rx_slots, self.tx_slots = _RX_SLOTS, _TX_SLOTS
        self.discarded = 0
        self.wanted = Wanted()
        self.link_settings: LinkSettings | None = None
        self.can_wake = self.chip.masks and pci_pme_capable(pdev, "D3hot")
        self.wakes = self.can_wake and bool(self.eeprom[ID] & ID_WAKE)
        dev = alloc_etherdev(pdev, self)
        dev.dev_addr = self.eeprom[:6]
        dev.watchdog_timeo = _TX_LIMIT
        self.register()

    def suspend(self) -> None:
        """Stop. After a reset the device wakes the machine at a magic packet, if it may do so at all."""
        super().suspend()
        pci_enable_wake(self.pdev, self.wakes)

    def resume(self) -> None:
        """Begin anew."""
        pci_enable_wake(self.pdev, False)
        super().resume()

    # ---- open and closed ----

    def make_rings(self) -> None:
        """Of the sizes that are set."""
        self.commands, self.receiver = (
            CommandUnit(self.pdev, self.scb, self.tx_slots),
            ReceiveUnit(self.pdev, self.scb, self.rx_slots),
        )
        self._discarded_before = 0

    @property
    def rings(self) -> tuple[TxRing[TxCB], RxRing[RFD]]:
        """Both."""
        return self.commands.ring, self.receiver.ring

    def reset(self) -> None:
        """The device does nothing and has forgotten all, but for the PHY; it cannot interrupt."""
        for function in (SELECTIVE_RESET, SOFTWARE_RESET):
            self.csr.write(PORT(FUNCTION=function))
            self.csr.read(SCB_STATUS)
            udelay(_RESET)
        self.csr.write(SCB_INTERRUPT(M=1))

    def program(self) -> None:
        """After a reset: the device has its settings and can send."""
        self.commands.start()
        self.configure()
        self.commands.act(IaSetup, IA_SETUP, address=self.netdev.dev_addr)
        self.counters.start()

    def start(self) -> None:
        """Reset it, and have both units begin."""
        self.reset()
        self.restore_link()
        self.program()
        self.set_filters()
        self.receiver.start()

    def run(self) -> None:
        """It may interrupt."""
        self._interrupts()
        self._look_at_link()

    def stop(self) -> None:
        """Count once more, and reset it."""
        try:
            self.collect()
        except TimedOut as error:
            log.debug("%s: the last counts are lost: %s", self.netdev.name, error)
        self.reset()

    def _hangs(self, error: Exception) -> None:
        """It does not do what it was told: reset it, soon."""
        log.warning("%s hangs and is reset: %s", self.netdev.name, error)
        self.schedule_restart()

    # ---- frames ----

    def _interrupts(self) -> None:
        """Have the device interrupt: for frames that it sent only when somebody waits for room, if it can tell."""
        waiting = netif_queue_stopped(self.netdev)
        masks = self.chip.masks
        self.csr.write(SCB_INTERRUPT(CX=masks and not waiting, CNA=masks))

    def interrupt(self) -> bool:
        """Something happened. Where a frame shows what it was, no register is asked: that takes longer than all else.

        A device that has gone reads as all ones.
        """
        causes = ALL_CAUSES
        if not self.receiver.ring.ready(1):
            status = self.csr.read(SCB_STATUS)
            causes = status.causes
            if not causes or status.raw == GONE:
                return False
        self.csr.write(SCB_STATUS(causes))
        napi_schedule(self.netdev)
        return True

    def poll(self, budget: int) -> int:
        """Frames in; and room for frames out, if somebody waits for it."""
        try:
            frames = self.receiver.harvest(self.netdev, budget)
        except TimedOut as error:
            self._hangs(error)
            frames = 0
        self.commands.ring.reclaim()
        if netif_txq_maybe_wake(self.netdev, self.commands.ring):
            self._interrupts()
        if frames < budget:
            napi_complete(self.netdev)
        return frames

    def ndo_start_xmit(self, batch: TxBatch) -> None:
        """Frames out."""
        try:
            self.commands.transmit(batch)
        except TimedOut as error:
            self._hangs(error)
        if batch.taken < len(batch):
            netif_stop_queue(self.netdev)
            self._interrupts()

    # ---- the link, and what is to be done now and then ----

    def watch(self) -> None:
        """Counters, the link, for which nothing interrupts, and remedies."""
        try:
            counted = self.collect()
            self._look_at_link()
            self._adapt_spacing(counted)
            if not self.chip.masks:
                self.set_filters()  # an 82557 may stop receiving until it gets such a command
        except (CommandUnitBusy, TimedOut) as error:
            self._hangs(error)

    def _look_at_link(self) -> None:
        if not self.mii.link_ok():
            netif_carrier_off(self.netdev)
        elif not self.netdev.carrier:
            speed, duplex = self.mii.speed()
            log.info("%s: %d Mb/s, %s duplex", self.netdev.name, speed, duplex)
            netif_carrier_on(self.netdev)

    def _adapt_spacing(self, counted: Mapping[str, int]) -> None:
        """On a half duplex link with many collisions leave more room between frames."""
        speed, duplex = self.mii.speed()
        frames, collisions = counted["tx_good_frames"], counted["tx_total_collisions"]
        now = self.wanted.interframe_spacing
        if duplex != "half":
            spacing = 0
        elif frames > _BUSY[speed] and collisions > frames // 32:
            spacing = min(now + _SPACING, _MOST_SPACING)
        elif frames < _BUSY[speed]:
            spacing = max(now - _SPACING, 0)
        else:
            spacing = now
        if spacing != now:
            self.wanted = replace(self.wanted, interframe_spacing=spacing)
            self.configure()

    # ---- settings ----

    def configure(self) -> None:
        """Tell the device all that ``wanted`` has."""
        self.commands.act(Configure, CONFIGURE, **configuration(self.chip, self.wanted))

    def set_filters(self) -> MulticastSetup:
        """Which frames come in, by the groups."""
        groups = self.netdev.mc_list[: MulticastSetup.MOST]
        return self.commands.act(
            MulticastSetup, MULTICAST_SETUP, count=6 * len(groups), addresses=b"".join(groups)
        )

    def ndo_set_rx_mode(self) -> None:
        """Which frames come in."""
        dev = self.netdev
        everything = len(dev.mc_list) > MulticastSetup.MOST
        wanted = replace(self.wanted, promiscuous=dev.promiscuous, all_multicast=everything)
        if wanted != self.wanted:
            self.wanted = wanted
            self.configure()
        self.commands.wait(self.set_filters())

    def ndo_set_mac_address(self, mac: bytes) -> None:
        """Another address."""
        if self.netdev.running:
            self.commands.wait(self.commands.act(IaSetup, IA_SETUP, address=mac))

    def collect(self) -> Mapping[str, int]:
        """Add up what the device counted; what was new. It counts only while it runs."""
        counted = self.counters.collect()
        discarded = self.receiver.ring.counts[1]
        new, self._discarded_before = discarded - self._discarded_before, discarded
        self.discarded += new
        stats = self.netdev.stats
        if not self.wanted.promiscuous:  # else it hands over bad frames, too, and counts them by itself
            stats.rx_errors += new
        stats.tx_errors += counted["tx_max_collisions"] + counted["tx_lost_crs"]
        stats.rx_errors += sum(
            counted[name]
            for name in ("rx_crc_errors", "rx_alignment_errors", "rx_short_frames", "rx_cdt_errors")
        )
        return counted

    def ndo_get_stats(self) -> None:
        """Errors, as the device counts them."""
        if self.netdev.running:
            self.collect()
