"""The receive unit (RU): it fills a ring of receive frame descriptors (manual, 6.4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e100.blocks import NOWHERE, RFD
from native_drivers.net.e100.registers import GONE, RU_NO_RESOURCES, RUC_LOAD_BASE, RUC_START, SCB_STATUS
from vmklinux.native.ring import RxLayout, RxRing

if TYPE_CHECKING:
    from native_drivers.net.e100.scb import Scb
    from vmklinux.native.netdevice import NetDevice
    from vmklinux.native.pci import PciDev

#: Bytes of a slot's buffer: a frame with its VLAN tag, without checksum, and two by which a longer one is known.
BUFFER = 1520

LAYOUT = RxLayout(
    RFD,
    length=RFD.count,
    capacity=RFD.room,
    link=RFD.link,
    done=(RFD.C, 1),
    stop=RFD.EL,
    blank=RFD(reserved=NOWHERE),
    bad=((RFD.OK, 0), (RFD.count, BUFFER)),  # QEMU's device cuts a frame off and says that all is well
)


class ReceiveUnit:
    """Frames that come in. Everything needs the baton."""

    def __init__(self, pdev: PciDev, scb: Scb, slots: int) -> None:
        """Its ring. OutOfMachineMemory."""
        self.scb = scb
        self.ring = RxRing(pdev, LAYOUT, slots, BUFFER)

    def start(self) -> None:
        """The device was reset: addresses are from 0 on, and it receives into an empty ring."""
        self.ring.reset()
        self.scb.command(RUC=RUC_LOAD_BASE, pointer=0)
        self._run()

    def _run(self) -> None:
        self.scb.command(RUC=RUC_START, pointer=self.ring.table.dma(self.ring.head))

    def harvest(self, dev: NetDevice, budget: int) -> int:
        """Hand up what came in; how many frames. What comes in after the causes were acknowledged interrupts again.

        The C bit does not tell by itself that a frame is there: QEMU's device sets it before it writes the rest. But
        what it began before it answers a read is done: so frames are counted, then the status is read, then they are
        taken. The first answer tells that the acknowledgement has arrived, too: what came before it is looked for once
        more.
        """
        taken = 0
        for _ in range(2):
            ready = self.ring.ready(budget - taken)
            status = self.scb.csr.read(SCB_STATUS)
            if status.raw == GONE:
                return taken
            taken += self.ring.harvest(dev, ready)
            if not self.ring.ready(1):
                break
        if status.RUS == RU_NO_RESOURCES:
            taken += self.ring.harvest(dev, budget - taken)  # nothing is on its way any more
            if taken < budget:
                self._run()
        return taken
