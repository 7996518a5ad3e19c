"""What the link can run at, by ethtool's names, and where each is advertised to the link partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from native_drivers.net.e1000.phy_registers import GCON, GSTATUS
from vmklinux.native.mii import ADVERTISE, LPA

if TYPE_CHECKING:
    from vmklinux.native.register import Register


@dataclass(frozen=True, slots=True)
class Mode:
    """Speed in Mb/s and duplex; the field that offers it, and the partner's."""

    speed: int
    full: bool
    register: type[Register]
    partner: type[Register]
    field: str


#: The best first (IEEE 802.3, 28B.3). Nothing here does 1000BASE-T at half duplex.
MODES = {
    "1000baseT/Full": Mode(1000, True, GCON, GSTATUS, "FULL1000"),
    "100baseT/Full": Mode(100, True, ADVERTISE, LPA, "FULL100"),
    "100baseT/Half": Mode(100, False, ADVERTISE, LPA, "HALF100"),
    "10baseT/Full": Mode(10, True, ADVERTISE, LPA, "FULL10"),
    "10baseT/Half": Mode(10, False, ADVERTISE, LPA, "HALF10"),
}
#: STATUS.SPEED, CTRL.SPEED and PSSR.SPEED by Mb/s.
SPEED_CODES = {10: 0, 100: 1, 1000: 2}
SPEEDS = {0: 10, 1: 100, 2: 1000, 3: 1000}
