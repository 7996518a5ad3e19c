"""The 8254x's registers, after chapter 13 of Intel's SDM; the 82574L has them at the same places.

SDM is the "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual" (317453), whose sections
are in parentheses; 82574 is the "82574L Gigabit Ethernet Controller Datasheet", whose chapter 10 has the registers.
Only fields that the driver uses or shows are named.
"""

from vmklinux.native.register import Register, bit, bits

# ---- General (13.4) ----


class CTRL(Register):
    """Device Control (13.4.1)."""

    offset, width = 0x0000, 32
    FD = bit(0)  # full duplex
    GIO_MASTER_DISABLE = bit(2)  # 82574: no new DMA
    LRST = bit(3)  # link reset, fibre only
    ASDE = bit(5)  # the MAC detects the speed by itself
    SLU = bit(6)  # set link up
    ILOS = bit(7)  # invert loss of signal
    SPEED = bits(8, 9)  # 0: 10, 1: 100, 2: 1000 Mb/s
    FRCSPD = bit(11)  # force speed
    FRCDPX = bit(12)  # force duplex
    SWDPIN0 = bit(18)  # 82544: the light's pin, low for on
    ADVD3WUC = bit(20)  # wake from D3cold is advertised
    EN_PHY_PWR_MGMT = bit(21)
    SWDPIO0 = bit(22)  # 82544: that pin is an output
    RST = bit(26)
    RFCE = bit(27)  # heed PAUSE
    TFCE = bit(28)  # send PAUSE
    VME = bit(30)  # VLAN tags are stripped and inserted
    PHY_RST = bit(31)


class STATUS(Register):
    """Device Status (13.4.2)."""

    offset, width = 0x0008, 32
    FD = bit(0)
    LU = bit(1)  # link up
    FUNCTION = bits(2, 3)
    TXOFF = bit(4)
    TBIMODE = bit(5)
    SPEED = bits(6, 7)
    ASDV = bits(8, 9)
    PCI66 = bit(11)
    BUS64 = bit(12)
    PCIX_MODE = bit(13)
    PCIXSPD = bits(14, 15)
    GIO_MASTER_ENABLE = bit(19)  # 82574: DMA is still under way


class EECD(Register):
    """EEPROM/Flash Control and Data (13.4.3)."""

    offset, width = 0x0010, 32
    SK = bit(0)
    CS = bit(1)
    DI = bit(2)
    DO = bit(3)
    FWE = bits(4, 5)
    REQ = bit(6)
    GNT = bit(7)
    PRES = bit(8)
    SIZE = bit(9)  # 1: 256 words; 82574: the automatic read after reset is done


class EERD(Register):
    """EEPROM Read (13.4.4)."""

    offset, width = 0x0014, 32
    START = bit(0)
    DONE = bit(4)
    ADDR = bits(8, 15)
    DATA = bits(16, 31)


class EERD_82574(Register):
    """EEPROM Read of the 82574 (82574 10.2.2.4)."""

    offset, width = 0x0014, 32
    START = bit(0)
    DONE = bit(1)
    ADDR = bits(2, 15)
    DATA = bits(16, 31)


class CTRL_EXT(Register):
    """Extended Device Control (13.4.6)."""

    offset, width = 0x0018, 32
    ASDCHK = bit(12)
    EE_RST = bit(13)
    LINK_MODE = bits(22, 23)  # 0: internal PHY
    DRV_LOAD = bit(28)  # 82574: a driver runs the device, not its firmware


class MDIC(Register):
    """MDI Control (13.4.7): access to the PHY's registers."""

    offset, width = 0x0020, 32
    DATA = bits(0, 15)
    REGADD = bits(16, 20)
    PHYADD = bits(21, 25)
    OP = bits(26, 27)  # 1: write, 2: read
    R = bit(28)  # ready
    I = bit(29)  # interrupt when done  # noqa: E741 - the SDM's name
    E = bit(30)  # error


class FCAL(Register):
    """Flow Control Address Low (13.4.8)."""

    offset, width = 0x0028, 32


class FCAH(Register):
    """Flow Control Address High (13.4.9)."""

    offset, width = 0x002C, 32


class FCT(Register):
    """Flow Control Type (13.4.10)."""

    offset, width = 0x0030, 32


class VET(Register):
    """VLAN Ether Type (13.4.11)."""

    offset, width = 0x0038, 32
    VET = bits(0, 15)


class FCTTV(Register):
    """Flow Control Transmit Timer Value (13.4.12), in slot times of 512 bits."""

    offset, width = 0x0170, 32
    TTV = bits(0, 15)


