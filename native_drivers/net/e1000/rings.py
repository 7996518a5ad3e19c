"""The two rings: what their descriptors' fields mean to the code that walks them, and where the chip is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.descriptors import RDESC, TDESC, TransmitDescriptor
from native_drivers.net.e1000.registers import (
    RDBAH,
    RDBAL,
    RDH,
    RDLEN,
    RDT,
    TDBAH,
    TDBAL,
    TDH,
    TDLEN,
    TDT,
)
from vmklinux.native.ring import RxLayout, RxRing, TxLayout, TxRing

if TYPE_CHECKING:
    from vmklinux.native.register import Registers

#: Descriptors in a ring: the least that holds two frames of 64 KiB, what it begins with, and the most; RDLEN and TDLEN
#: count bytes in multiples of 128 (SDM 13.4.27, 13.4.38).
LEAST, USUAL, MOST, MULTIPLE = 80, 256, 4096, 8

#: Frames to send, in legacy descriptors; every descriptor reports when it is done. A ring whose head and tail are equal
#: is empty, so one slot stays free (SDM 3.4).
TX_LAYOUT = TxLayout(
    TransmitDescriptor,
    address=TDESC.buffer,
    length=TDESC.length,
    last=TDESC.EOP,
    done=(TDESC.DD, 1),
    tagged=TDESC.VLE,
    tag=TDESC.special,
    blank=TDESC(IFCS=1, RS=1),
    spare=1,
)
#: Buffers for frames, chained by the chip when one is longer (SDM 3.2.2).
RX_LAYOUT = RxLayout(
    RDESC,
    address=RDESC.buffer,
    length=RDESC.length,
    last=RDESC.EOP,
    done=(RDESC.DD, 1),
    tagged=RDESC.VP,
    tag=RDESC.special,
    bad=((RDESC.CE, 1), (RDESC.SE, 1), (RDESC.SEQ, 1), (RDESC.CXE, 1), (RDESC.RXE, 1)),
    good=((RDESC.IXSM, 0), (RDESC.TCPCS, 1), (RDESC.TCPE, 0)),
    spare=1,
)


def tell_tx(registers: Registers, ring: TxRing[TransmitDescriptor]) -> None:
    """The chip shall send from this ring, which is empty."""
    base = ring.table.dma(0)
    registers.write(TDBAL(base & 0xFFFF_FFFF))
    registers.write(TDBAH(base >> 32))
    registers.write(TDLEN(ring.slots * TransmitDescriptor.size))
    registers.write(TDH())
    registers.write(TDT())


def tell_rx(registers: Registers, ring: RxRing[RDESC]) -> None:
    """The chip shall receive into this ring, as soon as RDT is written."""
    base = ring.table.dma(0)
    registers.write(RDBAL(base & 0xFFFF_FFFF))
    registers.write(RDBAH(base >> 32))
    registers.write(RDLEN(ring.slots * RDESC.size))
    registers.write(RDH())
    registers.write(RDT())
