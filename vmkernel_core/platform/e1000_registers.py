"""The 82540EM's register map, after chapter 13 of Intel's SDM (13.4 main registers, 13.7 statistics).

SDM is the "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual". Below the table are
the fields that the model looks at, under the SDM's names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ALL = 0xFFFF_FFFF


class Access(Enum):
    """What software may do with a register."""

    RW = "read and write"
    RO = "read only"
    WO = "write only"
    RC = "read, which clears"
    #: The low half of a 64-bit counter: it keeps its value until the high half is read.
    RC_LOW = "read"
    #: The high half: reading it clears both.
    RC_HIGH = "read, which clears both halves"


@dataclass(frozen=True, slots=True)
class Register:
    """A register or an array of them: offset in bytes, writable bits, value after reset, number of words."""

    name: str
    offset: int
    access: Access
    writable: int = 0
    reset: int = 0
    count: int = 1

    @property
    def offsets(self) -> range:
        """The offset of each word."""
        return range(self.offset, self.offset + 4 * self.count, 4)


_RW, _RO, _WO, _RC = Access.RW, Access.RO, Access.WO, Access.RC

REGISTERS = (
    # General
    Register("CTRL", 0x00000, _RW, 0xFFFF_FFFF, 0x0000_0201),
    Register("CTRL_DUP", 0x00004, _RW, 0xFFFF_FFFF, 0x0000_0201),
    Register("STATUS", 0x00008, _RO),
    Register("EECD", 0x00010, _RW, 0x0000_0077),
    Register("EERD", 0x00014, _RW, 0x0000_FF01),
    Register("CTRL_EXT", 0x00018, _RW, 0x00C1_FFFF),
    Register("FLA", 0x0001C, _RW, 0x0000_007F),
    Register("MDIC", 0x00020, _RW, 0x2FFF_FFFF, 0x1000_0000),
    Register("FCAL", 0x00028, _RW, ALL),
    Register("FCAH", 0x0002C, _RW, 0x0000_FFFF),
    Register("FCT", 0x00030, _RW, 0x0000_FFFF),
    Register("VET", 0x00038, _RW, 0x0000_FFFF),
    Register("FCTTV", 0x00170, _RW, 0x0000_FFFF),
    Register("TXCW", 0x00178, _RW, 0xC000_FFFF),
    Register("RXCW", 0x00180, _RO),
    Register("LEDCTL", 0x00E00, _RW, 0xCFCF_CFCF, 0x0706_8302),
    Register("PBA", 0x01000, _RW, 0x0000_007F, 0x0010_0030),
    # Interrupt
    Register("ICR", 0x000C0, _RC, 0x0001_FFFF),
    Register("ITR", 0x000C4, _RW, 0x0000_FFFF),
    Register("ICS", 0x000C8, _WO, 0x0001_FFFF),
    Register("IMS", 0x000D0, _RW, 0x0001_FFFF),
    Register("IMC", 0x000D8, _WO, 0x0001_FFFF),
    # Receive
    Register("RCTL", 0x00100, _RW, 0x06DF_B3FE),
    Register("ERT", 0x02008, _RW, 0x0000_3FFF),
    Register("FCRTL", 0x02160, _RW, 0x8000_FFF8),
    Register("FCRTH", 0x02168, _RW, 0x8000_FFF8),
    Register("RDFH", 0x02410, _RW, 0x0000_1FFF),
    Register("RDFT", 0x02418, _RW, 0x0000_1FFF),
    Register("RDFHS", 0x02420, _RW, 0x0000_1FFF),
    Register("RDFTS", 0x02428, _RW, 0x0000_1FFF),
    Register("RDFPC", 0x02430, _RW, 0x0000_1FFF),
    Register("RDBAL", 0x02800, _RW, 0xFFFF_FFF0),
    Register("RDBAH", 0x02804, _RW, ALL),
    Register("RDLEN", 0x02808, _RW, 0x000F_FF80),
    Register("RDH", 0x02810, _RW, 0x0000_FFFF),
    Register("RDT", 0x02818, _RW, 0x0000_FFFF),
    Register("RDTR", 0x02820, _RW, 0x0000_FFFF),
    Register("RXDCTL", 0x02828, _RW, 0x013F_3F3F, 0x0001_0000),
    Register("RADV", 0x0282C, _RW, 0x0000_FFFF),
    Register("RSRPD", 0x02C00, _RW, 0x0000_0FFF),
    Register("RXCSUM", 0x05000, _RW, 0x0000_03FF),
    Register("MTA", 0x05200, _RW, ALL, count=128),
    Register("RA", 0x05400, _RW, ALL, count=32),
    Register("VFTA", 0x05600, _RW, ALL, count=128),
    # Transmit
    Register("TCTL", 0x00400, _RW, 0x037F_FFFA),
    Register("TIPG", 0x00410, _RW, 0x3FFF_FFFF),
    Register("TBT", 0x00448, _RW, 0x0000_FFFF),
    Register("AIT", 0x00458, _RW, 0x0000_FFFF),
    Register("TXDMAC", 0x03000, _RW, 0x0000_0001),
    Register("TDFH", 0x03410, _RW, 0x0000_1FFF),
    Register("TDFT", 0x03418, _RW, 0x0000_1FFF),
    Register("TDFHS", 0x03420, _RW, 0x0000_1FFF),
    Register("TDFTS", 0x03428, _RW, 0x0000_1FFF),
    Register("TDFPC", 0x03430, _RW, 0x0000_1FFF),
    Register("TDBAL", 0x03800, _RW, 0xFFFF_FFF0),
    Register("TDBAH", 0x03804, _RW, ALL),
    Register("TDLEN", 0x03808, _RW, 0x000F_FF80),
    Register("TDH", 0x03810, _RW, 0x0000_FFFF),
    Register("TDT", 0x03818, _RW, 0x0000_FFFF),
    Register("TIDV", 0x03820, _RW, 0x0000_FFFF),
    Register("TXDCTL", 0x03828, _RW, 0xFF3F_3F3F),
    Register("TADV", 0x0382C, _RW, 0x0000_FFFF),
    Register("TSPMT", 0x03830, _RW, ALL),
    # Wake-up and management
    Register("WUC", 0x05800, _RW, 0x0000_000F),
    Register("WUFC", 0x05808, _RW, 0x000F_00FF),
    Register("WUS", 0x05810, _RW, 0x000F_00FF),
    Register("MANC", 0x05820, _RW, 0x3FFF_FF00),
    Register("IPAV", 0x05838, _RW, 0x0001_000F),
    Register("IP4AT", 0x05840, _RW, ALL, count=8),
    Register("IP6AT", 0x05880, _RW, ALL, count=4),
    Register("WUPL", 0x05900, _RW, 0x0000_0FFF),
    Register("WUPM", 0x05A00, _RO, count=32),
    Register("FFLT", 0x05F00, _RW, 0x0000_07FF, count=8),
    Register("FFMT", 0x09000, _RW, 0x0000_000F, count=256),
    Register("FFVT", 0x09800, _RW, ALL, count=256),
    # Statistics
    Register("CRCERRS", 0x04000, _RC),
    Register("ALGNERRC", 0x04004, _RC),
    Register("SYMERRS", 0x04008, _RC),
    Register("RXERRC", 0x0400C, _RC),
    Register("MPC", 0x04010, _RC),
    Register("SCC", 0x04014, _RC),
    Register("ECOL", 0x04018, _RC),
    Register("MCC", 0x0401C, _RC),
    Register("LATECOL", 0x04020, _RC),
    Register("COLC", 0x04028, _RC),
    Register("DC", 0x04030, _RC),
    Register("TNCRS", 0x04034, _RC),
    Register("SEC", 0x04038, _RC),
    Register("CEXTERR", 0x0403C, _RC),
    Register("RLEC", 0x04040, _RC),
    Register("XONRXC", 0x04048, _RC),
    Register("XONTXC", 0x0404C, _RC),
    Register("XOFFRXC", 0x04050, _RC),
    Register("XOFFTXC", 0x04054, _RC),
    Register("FCRUC", 0x04058, _RC),
    Register("PRC64", 0x0405C, _RC),
    Register("PRC127", 0x04060, _RC),
    Register("PRC255", 0x04064, _RC),
    Register("PRC511", 0x04068, _RC),
    Register("PRC1023", 0x0406C, _RC),
    Register("PRC1522", 0x04070, _RC),
    Register("GPRC", 0x04074, _RC),
    Register("BPRC", 0x04078, _RC),
    Register("MPRC", 0x0407C, _RC),
    Register("GPTC", 0x04080, _RC),
    Register("GORCL", 0x04088, Access.RC_LOW),
    Register("GORCH", 0x0408C, Access.RC_HIGH),
    Register("GOTCL", 0x04090, Access.RC_LOW),
    Register("GOTCH", 0x04094, Access.RC_HIGH),
    Register("RNBC", 0x040A0, _RC),
    Register("RUC", 0x040A4, _RC),
    Register("RFC", 0x040A8, _RC),
    Register("ROC", 0x040AC, _RC),
    Register("RJC", 0x040B0, _RC),
    Register("MGTPRC", 0x040B4, _RC),
    Register("MGTPDC", 0x040B8, _RC),
    Register("MGTPTC", 0x040BC, _RC),
    Register("TORL", 0x040C0, Access.RC_LOW),
    Register("TORH", 0x040C4, Access.RC_HIGH),
    Register("TOTL", 0x040C8, Access.RC_LOW),
    Register("TOTH", 0x040CC, Access.RC_HIGH),
    Register("TPR", 0x040D0, _RC),
    Register("TPT", 0x040D4, _RC),
    Register("PTC64", 0x040D8, _RC),
    Register("PTC127", 0x040DC, _RC),
    Register("PTC255", 0x040E0, _RC),
    Register("PTC511", 0x040E4, _RC),
    Register("PTC1023", 0x040E8, _RC),
    Register("PTC1522", 0x040EC, _RC),
    Register("MPTC", 0x040F0, _RC),
    Register("BPTC", 0x040F4, _RC),
    Register("TSCTC", 0x040F8, _RC),
    Register("TSCTFC", 0x040FC, _RC),
)

BY_NAME = {register.name: register for register in REGISTERS}


def offsets(*names: str) -> tuple[int, ...]:
    """The offsets of registers by their names."""
    return tuple(BY_NAME[name].offset for name in names)


class Ctrl:
    """Device Control."""

    FD = 1 << 0
    SLU = 1 << 6
    SPEED = 3 << 8
    FRCSPD = 1 << 11
    FRCDPX = 1 << 12
    RST = 1 << 26
    RFCE = 1 << 27
    TFCE = 1 << 28
    VME = 1 << 30
    PHY_RST = 1 << 31


class Status:
    """Device Status."""

    FD = 1 << 0
    LU = 1 << 1
    TXOFF = 1 << 4
    SPEED_SHIFT = 6
    ASDV_SHIFT = 8


class Eecd:
    """EEPROM/Flash Control."""

    SK = 1 << 0
    CS = 1 << 1
    DI = 1 << 2
    DO = 1 << 3
    FWE = 3 << 4
    FWE_DISABLED = 1 << 4
    REQ = 1 << 6
    GNT = 1 << 7
    PRES = 1 << 8


class Eerd:
    """EEPROM Read."""

    START = 1 << 0
    DONE = 1 << 4
    ADDRESS_SHIFT = 8
    DATA_SHIFT = 16


class Mdic:
    """MDI Control."""

    DATA = 0xFFFF
    REGISTER_SHIFT = 16
    PHY_SHIFT = 21
    OP_WRITE = 1 << 26
    OP_READ = 1 << 27
    READY = 1 << 28
    INTERRUPT = 1 << 29
    ERROR = 1 << 30


class Icr:
    """Interrupt Cause Read (13.4.17)."""

    TXDW = 1 << 0
    TXQE = 1 << 1
    LSC = 1 << 2
    RXDMT0 = 1 << 4
    RXO = 1 << 6
    RXT0 = 1 << 7
    MDAC = 1 << 9


class Rctl:
    """Receive Control."""

    EN = 1 << 1
    UPE = 1 << 3
    MPE = 1 << 4
    LPE = 1 << 5
    LBM = 3 << 6
    RDMTS_SHIFT = 8
    MO_SHIFT = 12
    BAM = 1 << 15
    BSIZE = 3 << 16
    VFE = 1 << 18
    CFIEN = 1 << 19
    CFI = 1 << 20
    DPF = 1 << 22
    PMCF = 1 << 23
    BSEX = 1 << 25
    SECRC = 1 << 26


class Tctl:
    """Transmit Control."""

    EN = 1 << 1
    PSP = 1 << 3


class Rxcsum:
    """Receive Checksum Control."""

    IPOFL = 1 << 8
    TUOFL = 1 << 9


class RxStatus:
    """Status byte of a receive descriptor."""

    DD = 1 << 0
    EOP = 1 << 1
    IXSM = 1 << 2
    VP = 1 << 3
    TCPCS = 1 << 5
    IPCS = 1 << 6
    PIF = 1 << 7


class RxError:
    """Error byte of a receive descriptor."""

    TCPE = 1 << 5
    IPE = 1 << 6


class TxCommand:
    """Command byte of a transmit descriptor."""

    EOP = 1 << 0
    IFCS = 1 << 1
    #: Legacy descriptors: insert checksum. Data descriptors: TSE, segment.
    IC = 1 << 2
    TSE = 1 << 2
    RS = 1 << 3
    DEXT = 1 << 5
    VLE = 1 << 6