class EXTCNF_CTRL(Register):
    """Extended Configuration Control (82574 10.2.2.13)."""

    offset, width = 0x0F00, 32
    MDIO_SW_OWNERSHIP = bit(5)


class LEDCTL(Register):
    """LED Control (13.4.15)."""

    offset, width = 0x0E00, 32
    LED0_MODE = bits(0, 3)
    LED0_BLINK = bit(7)
    LED2_MODE = bits(16, 19)
    LED2_BLINK = bit(23)


class PBA(Register):
    """Packet Buffer Allocation (13.4.16), in KiB."""

    offset, width = 0x1000, 32
    RXA = bits(0, 15)
    TXA = bits(16, 31)


# ---- Interrupt (13.4.17 to 13.4.21) ----


class ICR(Register):
    """Interrupt Cause Read (13.4.17); a read clears it and takes the interrupt back."""

    offset, width = 0x00C0, 32
    TXDW = bit(0)  # a transmit descriptor was written back
    TXQE = bit(1)  # transmit queue empty
    LSC = bit(2)  # link status change
    RXSEQ = bit(3)
    RXDMT0 = bit(4)  # receive descriptors run short
    RXO = bit(6)  # receiver overrun
    RXT0 = bit(7)  # receive timer
    MDAC = bit(9)
    TXD_LOW = bit(15)
    SRPD = bit(16)


class ITR(Register):
    """Interrupt Throttling (13.4.18)."""

    offset, width = 0x00C4, 32
    INTERVAL = bits(0, 15)  # least time between interrupts in 256 ns; 0: none


class ICS(ICR):
    """Interrupt Cause Set (13.4.19)."""

    offset = 0x00C8


class IMS(ICR):
    """Interrupt Mask Set/Read (13.4.20)."""

    offset = 0x00D0


class IMC(ICR):
    """Interrupt Mask Clear (13.4.21)."""

    offset = 0x00D8


# ---- Receive (13.4.22 to 13.4.32, 13.4.46, 13.4.47) ----


class RCTL(Register):
    """Receive Control (13.4.22)."""

    offset, width = 0x0100, 32
    EN = bit(1)
    SBP = bit(2)  # store bad packets
    UPE = bit(3)  # unicast promiscuous
    MPE = bit(4)  # multicast promiscuous
    LPE = bit(5)  # long packets
    LBM = bits(6, 7)  # loopback mode: 0 none, 1 MAC, 3 transceiver
    RDMTS = bits(8, 9)  # threshold of RXDMT0: 0 half, 1 quarter, 2 eighth of the ring
    MO = bits(12, 13)  # which bits of a multicast address look into MTA
    BAM = bit(15)  # accept broadcast
    BSIZE = bits(16, 17)
    VFE = bit(18)  # VLAN filter
    CFIEN = bit(19)
    CFI = bit(20)
    DPF = bit(22)  # discard PAUSE frames
    PMCF = bit(23)  # pass MAC control frames
    BSEX = bit(25)  # BSIZE times 16
    SECRC = bit(26)  # strip the FCS


class FCRTL(Register):
    """Flow Control Receive Threshold Low (13.4.23), in bytes."""

    offset, width = 0x2160, 32
    RTL = bits(3, 15)
    XONE = bit(31)


class FCRTH(Register):
    """Flow Control Receive Threshold High (13.4.24), in bytes."""

    offset, width = 0x2168, 32
    RTH = bits(3, 15)


class RDBAL(Register):
    """Receive Descriptor Base Address Low (13.4.25)."""

    offset, width = 0x2800, 32


class RDBAH(Register):
    """Receive Descriptor Base Address High (13.4.26)."""

    offset, width = 0x2804, 32


class RDLEN(Register):
    """Receive Descriptor Length (13.4.27), in bytes."""

    offset, width = 0x2808, 32


class RDH(Register):
    """Receive Descriptor Head (13.4.28)."""

    offset, width = 0x2810, 32


class RDT(Register):
    """Receive Descriptor Tail (13.4.29)."""

    offset, width = 0x2818, 32


class RDTR(Register):
    """Receive Delay Timer (13.4.30), in 1.024 us."""

    offset, width = 0x2820, 32
    DELAY = bits(0, 15)
    FPD = bit(31)


class RXDCTL(Register):
    """Receive Descriptor Control (13.4.46)."""

    offset, width = 0x2828, 32
    PTHRESH = bits(0, 5)
    HTHRESH = bits(8, 13)
    WTHRESH = bits(16, 21)
    GRAN = bit(24)


