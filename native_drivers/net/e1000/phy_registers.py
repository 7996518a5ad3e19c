"""The PHY's registers beyond those of clause 22 (mii.py): IEEE 802.3 clause 40's, and Marvell's 88E1000 family's.

The SDM has them under "MDI Control Register" (13.4.7.1). ``offset`` is the register's number.
"""

from vmklinux.native.register import Register, bit, bits


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
