"""What a PCnet and its driver share in memory: the initialization block and descriptors, in software style 2 (32 bits).

After the Am79C970A datasheet (publication 19436), "Initialization Block", "Receive Descriptors", "Transmit Descriptors".
"""

from __future__ import annotations

from vmklinux.native.descriptor import Descriptor, octets, u8, u16, u32

#: BCR20.SWSTYLE.
STYLE = 2


class InitializationBlock(Descriptor):
    """Read once, at CSR0.INIT. The rings have 2 to the power of RLEN and TLEN descriptors."""

    size = 28
    MODE, RLEN, TLEN = u16(0), u8(2).bits(4, 7), u8(3).bits(4, 7)
    PADR, LADRF = octets(4, 6), octets(12, 8)
    RDRA, TDRA = u32(20), u32(24)


class RMD(Descriptor):
    """Receive descriptor. BCNT is the buffer's length, as a two's complement; MCNT the frame's with its checksum."""

    size = 16
    RBADR = u32(0)
    BCNT, ONES = u32(4).bits(0, 11), u32(4).bits(12, 15)
    BAM, LAFM, PAM, BPE, ENP, STP = (u32(4).bit(number) for number in range(20, 26))
    BUFF, CRC, OFLO, FRAM, ERR, OWN = (u32(4).bit(number) for number in range(26, 32))
    MCNT, RPC, RCC = u32(8).bits(0, 11), u32(8).bits(16, 23), u32(8).bits(24, 31)


class TMD(Descriptor):
    """Transmit descriptor. BCNT is the length, as a two's complement."""

    size = 16
    TBADR = u32(0)
    BCNT, ONES = u32(4).bits(0, 11), u32(4).bits(12, 15)
    BPE, ENP, STP, DEF, ONE = (u32(4).bit(number) for number in range(23, 28))
    MORE_LTINT, ADD_FCS, ERR, OWN = (u32(4).bit(number) for number in range(28, 32))
    TRC = u32(8).bits(0, 3)
    RTRY, LCAR, LCOL, EXDEF, UFLO, BUFF = (u32(8).bit(number) for number in range(26, 32))
