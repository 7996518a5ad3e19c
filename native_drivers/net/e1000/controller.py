"""The chip itself: reset and set-up after it (SDM 14.3 to 14.5), but for rings, link and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import (
    CTRL,
    CTRL_EXT,
    EECD,
    ICR,
    IMC,
    MANC,
    PBA,
    RCTL,
    RFCTL,
    RXCSUM,
    STATUS,
    TCTL,
    TIPG,
    TXDCTL,
    VET,
)
from vmklinux.native.timer import msleep

if TYPE_CHECKING:
    from native_drivers.net.e1000.chips import Chip
    from vmklinux.native.register import Registers

#: Bytes around a frame's payload: Ethernet header, a VLAN tag and FCS.
OVERHEAD = 14 + 4 + 4
#: The longest frame that is none of the long ones (RCTL.LPE).
STANDARD_FRAME = 1500 + OVERHEAD
#: Milliseconds that DMA which is under way, and the EEPROM's automatic read, may take.
_DMA_TIME, _EEPROM_TIME = 10, 5
_RESET_LIMIT, _MASTER_LIMIT, _AUTO_READ_LIMIT = 0.1, 0.1, 0.5
_ALL_CAUSES = (1 << IMC.width) - 1
_VLAN_TYPE = 0x8100
#: Inter packet gaps (SDM table 13-77); between frames sent back to back it is less on an 82544.
_IPGT, _IPGR1, _IPGR2 = {False: 10, True: 8}, 8, 6
_COLLISION_THRESHOLD = 15  # SDM table 13-76
#: Descriptors are fetched and written back early: a written one at once (SDM 13.4.43).
_TX_THRESHOLDS = {"GRAN": 1, "WTHRESH": 1}


class Controller:
    """A chip's registers, of which ``registers`` reads and writes each."""

    def __init__(self, registers: Registers, chip: Chip) -> None:
        """Nothing is done yet."""
        self.registers = registers
        self.chip = chip

    def quiet(self) -> None:
        """No interrupt, and no reception or transmission but of what is under way."""
        self.registers.write(IMC(_ALL_CAUSES))
        self.registers.write(RCTL())
        self.registers.write(TCTL(PSP=1))
        self.registers.read(STATUS)  # it has all of that now

    def reset(self) -> None:
        """Put the chip back to what its EEPROM says, with interrupts off. It sleeps. RegisterTimeout, DeviceGone."""
        registers, express = self.registers, self.chip.express
        self.quiet()
        if express:
            registers.modify(CTRL, GIO_MASTER_DISABLE=1)
            registers.wait(STATUS, _MASTER_LIMIT, GIO_MASTER_ENABLE=0)
        else:
            msleep(_DMA_TIME)
        registers.modify(CTRL, RST=1)
        registers.wait(CTRL, _RESET_LIMIT, RST=0)
        if express:
            registers.wait(EECD, _AUTO_READ_LIMIT, SIZE=1)
        msleep(_EEPROM_TIME)
        registers.write(IMC(_ALL_CAUSES))
        registers.modify(MANC, ARP_EN=0)
        registers.read(ICR)

    def set_up(self, most_frame: int) -> int:
        """Everything that neither filters nor settings change, for frames of at most that many bytes, FCS included.

        The bytes of the packet buffer that are for reception.
        """
        registers, chip = self.registers, self.chip
        kib = chip.receive_kib[most_frame > STANDARD_FRAME]
        registers.write(PBA(RXA=kib))
        registers.modify(CTRL, GIO_MASTER_DISABLE=0, RFCE=0, TFCE=0)
        registers.write(VET(VET=_VLAN_TYPE))
        registers.write(TIPG(IPGT=_IPGT[chip.early], IPGR1=_IPGR1, IPGR2=_IPGR2))
        registers.modify(TXDCTL, **_TX_THRESHOLDS, **({"COUNT_DESC": 1} if chip.express else {}))
        if chip.express:
            registers.modify(CTRL_EXT, DRV_LOAD=1)
            registers.modify(RFCTL, EXSTEN=0)
        return kib << 10

    def receive_checksums(self, on: bool) -> None:
        """Have the sums of received frames verified, or not."""
        self.registers.write(RXCSUM(IPOFL=int(on), TUOFL=int(on)))

    def let_go(self) -> None:
        """The driver leaves: the 82574's firmware may have it."""
        if self.chip.express:
            self.registers.modify(CTRL_EXT, DRV_LOAD=0)


def transmit_control() -> TCTL:
    """TCTL while frames are sent; the link sets COLD."""
    return TCTL(EN=1, PSP=1, CT=_COLLISION_THRESHOLD, RTLC=1)
