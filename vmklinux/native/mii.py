"""PHYs with the registers of IEEE 802.3 clause 22, and what ethtool asks of them (Linux drivers/net/mii.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.errors import UsageError
from vmkernel_core.net.settings import Duplex, LinkSettings
from vmklinux.native.register import Register, Registers, bit, bits

if TYPE_CHECKING:
    from collections.abc import Mapping


class BMCR(Register):
    """Basic mode control (IEEE 802.3, 22.2.4.1)."""

    offset, width = 0, 16
    SPEED1000 = bit(6)
    CTST = bit(7)  # collision test
    FULLDPLX = bit(8)
    ANRESTART = bit(9)
    ISOLATE = bit(10)
    PDOWN = bit(11)
    ANENABLE = bit(12)
    SPEED100 = bit(13)
    LOOPBACK = bit(14)
    RESET = bit(15)


class BMSR(Register):
    """Basic mode status (22.2.4.2). A lost link is latched: the second reading tells how it is now."""

    offset, width = 1, 16
    ERCAP = bit(0)
    JCD = bit(1)
    LSTATUS = bit(2)
    ANEGCAPABLE = bit(3)
    RFAULT = bit(4)
    ANEGCOMPLETE = bit(5)
    HALF10 = bit(11)
    FULL10 = bit(12)
    HALF100 = bit(13)
    FULL100 = bit(14)
    BASE100T4 = bit(15)


class PHYSID1(Register):
    """PHY identifier, bits 3 to 18 of the manufacturer's number (22.2.4.3.1)."""

    offset, width = 2, 16


class PHYSID2(Register):
    """PHY identifier, the rest (22.2.4.3.1)."""

    offset, width = 3, 16
    REVISION = bits(0, 3)
    MODEL = bits(4, 9)


class ADVERTISE(Register):
    """What is offered to the link partner (28.2.4.1.3)."""

    offset, width = 4, 16
    SELECTOR = bits(0, 4)  # 1: IEEE 802.3
    HALF10 = bit(5)
    FULL10 = bit(6)
    HALF100 = bit(7)
    FULL100 = bit(8)
    BASE100T4 = bit(9)
    PAUSE_CAP = bit(10)
    PAUSE_ASYM = bit(11)


class LPA(ADVERTISE):
    """What the link partner offers (28.2.4.1.4)."""

    offset = 5


#: ethtool's names of what BMSR, ADVERTISE and LPA have, the best mode first.
MODES: Mapping[str, str] = {
    "100baseT/Full": "FULL100",
    "100baseT/Half": "HALF100",
    "10baseT/Full": "FULL10",
    "10baseT/Half": "HALF10",
}
#: Of each the speed in Mb/s and the duplex.
_SPEEDS: Mapping[str, tuple[int, Duplex]] = {
    "100baseT/Full": (100, "full"),
    "100baseT/Half": (100, "half"),
    "10baseT/Full": (10, "full"),
    "10baseT/Half": (10, "half"),
}
_PAUSE: Mapping[str, str] = {"Pause": "PAUSE_CAP", "Asym_Pause": "PAUSE_ASYM"}
_PORTS = frozenset({"TP", "MII"})


class Mii:
    """A PHY for 10 and 100 Mb/s; ``registers`` reaches it (``offset`` is a register's number)."""

    def __init__(self, registers: Registers) -> None:
        self.registers = registers

    def link_ok(self) -> bool:
        """Whether there is a link now."""
        self.registers.read(BMSR)
        return bool(self.registers.read(BMSR).LSTATUS)

    def speed(self) -> tuple[int, Duplex]:
        """Mb/s and duplex, negotiated or forced."""
        control = self.registers.read(BMCR)
        if not control.ANENABLE:
            return 100 if control.SPEED100 else 10, "full" if control.FULLDPLX else "half"
        common = _modes(self.registers.read(ADVERTISE)) & _modes(self.registers.read(LPA))
        best = next((mode for mode in MODES if mode in common), "10baseT/Half")
        return _SPEEDS[best]

    def get_link_settings(self) -> LinkSettings:
        """The PHY's settings, as ethtool has them."""
        control, status = self.registers.read(BMCR), self.registers.read(BMSR)
        able = {mode for mode, field in MODES.items() if getattr(status, field)}
        able |= {"Autoneg"} if status.ANEGCAPABLE else set()
        offered = _modes(self.registers.read(ADVERTISE)) | _PORTS
        offered |= {"Autoneg"} if control.ANENABLE else set()
        settled = control.ANENABLE and status.ANEGCOMPLETE
        partner = _modes(self.registers.read(LPA)) if settled else frozenset()
        speed, duplex = self.speed()
        return LinkSettings(
            speed,
            duplex,
            bool(control.ANENABLE),
            frozenset(offered),
            frozenset(able | _PORTS),
            partner,
            "MII",
        )

    def set_link_settings(self, settings: LinkSettings) -> None:
        """Advertise other modes and negotiate anew, or force one; PAUSE stays. UsageError for what it cannot do."""
        able = self.get_link_settings().supported
        if not settings.autonegotiation:
            forced = next(
                (mode for mode, what in _SPEEDS.items() if what == (settings.speed, settings.duplex)), ""
            )
            if forced not in able:
                raise UsageError(
                    f"the PHY cannot do {settings.speed} Mb/s, {settings.duplex} duplex",
                    remedy=f"it can do {', '.join(mode for mode in MODES if mode in able)}",
                )
            full = settings.duplex == "full"
            self.registers.modify(BMCR, ANENABLE=0, SPEED100=settings.speed == 100, FULLDPLX=full)
            return
        wanted = settings.advertised & able & MODES.keys()
        if not wanted:
            raise UsageError("no mode would be left that the PHY can do", remedy="advertise one or more")
        self.registers.modify(ADVERTISE, **{field: mode in wanted for mode, field in MODES.items()})
        self.registers.modify(BMCR, ANENABLE=1, ANRESTART=1)

    def has(self, settings: LinkSettings) -> bool:
        """Whether it is set like this."""
        now = self.get_link_settings()
        if settings.autonegotiation and now.autonegotiation:
            return settings.advertised & MODES.keys() == now.advertised & MODES.keys()
        return (settings.autonegotiation, settings.speed, settings.duplex) == (
            now.autonegotiation,
            now.speed,
            now.duplex,
        )

    def nway_reset(self) -> None:
        """Negotiate anew. UsageError when the mode is forced."""
        if not self.registers.read(BMCR).ANENABLE:
            raise UsageError("the link's mode is forced", remedy="switch autonegotiation on first")
        self.registers.modify(BMCR, ANRESTART=1)


def _modes(value: ADVERTISE) -> frozenset[str]:
    return frozenset(mode for mode, field in {**MODES, **_PAUSE}.items() if getattr(value, field))
