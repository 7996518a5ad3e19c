"""Where drivers in Python leave a card in another state than Debian's drivers do, and why that is right.

SDM: Intel's manual of the 8254x family (317453, revision 4.0). Am79C970A: AMD's data sheet 19436.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.e2e.cards import E100
from vmkernel_core.net.uplink import Feature

#: Cards of each kind, by their names in cards.py.
MASKS = tuple(name for name in E100 if not name.startswith("i82557"))
OLD, NEW, MODEL = "82544gc", ("qemu", "82545em", "model"), ("model",)


@dataclass(frozen=True)
class Difference:
    """The bits of ``mask`` may differ at places that match ``place``, on ``cards`` (all, if empty). ``certain``: they
    do, each time; else it depends on the time of looking.
    """

    place: str
    mask: int
    reason: str
    cards: tuple[str, ...] = ()
    certain: bool = True

    def is_about(self, card: str) -> bool:
        """Whether it may be found on that card."""
        return not self.cards or card in self.cards

    def holds(self, card: str, place: str) -> bool:
        """Whether it is about that place there."""
        return self.is_about(card) and re.fullmatch(self.place, place) is not None


_STRICT_PAUSE = (
    "Linux heeds PAUSE though the other end offers none; ours does as IEEE 802.3 28B says, and offers what table 28B-2"
    " has for both directions, where Linux offers besides to do with one"
)

#: By driver.
DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "e1000": (
        Difference("RCTL", 1 << 26, "SECRC: the card takes the FCS off, where Linux does it by the length"),
        Difference(
            "IMS",
            1 << 0,
            "TXDW is only wanted when the ring was full: finished slots are looked for when needed",
        ),
        Difference("TCTL", 0x3FF << 12, "COLD in full duplex is 0x40 in SDM table 13-76; Linux has one less"),
        Difference("CTRL", 1 << 27, f"RFCE: {_STRICT_PAUSE}", cards=("qemu", OLD, "82545em")),
        Difference("PHY 4", 1 << 11, _STRICT_PAUSE),
        Difference(
            "PHY 20",
            0xE00,
            "M88E1000's clock for 1000 Mb/s and downshift: Linux's choice for its first revision",
        ),
        Difference(
            "TADV|RADV", 0xFFFF, "moderation by ITR alone, not by descriptors' delays as well", cards=NEW
        ),
        Difference("TIDV", 0xFFFF, "likewise", cards=MODEL),
        Difference(
            "ITR",
            0xFFFF,
            "Linux adapts the rate to the traffic, ours stays where it is set",
            NEW,
            certain=False,
        ),
        Difference(
            "TXDCTL", 0xFFFFFFFF, "ours sets thresholds on every chip, Linux not on the 82544", cards=(OLD,)
        ),
        Difference("EECD", 1 << 3, "DO, the EEPROM's last bit: not written by a driver", cards=(OLD,)),
        Difference(
            "RXCSUM", 1 << 8, "Linux asks for the sum of the IP header only with rx-checksum on", cards=MODEL
        ),
        Difference(
            "TIPG", 0x3FF, "IPGT for copper is 10 in SDM 13.4.34; Linux has the 8 of its 82543", cards=MODEL
        ),
        Difference(
            "FCRTL",
            0xFFFF,
            "where PAUSE ends: Linux and ours count from other marks below the top",
            cards=MODEL,
        ),
        Difference(
            "PHY 1",
            1 << 2,
            "the model's link status is latched: it depends on who looked before",
            MODEL,
            certain=False,
        ),
    ),
    "e100": (
        Difference(
            "SCB status", 0xFF00, "causes that nobody has acknowledged yet, or that are masked", certain=False
        ),
        Difference(
            "SCB interrupt mask",
            0xA0,
            "CX and CNA are masked where they can be, from the 82558 on: finished"
            " commands are looked for when the next ones are given",
            cards=MASKS,
        ),
    ),
    "pcnet32": (
        Difference(
            "BCR2", 1 << 12, "LEDPE: Linux lets the LEDs be programmed always, ours when one shall blink"
        ),
        Difference("CSR0", 0x0FFF, "causes of interrupts, and INIT, which Linux leaves set", certain=False),
        Difference(
            "CSR3",
            0x1B40,
            "masks of causes that ours does not need, TINT but when the ring is full, and DXSUFLO",
        ),
        Difference(
            "CSR4", 1 << 12, "DPOLL: ours tells the chip of each batch (TDMD), so it need not poll the ring"
        ),
        Difference("CSR7[68]", 0xFFFF, "rings have 128 descriptors; Linux begins with 16 and 32"),
    ),
}

#: Offloads that ours has on at first, and Debian's driver off or not at all.
MORE: dict[str, frozenset[Feature]] = {
    "e1000": frozenset({"rx-checksum", "tso6"}),
    "e100": frozenset(),
    "pcnet32": frozenset(),
}
