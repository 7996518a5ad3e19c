"""Frames out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from native_drivers.net.e1000 import offload
from native_drivers.net.e1000.descriptors import TDESC
from native_drivers.net.e1000.registers import IMS, TDT
from native_drivers.net.e1000.rings import TX_LAYOUT, tell_tx
from vmklinux.native.netdevice import netif_queue_stopped, netif_txq_maybe_wake
from vmklinux.native.ring import TxRing

if TYPE_CHECKING:
    from native_drivers.net.e1000.statistics import Statistics
    from vmkernel_core.net.uplink import Frame
    from vmklinux.native.netdevice import NetDevice
    from vmklinux.native.register import Registers
    from vmklinux.native.tx_batch import TxBatch

#: The interrupt that is wanted while frames wait for room, and only then.
WHEN_FULL = IMS(TXDW=1)


class Transmitter:
    """The transmit ring of a chip that is open.

    Finished descriptors are looked for when there are frames to send; the chip interrupts for them only when the ring
    was full, so that there is none for most frames.
    """

    def __init__(
        self, dev: NetDevice, registers: Registers, statistics: Statistics, slots: int, least_frame: int
    ) -> None:
        """An empty ring. OutOfMachineMemory."""
        self._dev = dev
        self._registers = registers
        self.ring = TxRing(dev.pdev, replace(TX_LAYOUT, least=least_frame), slots)
        self._context = b""
        self._statistics = statistics

    def start(self) -> None:
        """The chip was reset: begin anew; what was not sent is lost."""
        self.ring.reset()
        self._context = b""
        tell_tx(self._registers, self.ring)

    @property
    def pending(self) -> bool:
        """Whether the chip still has frames."""
        self.ring.reclaim()
        return self.ring.pending

    def send(self, batch: TxBatch) -> None:
        """Take frames from the batch."""
        ring, window = self.ring, self._registers.window
        ring.reclaim()
        ring.post(batch)
        if batch.taken < len(batch):
            while (frame := batch.next()) and self._put(frame):
                batch.take()
                ring.post(batch)
            ring.publish()
            if batch.taken < len(batch):
                window.write(IMS.offset, 4, WHEN_FULL.raw)
        window.write(TDT.offset, 4, ring.tail)

    def _put(self, frame: Frame) -> bool:
        """A frame that asks for an offload; False when there is no room, or when it asks for none."""
        ring = self.ring
        if frame.checksum is None or ring.room < ring.slots_for(len(frame.data)) + 1:
            return False
        if not offload.is_possible(frame):
            return self._put_the_long_way(frame)
        if frame.gso_size:
            context, data = bytes(offload.segment_context(frame)), offload.segment_data(frame)
        else:
            context, data = bytes(offload.checksum_context(frame)), frame.data
        # A context counts until the next one; one that cuts counts payload, so it is good for one frame.
        if frame.gso_size or context != self._context:
            descriptor = ring.claim()
            assert descriptor is not None
            descriptor.whole = context
            self._context = b"" if frame.gso_size else context
        return ring.put(data, offload.data_descriptor(frame))

    def _put_the_long_way(self, frame: Frame) -> bool:
        """Offsets that no context can tell: the sum is computed here; what is to be cut is dropped."""
        if frame.gso_size:
            self._statistics.dropped += 1
            return True
        tag = {} if frame.vlan is None else {"VLE": 1, "special": frame.vlan}
        return self.ring.put(offload.summed(frame), TDESC(IFCS=1, RS=1, **tag))

    def wake(self) -> int:
        """Frames wait for room: let them have it once half the ring is free. The interrupts that are wanted."""
        if not netif_queue_stopped(self._dev):
            return 0
        self.ring.reclaim()
        return 0 if netif_txq_maybe_wake(self._dev, self.ring) else WHEN_FULL.raw
