"""Descriptors of the 8254x (SDM chapter 3); the 82574L takes the same ones."""

from vmklinux.native.descriptor import Descriptor, octets, u8, u16, u32, u64

#: Kinds of extended descriptors (DTYP).
CONTEXT, DATA = 0, 1


class RDESC(Descriptor):
    """Receive descriptor (3.2.3)."""

    size = 16
    buffer, length, checksum = u64(0), u16(8), u16(10)
    # Status (3.2.3.1).
    DD, EOP, IXSM, VP = u8(12).bit(0), u8(12).bit(1), u8(12).bit(2), u8(12).bit(3)
    TCPCS, IPCS, PIF = u8(12).bit(5), u8(12).bit(6), u8(12).bit(7)
    # Errors (3.2.3.2): all but TCPE and IPE, wrong checksums, mean a damaged frame.
    CE, SE, SEQ, CXE = u8(13).bit(0), u8(13).bit(1), u8(13).bit(2), u8(13).bit(4)
    TCPE, IPE, RXE = u8(13).bit(5), u8(13).bit(6), u8(13).bit(7)
    special = u16(14)


class TransmitDescriptor(Descriptor):
    """Any of the three kinds below, which a ring mixes."""

    size = 16
    whole = octets(0, 16)


class TDESC(TransmitDescriptor):
    """Legacy transmit descriptor (3.3.3)."""

    buffer, length, CSO = u64(0), u16(8), u8(10)
    EOP, IFCS, IC, RS = u8(11).bit(0), u8(11).bit(1), u8(11).bit(2), u8(11).bit(3)
    DEXT, VLE, IDE = u8(11).bit(5), u8(11).bit(6), u8(11).bit(7)
    DD = u8(12).bit(0)
    CSS, special = u8(13), u16(14)


class TDATA(TransmitDescriptor):
    """TCP/IP data descriptor (3.3.7)."""

    buffer, DTALEN, DTYP = u64(0), u32(8).bits(0, 19), u32(8).bits(20, 23)
    EOP, IFCS, TSE, RS = u8(11).bit(0), u8(11).bit(1), u8(11).bit(2), u8(11).bit(3)
    DEXT, VLE, IDE = u8(11).bit(5), u8(11).bit(6), u8(11).bit(7)
    DD = u8(12).bit(0)
    IXSM, TXSM = u8(13).bit(0), u8(13).bit(1)
    special = u16(14)


class TCONTEXT(TransmitDescriptor):
    """TCP/IP context descriptor (3.3.6): where the checksums of the frames behind it lie, and how to cut them."""

    IPCSS, IPCSO, IPCSE = u8(0), u8(1), u16(2)
    TUCSS, TUCSO, TUCSE = u8(4), u8(5), u16(6)
    PAYLEN, DTYP = u32(8).bits(0, 19), u32(8).bits(20, 23)
    TCP, IP, TSE, RS = u8(11).bit(0), u8(11).bit(1), u8(11).bit(2), u8(11).bit(3)
    DEXT = u8(11).bit(5)
    DD = u8(12).bit(0)
    HDRLEN, MSS = u8(13), u16(14)
