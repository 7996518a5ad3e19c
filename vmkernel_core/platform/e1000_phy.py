"""The 82540EM's copper PHY: a Marvell M88E1011 on a cable whose other end can do everything.

Registers 0…15 are IEEE 802.3 clause 22's (and 40's for 1000BASE-T), 16 and up Marvell's; Intel's SDM has them
under "MDI Control Register". Auto-negotiation takes no time.
"""

from __future__ import annotations

from dataclasses import dataclass

# Register numbers that mean something to the model.
BMCR, BMSR, ANAR, ANLPAR, ANER, GCON, GSTATUS, PSSR = 0, 1, 4, 5, 6, 9, 10, 17


@dataclass(frozen=True, slots=True)
class PhyRegister:
    """A PHY register: its number, its value after a hardware reset and the bits that software may write."""

    name: str
    number: int
    reset: int
    writable: int = 0


PHY_REGISTERS = (
    PhyRegister("Control", BMCR, 0x1140, 0x7FC0),
    PhyRegister("Status", BMSR, 0x7949),
    PhyRegister("PHY Identifier 1", 2, 0x0141),
    PhyRegister("PHY Identifier 2", 3, 0x0C20),
    PhyRegister("Auto-Negotiation Advertisement", ANAR, 0x0DE1, 0xFFFF),
    PhyRegister("Link Partner Ability", ANLPAR, 0),
    PhyRegister("Auto-Negotiation Expansion", ANER, 0x0004),
    PhyRegister("Next Page Transmit", 7, 0x2001, 0xBFFF),
    PhyRegister("Link Partner Next Page", 8, 0),
    PhyRegister("1000BASE-T Control", GCON, 0x0300, 0xFF00),
    PhyRegister("1000BASE-T Status", GSTATUS, 0),
    PhyRegister("Extended Status", 15, 0x3000),
    PhyRegister("PHY Specific Control", 16, 0x0360, 0xFFFF),
    PhyRegister("PHY Specific Status", PSSR, 0),
    PhyRegister("Interrupt Enable", 18, 0, 0xFFFF),
    PhyRegister("Interrupt Status", 19, 0),
    PhyRegister("Extended PHY Specific Control", 20, 0x0D60, 0xFFFF),
    PhyRegister("Receive Error Counter", 21, 0),
    PhyRegister("Extended Address", 22, 0, 0xFFFF),
    PhyRegister("LED Control", 24, 0x4100, 0xFFFF),
    PhyRegister("Manual LED Override", 25, 0, 0xFFFF),
    PhyRegister("Extended PHY Specific Control 2", 26, 0x000A, 0xFFFF),
    PhyRegister("Extended PHY Specific Status", 27, 0),
    PhyRegister("Page Select", 29, 0, 0xFFFF),
    PhyRegister("Page Data", 30, 0, 0xFFFF),
)
_WRITABLE = {register.number: register.writable for register in PHY_REGISTERS}

_BMCR_RESET, _BMCR_LOOPBACK, _BMCR_AUTONEG = 1 << 15, 1 << 14, 1 << 12
_BMCR_POWER_DOWN, _BMCR_ISOLATE, _BMCR_RESTART, _BMCR_FULL_DUPLEX = 1 << 11, 1 << 10, 1 << 9, 1 << 8
#: Control bits that start the link anew when they change.
_BMCR_LINK_BITS = 0x7D40
#: Control's speed bits (6 and 13), and the speed in Mb/s.
_BMCR_SPEEDS = {0x0000: 10, 0x2000: 100, 0x0040: 1000, 0x2040: 1000}
_BMSR_LINK, _BMSR_COMPLETE = 1 << 2, 1 << 5

