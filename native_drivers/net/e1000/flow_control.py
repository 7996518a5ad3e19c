"""IEEE 802.3x flow control: what is offered, what is agreed on, and the thresholds at which PAUSE is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import CTRL, FCAH, FCAL, FCRTH, FCRTL, FCT, FCTTV
from vmklinux.native.mii import ADVERTISE, LPA

if TYPE_CHECKING:
    from vmklinux.native.register import Registers

#: The address and the type of MAC control frames (IEEE 802.3, 31B): 01-80-C2-00-00-01, 8808.
_ADDRESS_LOW, _ADDRESS_HIGH, _TYPE = 0x00C2_8001, 0x0100, 0x8808
#: How long a PAUSE stops the other end, in slot times of 512 bits: the most.
_PAUSE_TIME = 0xFFFF


def offered(rx: bool, tx: bool) -> dict[str, int]:
    """The fields of ADVERTISE for what is heeded and sent (IEEE 802.3, table 28B-2)."""
    return {"PAUSE_CAP": int(rx), "PAUSE_ASYM": int(rx != tx)}


def agreed(mine: ADVERTISE, partner: LPA) -> tuple[bool, bool]:
    """Whether PAUSE is heeded, and whether it is sent (IEEE 802.3, table 28B-3)."""
    if mine.PAUSE_CAP and partner.PAUSE_CAP:
        return True, True
    if not (mine.PAUSE_ASYM and partner.PAUSE_ASYM):
        return False, False
    return bool(mine.PAUSE_CAP and not partner.PAUSE_CAP), bool(partner.PAUSE_CAP and not mine.PAUSE_CAP)


def set_thresholds(registers: Registers, receive_bytes: int, most_frame: int) -> None:
    """PAUSE is sent while a frame that is under way just fits the receive buffer, and taken back a frame below that."""
    high = min(receive_bytes * 9 // 10, receive_bytes - most_frame)
    registers.write(FCAL(_ADDRESS_LOW))
    registers.write(FCAH(_ADDRESS_HIGH))
    registers.write(FCT(_TYPE))
    registers.write(FCTTV(TTV=_PAUSE_TIME))
    registers.write(FCRTH(RTH=high >> 3))
    registers.write(FCRTL(RTL=(high - 1500) >> 3, XONE=1))


def switch(registers: Registers, rx: bool, tx: bool) -> None:
    """Heed and send PAUSE, or not."""
    registers.modify(CTRL, RFCE=int(rx), TFCE=int(tx))
