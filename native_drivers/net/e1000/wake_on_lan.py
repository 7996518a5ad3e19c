"""What wakes the machine (SDM chapter 6): the filters of WUFC by ethtool's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import CTRL, WUC, WUFC, WUS

if TYPE_CHECKING:
    from native_drivers.net.e1000.chips import Chip
    from vmkernel_core.net.settings import Wake
    from vmklinux.native.register import Registers

FILTERS: dict[Wake, str] = {
    "phy": "LNKC",
    "unicast": "EX",
    "multicast": "MC",
    "broadcast": "BC",
    "magic": "MAG",
}


def arm(registers: Registers, chip: Chip, enabled: frozenset[Wake]) -> None:
    """Let these wake the machine, and nothing else; before the device goes to sleep."""
    registers.write(WUS((1 << WUS.width) - 1))  # what woke it before
    if not chip.early:
        registers.modify(CTRL, ADVD3WUC=1, EN_PHY_PWR_MGMT=1)
    registers.write(WUC(PME_EN=int(bool(enabled))))
    registers.write(WUFC(**{field: 1 for name, field in FILTERS.items() if name in enabled}))


def disarm(registers: Registers) -> None:
    """The device is awake: forget what would have woken it."""
    registers.write(WUC())
    registers.write(WUFC())
    registers.write(WUS((1 << WUS.width) - 1))