class RADV(Register):
    """Receive Interrupt Absolute Delay Timer (13.4.31), in 1.024 us."""

    offset, width = 0x282C, 32
    DELAY = bits(0, 15)


class RXCSUM(Register):
    """Receive Checksum Control (13.4.47)."""

    offset, width = 0x5000, 32
    PCSS = bits(0, 7)
    IPOFL = bit(8)  # IPv4 header
    TUOFL = bit(9)  # TCP and UDP


class RFCTL(Register):
    """Receive Filter Control (82574 10.2.5.12)."""

    offset, width = 0x5008, 32
    EXSTEN = bit(15)  # extended descriptors


# ---- Transmit (13.4.33 to 13.4.45) ----


class TCTL(Register):
    """Transmit Control (13.4.33)."""

    offset, width = 0x0400, 32
    EN = bit(1)
    PSP = bit(3)  # pad short packets
    CT = bits(4, 11)  # collision threshold
    COLD = bits(12, 21)  # collision distance
    RTLC = bit(24)  # send again after a late collision
    MULR = bit(28)  # 82574: several requests at a time


class TIPG(Register):
    """Transmit Inter Packet Gap (13.4.34)."""

    offset, width = 0x0410, 32
    IPGT = bits(0, 9)
    IPGR1 = bits(10, 19)
    IPGR2 = bits(20, 29)


class TDBAL(Register):
    """Transmit Descriptor Base Address Low (13.4.36)."""

    offset, width = 0x3800, 32


class TDBAH(Register):
    """Transmit Descriptor Base Address High (13.4.37)."""

    offset, width = 0x3804, 32


class TDLEN(Register):
    """Transmit Descriptor Length (13.4.38), in bytes."""

    offset, width = 0x3808, 32


class TDH(Register):
    """Transmit Descriptor Head (13.4.39)."""

    offset, width = 0x3810, 32


class TDT(Register):
    """Transmit Descriptor Tail (13.4.40)."""

    offset, width = 0x3818, 32


class TIDV(Register):
    """Transmit Interrupt Delay Value (13.4.41), in 1.024 us."""

    offset, width = 0x3820, 32
    IDV = bits(0, 15)


class TXDCTL(Register):
    """Transmit Descriptor Control (13.4.43)."""

    offset, width = 0x3828, 32
    PTHRESH = bits(0, 5)
    HTHRESH = bits(8, 13)
    WTHRESH = bits(16, 21)
    COUNT_DESC = bit(22)  # 82574: has to be set
    GRAN = bit(24)  # thresholds count descriptors


class TADV(Register):
    """Transmit Absolute Interrupt Delay Value (13.4.44), in 1.024 us."""

    offset, width = 0x382C, 32
    IDV = bits(0, 15)


# ---- Filter tables (13.5) ----


class MTA(Register):
    """Multicast Table Array (13.5.1): one bit for each of 4096 hash values."""

    offset, width, count, stride = 0x5200, 32, 128, 4


class RAL(Register):
    """Receive Address Low (13.5.2): bytes 0 to 3 of the address, the first lowest."""

    offset, width, count, stride = 0x5400, 32, 16, 8


class RAH(Register):
    """Receive Address High (13.5.3)."""

    offset, width, count, stride = 0x5404, 32, 16, 8
    RAH = bits(0, 15)  # bytes 4 and 5
    ASEL = bits(16, 17)
    AV = bit(31)  # address valid


class VFTA(Register):
    """VLAN Filter Table Array (13.5.4): one bit for each VLAN id."""

    offset, width, count, stride = 0x5600, 32, 128, 4


# ---- Wake-up and management (13.6) ----


class WUC(Register):
    """Wake Up Control (13.6.1)."""

    offset, width = 0x5800, 32
    APME = bit(0)
    PME_EN = bit(1)
    PME_STATUS = bit(2)
    APMPME = bit(3)


class WUFC(Register):
    """Wake Up Filter Control (13.6.2)."""

    offset, width = 0x5808, 32
    LNKC = bit(0)
    MAG = bit(1)
    EX = bit(2)
    MC = bit(3)
    BC = bit(4)
    ARP = bit(5)


class WUS(WUFC):
    """Wake Up Status (13.6.3)."""

    offset = 0x5810


class MANC(Register):
    """Management Control (82574 10.2.9.5; the 8254x have it too)."""

    offset, width = 0x5820, 32
    ARP_EN = bit(13)  # the management controller takes ARP requests


# ---- Statistics (13.7) ----


class STATISTICS(Register):
    """The counters, one a word; statistics.py names them. A read clears."""

    offset, width, count, stride = 0x4000, 32, 64, 4
