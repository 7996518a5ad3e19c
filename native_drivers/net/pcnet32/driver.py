"""The driver: a PCnet from probe to remove, as a network device."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from typing import TYPE_CHECKING

from native_drivers.net.pcnet32.chips import IDS, chip_of
from native_drivers.net.pcnet32.controls import Controls
from native_drivers.net.pcnet32.descriptors import RMD, STYLE, TMD, InitializationBlock
from native_drivers.net.pcnet32.media import Media
from native_drivers.net.pcnet32.ports import Bcrs, Csrs, Ports
from native_drivers.net.pcnet32.registers import (
    BCR18,
    BCR20,
    BCR25,
    BCR26,
    CSR0,
    CSR1,
    CSR2,
    CSR3,
    CSR4,
    CSR5,
    CSR15,
    CSR80,
    CSR112,
    GONE,
    PADR,
)
from native_drivers.net.pcnet32.rings import Receiver, Transmitter
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.netdevice import (
    POLL_WEIGHT,
    alloc_etherdev,
    napi_complete,
    napi_disable,
    napi_enable,
    napi_schedule,
    netif_carrier_off,
    netif_carrier_on,
    netif_queue_stopped,
    netif_stop_queue,
    netif_txq_maybe_wake,
    netif_wake_queue,
)
from vmklinux.native.pci import pci_enable_device, pci_iomap, pci_set_master
from vmklinux.native.timer import msleep

if TYPE_CHECKING:
    from vmkernel_core.pci_function import PciFunction
    from vmklinux.native.ring import RxRing, TxRing
    from vmklinux.native.tx_batch import TxBatch

log = logging.getLogger(__name__)

_PORT_BAR = 0
#: Seconds until the chip has read its initialization block or come to rest: with a frame under way at 10 Mb/s.
_LIMIT = 0.2
#: Milliseconds that a ring full of frames may take, and between two looks.
_DRAIN, _PAUSE = 200, 1
#: Seconds that the queue may be stopped.
_TX_LIMIT = 5.0
#: Descriptors per ring, as they are at first.
_SLOTS = 128
#: Of the SRAM's 24 pages of 512 bytes the highest (numbers count from 0), and that at which reception begins.
_SRAM_SIZE, _SRAM_BOUNDARY = 0x17, 0x0C
_WHOLE_FRAME = 3


class Pcnet32(Controls):
    """A chip of the PCnet-PCI family."""

    name = "pcnet32"

    @classmethod
    def claims(cls, function: PciFunction) -> bool:
        """Whether it is one of the family."""
        return (function.vendor, function.device) in IDS

    # ---- life ----

    def probe(self) -> None:
        """Reset the chip, read its PROM, and make it known."""
        pdev = self.pdev
        pci_enable_device(pdev)
        self.ports = Ports(pci_iomap(pdev, _PORT_BAR), pdev.name)
        self.csr, self.bcr = Csrs(self.ports), Bcrs(self.ports)
        self.chip = chip_of(self.csr)
        self.csr.name = self.bcr.name = f"{self.chip.name} at {pdev.name}"
        pci_set_master(pdev)
        self.aprom = self.ports.read_aprom()
        self.media = Media(self.chip, self.csr, self.bcr)
        memory = dma_alloc_coherent(pdev, InitializationBlock.size)
        self.block, self._block_dma = InitializationBlock.at(memory.view), memory.dma
        self.rx_slots = self.tx_slots = _SLOTS
        self.tx_failed: Counter[str] = Counter()
        self.missed = self.babbles = self._missed_before = 0
        dev = alloc_etherdev(pdev, self)
        dev.dev_addr = self._mac()
        dev.watchdog_timeo = _TX_LIMIT
        self.register()

    def _mac(self) -> bytes:
        """After a reset the chip has it from the PROM, unless something is wrong there."""
        csr = b"".join(self.csr.read(PADR[i]).raw.to_bytes(2, "little") for i in range(PADR.count))
        return self.aprom[:6] if csr[0] & 1 or not any(csr) else csr

    # ---- open and closed ----

    def make_rings(self) -> None:
        """Of the sizes that are set."""
        self.transmitter, self.receiver = (
            Transmitter(self.pdev, self.csr, self.tx_slots, self.tx_failed),
            Receiver(self.pdev, self.csr, self.rx_slots),
        )
        self._bad_before = 0

    @property
    def rings(self) -> tuple[TxRing[TMD], RxRing[RMD]]:
        """Both."""
        return self.transmitter.ring, self.receiver.ring

    def start(self) -> None:
        """Reset it, and have it read the initialization block."""
        csr, bcr = self.csr, self.bcr
        self.ports.reset()
        self._missed_before = csr.read(CSR112).raw
        bcr.write(BCR20(SWSTYLE=STYLE))
        if self.chip.sram:
            bcr.write(BCR25(_SRAM_SIZE))
            bcr.write(BCR26(_SRAM_BOUNDARY))
        if self.chip.whole_frames:
            bcr.modify(BCR18, NOUFLO=1, BREADE=1, BWRITE=1)
            csr.modify(CSR80, XMTSP=_WHOLE_FRAME)
        self.media.program()
        self.transmitter.ring.reset()
        self.receiver.ring.reset()
        self._applied = mode, groups, address = self._settings()
        self.block.set(
            MODE=mode.raw,
            RLEN=self.receiver.ring.slots.bit_length() - 1,
            TLEN=self.transmitter.ring.slots.bit_length() - 1,
            PADR=address,
            LADRF=groups,
            RDRA=self.receiver.ring.table.dma(0),
            TDRA=self.transmitter.ring.table.dma(0),
        )
        csr.write(CSR1(self._block_dma & 0xFFFF))
        csr.write(CSR2(self._block_dma >> 16))
        csr.write(CSR4(JABM=1, TXSTRTM=1, RCVCCOM=1, MFCOM=1, APAD_XMT=1, DPOLL=1))
        csr.write(CSR0(INIT=1))
        csr.wait(CSR0, _LIMIT, IDON=1, STOP=0)

    def run(self) -> None:
        """It may interrupt, and sees what comes."""
        self._begin()
        self._look_at_link()

    def _begin(self) -> None:
        self._interrupts()
        self.csr.write(CSR0(STRT=1, IENA=1))
        self.csr.wait(CSR0, _LIMIT, STRT=1)

    def stop(self) -> None:
        """Count once more, and stop it."""
        self.collect()
        self.csr.write(CSR0(STOP=1))
        self.csr.wait(CSR0, _LIMIT, STOP=1)

    # ---- frames ----

    def _interrupts(self) -> None:
        """What interrupts: frames that were sent only when somebody waits for room."""
        waiting = netif_queue_stopped(self.netdev)
        self.csr.write(CSR3(IDONM=1, MERRM=1, MISSM=1, TINTM=not waiting, DXSUFLO=1))

    def interrupt(self) -> bool:
        """Something happened. Where a frame shows what it was, no register is asked: that takes longer than all else.

        A chip that has gone reads as all ones; one that is being started has nothing to say.
        """
        if self.receiver.ring.ready(1):
            self.csr.write(CSR0(RINT=1, TINT=1, IENA=1))
        else:
            status = self.csr.read(CSR0)
            if not (status.INTR and status.IENA) or status.raw == GONE:
                return False
            self.csr.write(CSR0(status.causes & ~CSR0.IDON.mask, IENA=1))
            self.babbles += status.BABL
        napi_schedule(self.netdev)
        return True

    def poll(self, budget: int) -> int:
        """Frames in; and room for frames out, if somebody waits for it."""
        frames = self.receiver.harvest(self.netdev, budget)
        self.transmitter.reclaim()
        if netif_txq_maybe_wake(self.netdev, self.transmitter.ring):
            self._interrupts()
        if frames < budget:
            napi_complete(self.netdev)
        return frames

    def ndo_start_xmit(self, batch: TxBatch) -> None:
        """Frames out."""
        self.transmitter.send(batch)
        if batch.taken < len(batch):
            netif_stop_queue(self.netdev)
            self._interrupts()

    # ---- the link ----

    def watch(self) -> None:
        """Counters, and the link: nothing interrupts for it."""
        self.collect()
        self._look_at_link()

    def _look_at_link(self) -> None:
        if not self.media.link_ok():
            netif_carrier_off(self.netdev)
        elif not self.netdev.carrier:
            self.media.settled()
            speed, duplex = self.media.speed()
            log.info("%s: %d Mb/s, %s duplex", self.netdev.name, speed, duplex)
            netif_carrier_on(self.netdev)

    # ---- settings ----

    def _mode(self) -> CSR15:
        return CSR15(PROM=self.netdev.promiscuous, PORTSEL=self.media.port)

    def _filter(self) -> bytes:
        """A bit for each group: the upper 6 bits of its address's CRC, not inverted, choose it."""
        bits = 0
        for group in self.netdev.mc_list:
            bits |= 1 << ((~zlib.crc32(group) & 0xFFFF_FFFF) >> 26)
        return bits.to_bytes(8, "little")

    def _settings(self) -> tuple[CSR15, bytes, bytes]:
        """What the chip takes only from the initialization block: mode, filter, address."""
        return self._mode(), self._filter(), self.netdev.dev_addr

    def _apply(self) -> None:
        """Have it read its settings anew, if they changed.

        It would also take them in suspension (CSR5), but then QEMU asks no more for a frame that came meanwhile.
        """
        if self._settings() != self._applied:
            self._rest()
            self.start()
            napi_enable(self.netdev)
            netif_wake_queue(self.netdev)
            self._begin()

    def _rest(self) -> None:
        """Nothing is under way and nothing waits in the rings: what was to be sent is, what came is handed up."""
        dev, csr = self.netdev, self.csr
        napi_disable(dev)
        netif_stop_queue(dev)
        for _ in range(0, _DRAIN, _PAUSE):
            self.transmitter.reclaim()
            if not self.transmitter.ring.pending:
                break
            msleep(_PAUSE)
        if self.chip.suspends:
            csr.modify(CSR5, SPND=1)
            csr.wait(CSR5, _LIMIT, SPND=1)
        while self.receiver.harvest(dev, POLL_WEIGHT):
            pass
        self.collect()

    def ndo_set_rx_mode(self) -> None:
        """Which frames come in."""
        self._apply()

    def ndo_set_mac_address(self, mac: bytes) -> None:
        """Another address."""
        if self.netdev.running and mac != self._applied[2]:
            self._apply()

    # ---- counters ----

    def collect(self) -> None:
        """Add up frames that were not sent, and those for which there was no descriptor: a count of 16 bits."""
        self.transmitter.reclaim()
        count = self.csr.read(CSR112).raw
        if count == GONE:  # or else it is the count, which the next look will see
            return
        missed = (count - self._missed_before) & 0xFFFF
        bad = self.receiver.ring.counts[1]
        stats = self.netdev.stats
        stats.tx_errors = self.babbles + self.tx_failed.total()
        stats.rx_errors += missed + bad - self._bad_before
        self.missed += missed
        self._missed_before, self._bad_before = count, bad

    def ndo_get_stats(self) -> None:
        """Errors."""
        if self.netdev.running:
            self.collect()
