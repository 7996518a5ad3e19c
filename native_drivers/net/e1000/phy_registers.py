"""The PHY's registers: IEEE 802.3 clause 22 and 40 (0 to 15), and Marvell's 88E1000 family's (16 and up).

The SDM has them under "MDI Control Register" (13.4.7.1). ``offset`` is the register's number.
"""

from vmklinux.native.register import Register, bit, bits


class BMCR(Register):
    """Control (IEEE 802.3, 22.2.4.1)."""

    offset, width = 0, 16
    SPEED1000 = bit(6)
    DUPLEX = bit(8)
    RESTART = bit(9)  # begin to negotiate
    ISOLATE = bit(10)
    POWER_DOWN = bit(11)
    AUTONEG = bit(12)
    SPEED100 = bit(13)
    LOOPBACK = bit(14)
    RESET = bit(15)


class BMSR(Register):
    """Status (22.2.4.2); LINK stays 0 after a loss until it was read."""

    offset, width = 1, 16
    LINK = bit(2)
    AUTONEG_COMPLETE = bit(5)
    EXTENDED_STATUS = bit(8)


class PHYID1(Register):
    """PHY identifier, the higher half (22.2.4.3.1)."""

    offset, width = 2, 16


class PHYID2(Register):
    """PHY identifier, the lower half."""

    offset, width = 3, 16
    REVISION = bits(0, 3)


class ANAR(Register):
    """Auto-negotiation advertisement (28.2.4.1.3)."""

    offset, width = 4, 16
    SELECTOR = bits(0, 4)  # 1: IEEE 802.3
    HALF10 = bit(5)
    FULL10 = bit(6)
    HALF100 = bit(7)
    FULL100 = bit(8)
    PAUSE = bit(10)
    ASYM_PAUSE = bit(11)


class ANLPAR(ANAR):
    """What the link partner advertises (28.2.4.1.4)."""

    offset = 5


class GCON(Register):
    """1000BASE-T control (40.5.1.1)."""

    offset, width = 9, 16
    HALF1000 = bit(8)
    FULL1000 = bit(9)


class GSTATUS(Register):
    """1000BASE-T status (40.5.1.1)."""

    offset, width = 10, 16
    HALF1000 = bit(10)  # the partner's
    FULL1000 = bit(11)


class PSCR(Register):
    """PHY specific control (Marvell)."""

    offset, width = 16, 16
    POLARITY_REVERSAL_OFF = bit(1)
    MDIX = bits(5, 6)  # 3: automatic crossover at all speeds
    ASSERT_CRS_ON_TX = bit(11)


class PSSR(Register):
    """PHY specific status (Marvell)."""

    offset, width = 17, 16
    LINK = bit(10)
    RESOLVED = bit(11)
    DUPLEX = bit(13)
    SPEED = bits(14, 15)  # 0: 10, 1: 100, 2: 1000 Mb/s


class EPSCR(Register):
    """Extended PHY specific control (Marvell): clock of the MAC's interface at 10 and 100 Mb/s."""

    offset, width = 20, 16
    TX_CLK = bits(4, 6)  # 7: 25 MHz
    SLAVE_DOWNSHIFT = bits(8, 9)
    MASTER_DOWNSHIFT = bits(10, 11)
