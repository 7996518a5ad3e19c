"""The command unit (CU): it goes along a ring of command blocks, frames to send and actions (manual, 6.4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from native_drivers.net.e100.blocks import NOWHERE, TRANSMIT, CommandBlock, TxCB
from native_drivers.net.e100.registers import CUC_LOAD_BASE, CUC_START
from vmkernel_core.errors import TimedOut, VmkError
from vmklinux.native.ring import TxLayout, TxRing
from vmklinux.native.timer import udelay

if TYPE_CHECKING:
    from native_drivers.net.e100.scb import Scb
    from vmklinux.native.pci import PciDev
    from vmklinux.native.tx_batch import TxBatch

#: Bytes of a slot's buffer: a frame with its VLAN tag, without checksum, and what makes a slot of 1536.
BUFFER = 1520
#: QEMU's command unit goes no further than so many blocks for one command; the hardware's goes on to the end and does
#: not mind further ones.
STRETCH = 16
#: Microseconds that an action may take, all that is before it in the ring included, and between two looks at it.
ACTION_LIMIT, ACTION_PAUSE = 200_000, 20

#: In 8 bytes, how much of a frame is in the device before transmission begins: all of it, so that there is no underrun.
_WHOLE_FRAME = 0xE0

BLANK = TxCB(CMD=TRANSMIT, I=1, tbd_array=NOWHERE, EOF=1, threshold=_WHOLE_FRAME)
LAYOUT = TxLayout(
    TxCB,
    length=TxCB.byte_count,
    link=TxCB.link,
    done=(TxCB.C, 1),
    stop=TxCB.S,
    blank=BLANK,
    spare=1,
)

C = TypeVar("C", bound=CommandBlock)


class CommandUnitBusy(VmkError):
    """The command unit has no room for a command: what it has takes too long, or it hangs."""


class CommandUnit:
    """Frames and actions, done in their order. Everything needs the baton."""

    def __init__(self, pdev: PciDev, scb: Scb, slots: int) -> None:
        """Its ring; ``start`` comes before all else. OutOfMachineMemory."""
        self.scb = scb
        self.ring = TxRing(pdev, LAYOUT, slots, BUFFER)
        self._started = False

    def start(self) -> None:
        """The device was reset: what was in the ring is lost, addresses are from 0 on."""
        self.ring.reset()
        self._started = False
        self.scb.command(CUC=CUC_LOAD_BASE, pointer=0)

    def transmit(self, batch: TxBatch) -> None:
        """Hand over frames, as many as there is room for."""
        self._settle()
        self._go(self.ring.post(batch))

    def send(self, frame: bytes) -> None:
        """Hand over one frame, to an empty ring."""
        self._settle()
        self.ring.put(frame, BLANK)
        self.ring.publish()
        self._go(1)

    def act(self, block: type[C], action: int, **fields: int | bytes) -> C:
        """Hand over an action, once there is room for it. CommandUnitBusy."""
        self._settle()
        slot = self.ring.tail
        for _ in range(0, ACTION_LIMIT, ACTION_PAUSE):
            if claimed := self.ring.claim(alone=True):
                break
            udelay(ACTION_PAUSE)
            self.ring.reclaim()
        else:
            raise CommandUnitBusy("the command unit has no room", where=self.scb.csr.name)
        claimed.command = 0
        view, at = self.ring.table.memory.view, slot * self.ring.table.stride
        view[at + CommandBlock.size : at + block.size] = bytes(block.size - CommandBlock.size)
        made = block.at(view, at)
        made.set(CMD=action, **fields)
        self.ring.publish()
        self._go(1)
        return made

    def wait(self, block: CommandBlock) -> None:
        """Wait, busily, until an action is done. TimedOut."""
        for _ in range(0, ACTION_LIMIT, ACTION_PAUSE):
            if block.C:
                return
            udelay(ACTION_PAUSE)
        raise TimedOut(f"{block} was not done within {ACTION_LIMIT} us", where=self.scb.csr.name)

    def _settle(self) -> None:
        """See to it that the device knows where it was to stop, before that is moved on.

        A resume that it sees later would have it go on behind the end: the hardware looks at the last block's S bit
        again, QEMU's device does not.
        """
        self.ring.reclaim()
        if self.ring.pending:
            self.scb.accepted()

    def _go(self, blocks: int) -> None:
        """Have the device go on, now that there are so many more blocks."""
        for _ in range(0, blocks, STRETCH):
            if self._started:
                self.scb.resume()
            else:
                self._started = True
                self.scb.command(CUC=CUC_START, pointer=self.ring.table.dma(0))
