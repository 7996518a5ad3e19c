"""What ethtool asks of the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from native_drivers.net.e1000.moderation import Moderation
from native_drivers.net.e1000.modes import MODES
from native_drivers.net.e1000.phy_registers import EPSCR, GCON, GSTATUS, PSCR, PSSR
from native_drivers.net.e1000.registers import (
    CTRL,
    CTRL_EXT,
    EECD,
    FCAH,
    FCAL,
    FCRTH,
    FCRTL,
    FCT,
    FCTTV,
    IMS,
    ITR,
    LEDCTL,
    MANC,
    PBA,
    RADV,
    RAH,
    RAL,
    RCTL,
    RDBAH,
    RDBAL,
    RDH,
    RDLEN,
    RDT,
    RDTR,
    RXCSUM,
    RXDCTL,
    STATUS,
    TADV,
    TCTL,
    TDBAH,
    TDBAL,
    TDH,
    TDLEN,
    TDT,
    TIDV,
    TIPG,
    TXDCTL,
    VET,
    WUC,
    WUFC,
)
from native_drivers.net.e1000.rings import LEAST, MOST, MULTIPLE
from native_drivers.net.e1000.self_test import SelfTester
from native_drivers.net.e1000.wake_on_lan import FILTERS
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.net.settings import Coalescing, LinkSettings, Pause, RegisterDump, Rings, WakeOnLan
from vmklinux.native.ethernet import EthernetDriver
from vmklinux.native.mii import ADVERTISE, BMCR, BMSR, LPA, PHYSID1, PHYSID2
from vmklinux.native.pci import CAPABILITY_POWER, pci_find_capability

if TYPE_CHECKING:
    from native_drivers.net.e1000.chips import Chip
    from native_drivers.net.e1000.controller import Controller
    from native_drivers.net.e1000.eeprom import Eeprom
    from native_drivers.net.e1000.link import Link
    from native_drivers.net.e1000.phy import Phy
    from native_drivers.net.e1000.receive import Receiver
    from native_drivers.net.e1000.statistics import Statistics
    from native_drivers.net.e1000.transmit import Transmitter
    from vmkernel_core.net.settings import SelfTest, Wake
    from vmklinux.native.ethtool import PhysId
    from vmklinux.native.register import Register, Registers

_COPPER = frozenset({"Autoneg", "TP"})
_SUPPORTED = frozenset(MODES) | _COPPER
#: The form of a register dump: those of the chip, in 4 bytes each, then those of the PHY, in 2. Being read changes none.
_DUMP_VERSION = 1
_DUMPED: tuple[type[Register], ...] = (
    CTRL, STATUS, EECD, CTRL_EXT, FCAL, FCAH, FCT, VET, FCTTV, LEDCTL, PBA, ITR, IMS, RCTL, FCRTL, FCRTH, RDBAL, RDBAH,
    RDLEN, RDH, RDT, RDTR, RXDCTL, RADV, RXCSUM, TCTL, TIPG, TDBAL, TDBAH, TDLEN, TDH, TDT, TIDV, TXDCTL, TADV,
    RAL[0], RAH[0], WUC, WUFC, MANC,
)  # fmt: skip
_PHY_DUMPED: tuple[type[Register], ...] = (
    BMCR, BMSR, PHYSID1, PHYSID2, ADVERTISE, LPA, GCON, GSTATUS, PSCR, PSSR, EPSCR,
)  # fmt: skip
#: LEDCTL's modes (SDM 13.4.15), and how often a second the light blinks.
_LED_ON, _LED_OFF, _BLINKS = 0xE, 0xF, 2


class Controls(EthernetDriver):
    """The part of the driver that is asked and told by ethtool; what it needs of the rest stands here."""

    controller: Controller
    chip: Chip
    registers: Registers
    eeprom: Eeprom
    phy: Phy
    link: Link
    moderation: Moderation
    statistics: Statistics
    transmitter: Transmitter
    receiver: Receiver
    wakes: frozenset[Wake]
    restarts: int
    timeouts: int
    supported_coalesce_params: ClassVar[frozenset[str]] = frozenset({"rx_usecs"})

    # ---- link ----

    def get_link_settings(self) -> LinkSettings:
        """As STATUS has it; what the other end offers, once both have agreed."""
        wishes, state = self.link.wishes, self.link.state
        agreed = state.up and wishes.autonegotiation and self.link.negotiated
        return LinkSettings(
            speed=state.speed,
            duplex="unknown" if not state.up else "full" if state.full else "half",
            autonegotiation=wishes.autonegotiation,
            advertised=wishes.advertised | _COPPER if wishes.autonegotiation else frozenset({"TP"}),
            supported=_SUPPORTED,
            partner=self.link.partner() | {"Autoneg"} if agreed else frozenset(),
            port="TP",
        )

    def set_link_settings(self, settings: LinkSettings) -> None:
        """1000 Mb/s cannot be forced (IEEE 802.3, 40.5.1.2): it is the only mode offered then."""
        wishes = self.link.wishes
        if settings.autonegotiation:
            advertised = settings.advertised & frozenset(MODES)
        else:
            forced = f"{settings.speed}baseT/{settings.duplex.capitalize()}"
            if forced not in MODES:
                raise UsageError(
                    f"there is no {forced}", where=self.netdev.name, remedy=f"use one of {', '.join(MODES)}"
                )
            advertised = frozenset({forced})
        if not advertised:
            raise UsageError("no mode is offered to the other end", where=self.netdev.name)
        wishes.autonegotiation = settings.autonegotiation or MODES[forced].speed == 1000
        if wishes.autonegotiation:
            wishes.advertised = advertised
        else:
            wishes.forced = forced
        self.restart()

    def nway_reset(self) -> None:
        """The whole chip begins anew with it."""
        self.restart()

    def get_pauseparam(self) -> Pause:
        """What is wished."""
        wishes = self.link.wishes
        return Pause(wishes.pause_autonegotiation, wishes.pause_rx, wishes.pause_tx)

    def set_pauseparam(self, settings: Pause) -> None:
        """What is offered to the other end changes with it."""
        wishes = self.link.wishes
        wishes.pause_autonegotiation = settings.autonegotiation
        wishes.pause_rx, wishes.pause_tx = settings.rx, settings.tx
        self.restart()

    # ---- rings and interrupts ----

    def get_ringparam(self) -> Rings:
        """Descriptors."""
        return Rings(self.rx_slots, self.tx_slots, 0, 0, MOST, MOST, 0, 0)

    def set_ringparam(self, settings: Rings) -> None:
        """What is too few, or no multiple of 8, becomes the next number that is possible."""
        rx, tx = (max(-(-wanted // MULTIPLE) * MULTIPLE, LEAST) for wanted in (settings.rx, settings.tx))
        if (rx, tx) != (self.rx_slots, self.tx_slots):
            self.resize_rings(rx, tx)

    def get_coalesce(self) -> Coalescing:
        """One time counts for all interrupts."""
        if self.chip.early:
            raise NotSupported(f"the {self.chip.name} does not moderate interrupts")
        return Coalescing(rx_usecs=self.moderation.microseconds)

    def set_coalesce(self, settings: Coalescing) -> None:
        """It."""
        self.moderation.set(settings.rx_usecs)

    # ---- what there is to see ----

    def get_ethtool_stats(self) -> dict[str, int]:
        """The chip's counters, and the driver's."""
        self.statistics.update()
        return self.statistics.by_ethtool_names() | {
            "tx_timeout_count": self.timeouts,
            "resets": self.restarts,
        }

    def get_regs(self) -> RegisterDump:
        """``_DUMPED`` and ``_PHY_DUMPED``."""
        chip = b"".join(self.registers.load(register).to_bytes(4, "little") for register in _DUMPED)
        phy = b"".join(self.phy.load(register).to_bytes(2, "little") for register in _PHY_DUMPED)
        return RegisterDump(_DUMP_VERSION, chip + phy)

    def get_eeprom_len(self) -> int:
        """In bytes."""
        return 2 * self.eeprom.words

    def get_eeprom(self, offset: int, length: int) -> bytes:
        """Words are two bytes, the lower one first."""
        first = offset // 2
        words = self.eeprom.read(first, (offset + length + 1) // 2 - first)
        return b"".join(word.to_bytes(2, "little") for word in words)[offset % 2 :][:length]

    # ---- the rest ----

    def get_wol(self) -> WakeOnLan:
        """Nothing, for a chip that does not sleep."""
        sleeps = pci_find_capability(self.pdev, CAPABILITY_POWER)
        return WakeOnLan(self.wakes, frozenset(FILTERS) if sleeps else frozenset())

    def set_wol(self, settings: WakeOnLan) -> None:
        """It counts from the next sleep on."""
        self.wakes = settings.enabled

    def self_test(self, offline: bool) -> SelfTest:
        """The link; and offline registers, EEPROM, interrupts, and frames sent to itself."""
        return SelfTester(self).run(offline)

    def set_phys_id(self, state: PhysId) -> int:
        """Switch the lights, which show the link otherwise."""
        if state == "active":
            self._lights = self.registers.read(CTRL if self.chip.early else LEDCTL)
            return _BLINKS
        if state == "inactive":
            self.registers.write(self._lights)
        elif self.chip.early:
            self.registers.modify(CTRL, SWDPIO0=1, SWDPIN0=int(state == "off"))
        else:
            mode = _LED_ON if state == "on" else _LED_OFF
            self.registers.modify(LEDCTL, LED0_MODE=mode, LED0_BLINK=0, LED2_MODE=mode, LED2_BLINK=0)
        return 0