#: Priority resolution (IEEE 802.3 annex 28B.3): register, bit, Mb/s, full duplex.
_ABILITIES = (
    (GCON, 0x0200, 1000, True),
    (GCON, 0x0100, 1000, False),
    (ANAR, 0x0100, 100, True),
    (ANAR, 0x0080, 100, False),
    (ANAR, 0x0040, 10, True),
    (ANAR, 0x0020, 10, False),
)
_PARTNER_ABILITY = 0xCDE1  # acknowledge, next page, both PAUSE bits, 10 and 100 Mb/s, IEEE 802.3
_PARTNER_EXPANSION = 0x000F
_PARTNER_GIGABIT = 0x0C00
_RECEIVERS_OK = 0x3000
_PSSR_SPEEDS = {10: 0x0000, 100: 0x4000, 1000: 0x8000}
_PSSR_FULL_DUPLEX, _PSSR_RESOLVED, _PSSR_LINK = 1 << 13, 1 << 11, 1 << 10


class M88E1011:
    """The PHY; ``link``, ``speed`` (Mb/s), ``full_duplex`` and ``loopback`` are the lines that the MAC sees.

    Methods that may touch the link answer whether it was brought down, up or through a new negotiation.
    """

    def __init__(self) -> None:
        """A PHY after power-on, its cable plugged."""
        self.cable = True
        self.reset()

    def reset(self) -> bool:
        """Hardware reset (CTRL.PHY_RST or power-on): all registers to their defaults."""
        self._values = {register.number: register.reset for register in PHY_REGISTERS}
        self.link, self.speed, self.full_duplex = False, 1000, True
        self._link_was_lost = False
        return self._negotiate()

    def set_cable(self, plugged: bool) -> bool:
        """Plug or pull the cable."""
        changed = plugged != self.cable
        self.cable = plugged
        return changed and self._negotiate()

    @property
    def loopback(self) -> bool:
        """Whether what the MAC sends comes back to it."""
        return bool(self._values[BMCR] & _BMCR_LOOPBACK)

    def read(self, number: int) -> int:
        """Read a register; registers that do not exist read 0."""
        value = self._values.get(number, 0)
        if number == BMSR:
            # Link status latches low (IEEE 802.3 clause 22): a loss is seen by exactly one read.
            if self._link_was_lost:
                value &= ~_BMSR_LINK
            self._link_was_lost = False
        return value

    def write(self, number: int, value: int) -> bool:
        """Write a register."""
        before = self._values.get(number, 0)
        writable = _WRITABLE.get(number, 0)
        after = (before & ~writable) | (value & writable)
        if number != BMCR:
            self._values[number] = after
            return False
        # A software reset keeps what was written; it is what makes changes take effect.
        self._values[BMCR] = after & ~_BMCR_RESTART
        if value & (_BMCR_RESET | _BMCR_RESTART) or (before ^ after) & _BMCR_LINK_BITS:
            return self._negotiate()
        return False

    def _negotiate(self) -> bool:
        was_up = self.link
        control = self._values[BMCR]
        automatic = bool(control & _BMCR_AUTONEG)
        self.link = self.cable and not control & (_BMCR_POWER_DOWN | _BMCR_ISOLATE | _BMCR_LOOPBACK)
        if automatic:
            agreed = next((a for a in _ABILITIES if self._values[a[0]] & a[1]), None)
            if agreed:
                _, _, self.speed, self.full_duplex = agreed
            self.link = self.link and agreed is not None
        else:
            self.speed = _BMCR_SPEEDS[control & 0x2040]
            self.full_duplex = bool(control & _BMCR_FULL_DUPLEX)
        self._link_was_lost |= was_up
        self._show(automatic and self.link)
        return was_up or self.link

    def _show(self, complete: bool) -> None:
        values = self._values
        gigabit = self.link and self.speed == 1000
        values[BMSR] = 0x7949 | (_BMSR_LINK if self.link else 0) | (_BMSR_COMPLETE if complete else 0)
        values[ANLPAR] = _PARTNER_ABILITY if complete else 0
        values[ANER] = _PARTNER_EXPANSION if complete else 0x0004
        values[GSTATUS] = (_PARTNER_GIGABIT if complete else 0) | (_RECEIVERS_OK if gigabit else 0)
        values[PSSR] = _PSSR_SPEEDS[self.speed] | (_PSSR_FULL_DUPLEX if self.full_duplex else 0)
        if self.link:
            values[PSSR] |= _PSSR_RESOLVED | _PSSR_LINK
