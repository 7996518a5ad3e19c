"""The chips that the driver knows, by PCI device id, and what differs between them."""

from __future__ import annotations

from dataclasses import dataclass

VENDOR = 0x8086


@dataclass(frozen=True, slots=True)
class Chip:
    """A kind of controller; all have a copper PHY of Marvell's 88E1000 family, at address 1.

    ``receive_kib``: of its packet buffer (64 KiB; the 82574's 40 KiB) for reception, with frames of up to 1522 bytes and
    with longer ones. ``most_mtu`` in bytes. ``least_frame``: the bytes that a frame must have for the chip to pad it to
    60 by itself (TCTL.PSP). ``early``: an 82544, which has no EERD, ITR, RADV, TADV and LEDCTL, and no
    offloads for IPv6. ``express``: an 82574, with PCI Express, and with firmware that shares EEPROM and PHY.
    """

    name: str
    receive_kib: tuple[int, int] = (48, 40)
    most_mtu: int = 16110
    least_frame: int = 60
    early: bool = False
    express: bool = False


# The SDM's chapter 5 has the device ids. Not here: the 82542 and 82543, which it does not describe, the 82541 and 82547,
# whose PHY is another, and whatever has a fibre instead of a PHY.
CHIPS = {
    0x1008: Chip("82544EI", early=True),
    0x100C: Chip("82544GC", early=True),
    0x100D: Chip("82544GC", early=True),
    0x100E: Chip("82540EM"),
    0x1015: Chip("82540EM"),
    0x1016: Chip("82540EP"),
    0x1017: Chip("82540EP"),
    0x101E: Chip("82540EP"),
    0x100F: Chip("82545EM"),
    0x1026: Chip("82545GM"),
    0x1010: Chip("82546EB"),
    0x101D: Chip("82546EB"),
    0x1079: Chip("82546GB"),
    0x10D3: Chip("82574L", receive_kib=(20, 20), most_mtu=9212, least_frame=17, express=True),
}
