"""The driver: a chip from probe to remove, as a network device."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from native_drivers.net.e1000 import flow_control, parameters, wake_on_lan
from native_drivers.net.e1000.chips import CHIPS, VENDOR
from native_drivers.net.e1000.controller import OVERHEAD, STANDARD_FRAME, Controller, transmit_control
from native_drivers.net.e1000.controls import Controls
from native_drivers.net.e1000.eeprom import Eeprom
from native_drivers.net.e1000.filters import Filters
from native_drivers.net.e1000.link import Link
from native_drivers.net.e1000.moderation import Moderation
from native_drivers.net.e1000.phy import Phy
from native_drivers.net.e1000.receive import Receiver
from native_drivers.net.e1000.registers import CTRL, ICR, ICS, IMC, IMS, RCTL, STATUS
from native_drivers.net.e1000.statistics import Statistics
from native_drivers.net.e1000.transmit import Transmitter
from vmklinux.native.irq import PCI_IRQ_INTX, PCI_IRQ_MSI, pci_alloc_irq_vectors
from vmklinux.native.netdevice import (
    alloc_etherdev,
    napi_complete,
    napi_schedule,
    netif_carrier_off,
    netif_carrier_on,
)
from vmklinux.native.pci import pci_enable_device, pci_iomap, pci_set_master
from vmklinux.native.register import Registers

if TYPE_CHECKING:
    from native_drivers.net.e1000.descriptors import RDESC, TransmitDescriptor
    from vmkernel_core.net.settings import Wake
    from vmkernel_core.net.uplink import Feature
    from vmkernel_core.pci_function import PciFunction
    from vmklinux.native.ring import RxRing, TxRing
    from vmklinux.native.tx_batch import TxBatch

log = logging.getLogger(__name__)

_REGISTER_BAR = 0
#: What interrupts always: frames came in, receive buffers run short, the link changed.
_WANTED = IMS(RXT0=1, RXDMT0=1, RXSEQ=1, LSC=1)
_ALL = (1 << ICR.width) - 1
#: At every how many looks the counters are fetched, every ten minutes: long before one of 32 bits can reach its end, at
#: 1.5 million frames a second after 48 minutes.
_COUNT_EVERY = 300
_OFFLOADS: frozenset[Feature] = frozenset(
    {"scatter-gather", "tx-checksum", "rx-checksum", "tso", "vlan-insert", "vlan-strip"}
)


class E1000(Controls):
    """A chip of the 8254x family, or an 82574L, with a copper PHY."""

    name = "e1000"
    known_parameters = parameters.TABLE

    @classmethod
    def claims(cls, function: PciFunction) -> bool:
        """Whether it is one of ``CHIPS``."""
        return function.vendor == VENDOR and function.device in CHIPS

    # ---- life ----

    def probe(self) -> None:
        """Reset the chip, read its EEPROM, and make it known."""
        pdev = self.pdev
        self.chip = CHIPS[pdev.function.device]
        pci_enable_device(pdev)
        pci_set_master(pdev)
        if self.chip.express:
            pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI | PCI_IRQ_INTX)
        self.window = pci_iomap(pdev, _REGISTER_BAR)
        self.registers = Registers(self.window, f"{self.chip.name} at {pdev.name}")
        self.controller = Controller(self.registers, self.chip)
        self.controller.reset()
        self.eeprom = Eeprom(self.registers, self.chip)
        self.phy = Phy(self.registers, self.chip)
        self.phy.identify()
        self.link = Link(self.registers, self.phy)
        self.filters = Filters(self.registers)
        self.moderation = Moderation(self.registers, self.chip)
        self.statistics = Statistics(self.registers)
        self.tx_slots = parameters.slots(self.parameters, "TxDescriptors")
        self.rx_slots = parameters.slots(self.parameters, "RxDescriptors")
        if (interval := parameters.interval(self.parameters)) is not None:
            self.moderation.set(interval)
        self.wakes: frozenset[Wake] = frozenset()
        self.restarts = self.timeouts = 0
        self._receive_control = 0
        self._watches = 0
        pdev.devres.add(self.controller.let_go)
        self._make_known(self.eeprom.mac_address())

    def _make_known(self, mac: bytes) -> None:
        dev = alloc_etherdev(self.pdev, self)
        dev.dev_addr = mac
        dev.max_mtu = self.chip.most_mtu
        dev.hw_features = _OFFLOADS | (frozenset() if self.chip.early else {"tso6"})
        dev.features = dev.hw_features | {"vlan-filter"}
        self.filters.set_mac(mac)
        self.register()

    def suspend(self) -> None:
        """Stop, and let the chip wake the machine if somebody wants that."""
        super().suspend()
        wake_on_lan.arm(self.registers, self.chip, self.wakes)
        if self.wakes:  # what does not come in cannot wake
            self.filters.restore()
            self.registers.write(self._reception(all_multicast="multicast" in self.wakes))

    def resume(self) -> None:
        """Begin anew where it was."""
        wake_on_lan.disarm(self.registers)
        self.controller.reset()
        super().resume()

    # ---- open and closed ----

    def make_rings(self) -> None:
        """Of the sizes that are set."""
        dev, registers, least = self.netdev, self.registers, self.chip.least_frame
        self.transmitter, self.receiver = (
            Transmitter(dev, registers, self.statistics, self.tx_slots, least),
            Receiver(dev, registers, self.rx_slots),
        )

    @property
    def rings(self) -> tuple[TxRing[TransmitDescriptor], RxRing[RDESC]]:
        """Both."""
        return self.transmitter.ring, self.receiver.ring

    def ndo_stop(self) -> None:
        """Stop everything; the PHY is turned off unless it may have to wake the machine."""
        super().ndo_stop()
        if not self.window.gone and not self.wakes:
            self.link.stop()

    def start(self) -> None:
        """After a reset: everything but interrupts."""
        registers, dev = self.registers, self.netdev
        receive_bytes = self.controller.set_up(self._most_frame)
        flow_control.set_thresholds(registers, receive_bytes, self._most_frame)
        self.moderation.write()
        self.filters.restore()
        self._apply_features(dev.features)
        self.link.start()  # which may fail: the chip knows of no ring yet
        self.transmitter.start()
        self.receiver.prepare()
        registers.write(transmit_control())
        self._receive_control = 0
        self.ndo_set_rx_mode()
        self.receiver.give()

    def run(self) -> None:
        """It may interrupt."""
        self.registers.write(_WANTED)
        self.registers.write(ICS(LSC=1))  # to look at the link once

    def stop(self) -> None:
        """Count once more, and reset it."""
        self.statistics.update()
        self.controller.reset()

    def restart(self) -> None:
        """And count it."""
        self.restarts += self.netdev.running and self.netdev.present
        super().restart()

    @property
    def _most_frame(self) -> int:
        return max(self.netdev.mtu + OVERHEAD, STANDARD_FRAME)

    # ---- frames ----

    def interrupt(self) -> bool:
        """Something happened; reading ICR takes the interrupt back. A chip that has gone reads as all ones."""
        causes = self.window.read(ICR.offset, 4)
        if not causes or causes == _ALL:
            return False
        self.window.write(IMC.offset, 4, _ALL)  # until poll is done
        if causes & ICR.LSC.mask:
            self.work.schedule_work(self._look_at_link)
        napi_schedule(self.netdev)
        return True

    def poll(self, budget: int) -> int:
        """Frames in; and room for frames out, if somebody waits for it."""
        with self.window.corked():
            frames = self.receiver.harvest(budget)
            wanted = _WANTED.raw | self.transmitter.wake()
            if frames < budget and napi_complete(self.netdev):
                self.window.write(IMS.offset, 4, wanted)
        return frames

    def ndo_start_xmit(self, batch: TxBatch) -> None:
        """Frames out."""
        self.transmitter.send(batch)

    def ndo_tx_timeout(self) -> None:
        """And count it."""
        self.timeouts += 1
        super().ndo_tx_timeout()

    # ---- the link ----

    def watch(self) -> None:
        """The link, for the case that its interrupt was missed, and now and then the counters."""
        self._watches += 1
        status = self.registers.read(STATUS)
        if not self.window.gone and bool(status.LU) != self.netdev.carrier:
            self.work.schedule_work(self._look_at_link)
        if self._watches % _COUNT_EVERY == 0:
            self.statistics.update()

    def _look_at_link(self) -> None:
        """The link came, went, or came anew: tell of it. What could not be sent before it went never will be."""
        with self.netdev.rtnl.lock():
            if not (self.netdev.running and self.netdev.present):
                return
            if self.link.look().up:
                netif_carrier_on(self.netdev)
                return
            netif_carrier_off(self.netdev)
            if self.transmitter.pending and not self.window.gone:
                self.restart()

    # ---- settings ----

    def ndo_set_rx_mode(self) -> None:
        """Which frames come in. RCTL is written only when it changes: some chips stop receiving for a while then."""
        self.filters.set_multicast(self.netdev.mc_list)
        control = self._reception()
        if control.raw != self._receive_control:
            self._receive_control = control.raw
            self.registers.write(control)
        self.window.flush()  # it counts from now on

    def _reception(self, *, all_multicast: bool = False) -> RCTL:
        dev = self.netdev
        return RCTL(
            EN=1,
            BAM=1,
            SECRC=1,
            LPE=int(self._most_frame > STANDARD_FRAME),
            UPE=int(dev.promiscuous),
            MPE=int(dev.promiscuous or all_multicast),
            VFE=int(bool(dev.vlans) and not dev.promiscuous),  # at first every tag comes through
        )

    def ndo_set_mac_address(self, mac: bytes) -> None:
        """Another address."""
        self.filters.set_mac(mac)

    def ndo_change_mtu(self, _mtu: int) -> None:
        """Other sizes: packet buffer and thresholds are divided anew."""
        self.restart()

    def ndo_fix_features(self, features: frozenset[Feature]) -> frozenset[Feature]:
        """One bit switches stripping and inserting of tags (CTRL.VME)."""
        both: frozenset[Feature] = frozenset({"vlan-strip", "vlan-insert"})
        return features | both if "vlan-strip" in features else features - both

    def ndo_set_features(self, features: frozenset[Feature]) -> None:
        """What the chip does by itself."""
        if self.netdev.running:
            self._apply_features(features)

    def _apply_features(self, features: frozenset[Feature]) -> None:
        self.controller.receive_checksums("rx-checksum" in features)
        self.registers.modify(CTRL, VME=int("vlan-strip" in features))

    def ndo_vlan_rx_add_vid(self, vid: int) -> None:
        """A VLAN."""
        self._set_vlan(vid, True)

    def ndo_vlan_rx_kill_vid(self, vid: int) -> None:
        """One less."""
        self._set_vlan(vid, False)

    def _set_vlan(self, vid: int, through: bool) -> None:
        self.filters.set_vlan(vid, through)
        if self.netdev.running:
            self.ndo_set_rx_mode()

    def ndo_get_stats(self) -> None:
        """Errors and multicast frames, as the chip counts them."""
        self.statistics.update()
        stats = self.netdev.stats
        stats.rx_errors, stats.tx_errors = self.statistics.rx_errors, self.statistics.tx_errors
        stats.multicast = self.statistics.counters["MPRC"]
