"""The link: negotiated or forced (SDM 8.6), and what follows from it for the MAC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from native_drivers.net.e1000 import flow_control
from native_drivers.net.e1000.modes import MODES, SPEED_CODES, SPEEDS
from native_drivers.net.e1000.phy_registers import GCON, GSTATUS
from native_drivers.net.e1000.registers import CTRL, STATUS, TCTL
from vmklinux.native.mii import ADVERTISE, BMCR, BMSR, LPA

if TYPE_CHECKING:
    from native_drivers.net.e1000.phy import Phy
    from vmklinux.native.register import Register, Registers

_IEEE_8023 = 1  # ADVERTISE.SELECTOR
#: TCTL.COLD in byte times by duplex (SDM table 13-76).
_COLLISION_DISTANCE = {True: 0x40, False: 0x200}


@dataclass
class LinkWishes:
    """What somebody set: negotiation with these modes offered, or a forced mode; the same for flow control."""

    autonegotiation: bool = True
    advertised: frozenset[str] = field(default_factory=lambda: frozenset(MODES))
    forced: str = "100baseT/Full"
    pause_autonegotiation: bool = True
    pause_rx: bool = True
    pause_tx: bool = True


@dataclass(frozen=True, slots=True)
class LinkState:
    """What the link is: ``speed`` in Mb/s, 0 and half duplex without one; whether PAUSE is heeded and sent."""

    up: bool = False
    speed: int = 0
    full: bool = False
    pause_rx: bool = False
    pause_tx: bool = False


class Link:
    """A chip's link. ``wishes`` count from the next ``start`` on. Everything raises PhyError and RegisterTimeout."""

    def __init__(self, registers: Registers, phy: Phy) -> None:
        """Down, and left alone yet."""
        self._registers = registers
        self._phy = phy
        self.wishes = LinkWishes()
        self.state = LinkState()

    def start(self) -> None:
        """Bring the link up; that takes seconds, and LSC tells of it."""
        self._phy.power(True)
        if self.wishes.autonegotiation:
            self._negotiate()
        else:
            self._force()

    def stop(self) -> None:
        """Take it down and turn the PHY off."""
        self._phy.power(False)
        self.state = LinkState()

    def _offer(self) -> None:
        wishes = self.wishes
        chosen: dict[type[Register], dict[str, int]] = {ADVERTISE: {"SELECTOR": _IEEE_8023}, GCON: {}}
        for name, mode in MODES.items():
            chosen[mode.register][mode.field] = int(name in wishes.advertised)
        chosen[ADVERTISE] |= flow_control.offered(wishes.pause_rx, wishes.pause_tx)
        self._phy.modify(ADVERTISE, **chosen[ADVERTISE])
        self._phy.modify(GCON, HALF1000=0, **chosen[GCON])

    def _negotiate(self) -> None:
        """The PHY agrees with the other end, and the MAC follows the PHY."""
        self._registers.modify(CTRL, SLU=1, ASDE=0, FRCSPD=0, FRCDPX=0)
        self._phy.configure(automatic_crossover=True)
        self._offer()
        self._phy.reset()
        self._phy.modify(BMCR, ANENABLE=1, ANRESTART=1, LOOPBACK=0)

    def _force(self) -> None:
        """PHY and MAC are both told the mode."""
        mode = MODES[self.wishes.forced]
        self._registers.modify(
            CTRL, SLU=1, ASDE=0, FRCSPD=1, FRCDPX=1, SPEED=SPEED_CODES[mode.speed], FD=int(mode.full)
        )
        self._phy.configure(automatic_crossover=False)
        self._phy.modify(
            BMCR,
            ANENABLE=0,
            SPEED1000=int(mode.speed == 1000),
            SPEED100=int(mode.speed == 100),
            FULLDPLX=int(mode.full),
            LOOPBACK=0,
        )
        self._phy.reset()

    def look(self) -> LinkState:
        """See what the link is now; the MAC is set for it when it came up."""
        status = self._registers.read(STATUS)
        if self._registers.window.gone or not status.LU:
            self.state = LinkState()
        else:
            full = bool(status.FD)
            rx, tx = self._pause() if full else (False, False)
            self._registers.modify(TCTL, COLD=_COLLISION_DISTANCE[full])
            flow_control.switch(self._registers, rx, tx)
            self.state = LinkState(True, SPEEDS[status.SPEED], full, rx, tx)
        return self.state

    def _pause(self) -> tuple[bool, bool]:
        wishes = self.wishes
        if not (wishes.autonegotiation and wishes.pause_autonegotiation):
            return wishes.pause_rx, wishes.pause_tx
        rx, tx = flow_control.agreed(self._phy.read(ADVERTISE), self._phy.read(LPA))
        return rx and wishes.pause_rx, tx and wishes.pause_tx

    @property
    def negotiated(self) -> bool:
        """Whether the two ends have agreed."""
        return bool(self._phy.read(BMSR).ANEGCOMPLETE)

    def partner(self) -> frozenset[str]:
        """The modes that the other end offers."""
        values = {LPA: self._phy.read(LPA), GSTATUS: self._phy.read(GSTATUS)}
        return frozenset(name for name, mode in MODES.items() if getattr(values[mode.partner], mode.field))
