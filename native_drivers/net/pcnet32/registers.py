"""The Am79C97x's registers: ports, and the control/status (CSR) and bus configuration registers (BCR) behind them.

After AMD's "Am79C970A PCnet-PCI II" datasheet (publication 19436), "User Accessible Registers", and for what came later
"Am79C973/Am79C975 PCnet-FAST III" (publication 21510). ``offset`` of a CSR and BCR is its number.
"""

from __future__ import annotations

from vmklinux.native.register import Register, bit, bits

#: What a chip that has gone reads as.
GONE = 0xFFFF

# ---- control and status ----


class CSR0(Register):
    """Controller status and control: writing ones clears what interrupts."""

    offset, width = 0, 16
    INIT = bit(0)  # read the initialization block
    STRT = bit(1)
    STOP = bit(2)
    TDMD = bit(3)  # look at the transmit ring now
    TXON = bit(4)
    RXON = bit(5)
    IENA = bit(6)  # interrupts, if not written as 0
    INTR = bit(7)  # it interrupts, or would
    IDON = bit(8)  # initialization is done
    TINT = bit(9)  # a descriptor was sent
    RINT = bit(10)  # a frame came
    MERR = bit(11)  # the bus was not granted in time
    MISS = bit(12)  # a frame came and there was no descriptor
    CERR = bit(13)  # no heartbeat; in QEMU: no link
    BABL = bit(14)  # a frame that was sent is too long
    ERR = bit(15)

    @property
    def causes(self) -> int:
        """The bits that tell why it interrupts, to be written for an acknowledgement."""
        return self.raw & 0x7F00


class CSR1(Register):
    """Address of the initialization block, lower half."""

    offset, width = 1, 16


class CSR2(Register):
    """Its upper half."""

    offset, width = 2, 16


class CSR3(Register):
    """Interrupt masks and deferral."""

    offset, width = 3, 16
    DXSUFLO = bit(6)  # go on after an underflow
    IDONM = bit(8)
    TINTM = bit(9)
    RINTM = bit(10)
    MERRM = bit(11)
    MISSM = bit(12)
    BABLM = bit(14)


class CSR4(Register):
    """Test and features control."""

    offset, width = 4, 16
    JABM = bit(0)
    TXSTRTM = bit(2)
    RCVCCOM = bit(4)
    MFCOM = bit(8)
    ASTRP_RCV = bit(10)  # strip padding and checksum of short frames
    APAD_XMT = bit(11)  # pad short frames
    DPOLL = bit(12)  # look at the transmit ring only when told


class CSR5(Register):
    """Extended control and interrupt 1 (from the Am79C970A on)."""

    offset, width = 5, 16
    SPND = bit(0)  # suspend; 1 when it has come to rest


class LADRF(Register):
    """Logical address filter: a bit for each hash of a group's address."""

    offset, width, count, stride = 8, 16, 4, 1


class PADR(Register):
    """Physical address, two bytes each."""

    offset, width, count, stride = 12, 16, 3, 1


class CSR15(Register):
    """Mode."""

    offset, width = 15, 16
    DRX = bit(0)
    DTX = bit(1)
    LOOP = bit(2)
    INTL = bit(6)  # loopback inside
    PORTSEL = bits(7, 8)  # 0: AUI, 1: 10BASE-T, 3: MII; not with BCR2.ASEL
    PROM = bit(15)  # promiscuous


class CSR80(Register):
    """FIFO thresholds."""

    offset, width = 80, 16
    XMTSP = bits(10, 11)  # 3: transmission begins when the whole frame is there


class CSR88(Register):
    """Chip id, lower half."""

    offset, width = 88, 16
    MANFID = bits(0, 11)  # with its lowest bit, AMD
    PARTID_LOW = bits(12, 15)


class CSR89(Register):
    """Chip id, upper half."""

    offset, width = 89, 16
    PARTID_HIGH = bits(0, 11)
    VERSION = bits(12, 15)


class CSR112(Register):
    """Missed frame count."""

    offset, width = 112, 16


# ---- bus configuration ----


class BCR2(Register):
    """Miscellaneous configuration."""

    offset, width = 2, 16
    ASEL = bit(1)  # choose the port automatically
    LEDPE = bit(12)  # the lights can be set


class LED(Register):
    """What a light shows; the first, BCR4, is the link's unless it was told otherwise."""

    offset, width, count, stride = 4, 16, 4, 1
    LNKSTE = bit(6)  # the link
    LEDPOL = bit(14)  # polarity
    LEDOUT = bit(15)  # on, whatever the polarity


class BCR9(Register):
    """Full duplex control."""

    offset, width = 9, 16
    FDEN = bit(0)
    AUIFD = bit(1)


class BCR18(Register):
    """Bus and burst control."""

    offset, width = 18, 16
    BWRITE = bit(5)
    BREADE = bit(6)
    DWIO = bit(7)  # 32-bit ports
    NOUFLO = bit(11)  # transmission begins when the whole frame is there


class BCR20(Register):
    """Software style."""

    offset, width = 20, 16
    SWSTYLE = bits(0, 7)


class BCR25(Register):
    """SRAM size, in 512 bytes (Am79C973, Am79C975)."""

    offset, width = 25, 16


class BCR26(Register):
    """Where in it reception begins."""

    offset, width = 26, 16


class BCR32(Register):
    """MII control and status (from the Am79C971 on)."""

    offset, width = 32, 16
    MIIILP = bit(1)  # loopback inside
    XPHYSP = bit(3)  # 100 Mb/s
    XPHYFD = bit(4)
    XPHYANE = bit(5)  # negotiate
    DANAS = bit(7)  # leave the PHY alone


class BCR33(Register):
    """MII address."""

    offset, width = 33, 16
    REGAD = bits(0, 4)
    PHYAD = bits(5, 9)


class BCR34(Register):
    """MII data."""

    offset, width = 34, 16
