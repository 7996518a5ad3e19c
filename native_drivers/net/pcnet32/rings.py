"""The rings of a PCnet: frames out and frames in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.pcnet32.descriptors import RMD, TMD
from native_drivers.net.pcnet32.registers import CSR0, GONE
from vmklinux.native.ring import RxLayout, RxRing, TxLayout, TxRing

if TYPE_CHECKING:
    from collections import Counter

    from vmklinux.native.netdevice import NetDevice
    from vmklinux.native.pci import PciDev
    from vmklinux.native.register import Registers
    from vmklinux.native.tx_batch import TxBatch

#: Bytes of a buffer: a frame with its VLAN tag and checksum, and some.
BUFFER = 1536
#: The checksum, which is received too.
_FCS = 4
_ONES = 0xF  # upper bits of a length, which are set

BLANK = TMD(ONES=_ONES)
TX = TxLayout(
    TMD,
    address=TMD.TBADR,
    length=TMD.BCNT,
    negated=True,
    first=TMD.STP,
    last=TMD.ENP,
    own=(TMD.OWN, 1),
    done=(TMD.OWN, 0),
    blank=BLANK,
)
RX = RxLayout(
    RMD,
    address=RMD.RBADR,
    capacity=RMD.BCNT,
    negated=True,
    length=RMD.MCNT,
    trailer=_FCS,
    own=(RMD.OWN, 1),
    done=(RMD.OWN, 0),
    # A frame has room in one buffer: what begins or ends elsewhere is too long.
    bad=((RMD.ERR, 1), (RMD.STP, 0), (RMD.ENP, 0)),
    blank=RMD(ONES=_ONES),
)

#: What ended a frame that was not sent, by the names of Linux's counters.
ERRORS = {
    "tx_aborted_errors": TMD.RTRY,
    "tx_carrier_errors": TMD.LCAR,
    "tx_window_errors": TMD.LCOL,
    "tx_fifo_errors": TMD.UFLO,
}


class Transmitter:
    """Frames out. ``errors``: where frames that were not sent are counted, by reason. Everything needs the baton."""

    def __init__(self, pdev: PciDev, csr: Registers, slots: int, errors: Counter[str]) -> None:
        """OutOfMachineMemory."""
        self.csr = csr
        self.ring = TxRing(pdev, TX, slots, BUFFER)
        self.errors = errors

    def send(self, batch: TxBatch) -> None:
        """As many of these as there is room for."""
        self.reclaim()
        if self.ring.post(batch):
            self.demand()

    def demand(self) -> None:
        """Have the chip look at the ring."""
        self.csr.write(CSR0(TDMD=1, IENA=1))

    def reclaim(self) -> None:
        """Take back what the chip has done with."""
        head, room = self.ring.head, self.ring.room
        self.ring.reclaim()
        done = range(head, head + self.ring.room - room)
        if done and any(self.ring.table.load(done, TMD.ERR)[0]):
            failed = self.ring.table.load(done, *ERRORS.values())
            self.errors.update({name: sum(column) for name, column in zip(ERRORS, failed, strict=True)})


class Receiver:
    """Frames in. Everything needs the baton."""

    def __init__(self, pdev: PciDev, csr: Registers, slots: int) -> None:
        """OutOfMachineMemory."""
        self.csr = csr
        self.ring = RxRing(pdev, RX, slots, BUFFER)

    def harvest(self, dev: NetDevice, budget: int) -> int:
        """Hand up what came in; how many frames. What comes in after the causes were acknowledged interrupts again.

        OWN does not tell by itself that a frame is there: QEMU's device clears it before it writes length and ENP. But
        what it began before it answers a read is done: so frames are counted, then the status is read, then they are
        taken. The first answer tells that the acknowledgement has arrived, too: what came before it is looked for once
        more.
        """
        taken = 0
        for _ in range(2):
            ready = self.ring.ready(budget - taken)
            if self.csr.read(CSR0).raw == GONE:
                return taken
            taken += self.ring.harvest(dev, ready)
            if not self.ring.ready(1):
                break
        return taken
