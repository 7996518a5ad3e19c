"""What ethtool asks of a PCnet: link, rings, test, registers, lights."""

from __future__ import annotations

import errno
from abc import abstractmethod
from typing import TYPE_CHECKING

from native_drivers.net.pcnet32.registers import BCR2, BCR32, CSR0, CSR15, LED
from native_drivers.net.pcnet32.rings import BLANK, ERRORS
from vmkernel_core.errors import TimedOut
from vmkernel_core.net.settings import RegisterDump, Rings, SelfTest
from vmklinux.native.ethernet import EthernetDriver
from vmklinux.native.timer import msleep

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from native_drivers.net.pcnet32.chips import Chip
    from native_drivers.net.pcnet32.media import Media
    from native_drivers.net.pcnet32.ports import Bcrs, Csrs, Ports
    from native_drivers.net.pcnet32.rings import Receiver, Transmitter
    from vmkernel_core.net.settings import LinkSettings
    from vmklinux.native.ethtool import PhysId

#: Descriptors per ring are powers of two: the least and the most.
_FEWEST, _MOST = 4, 512
#: What a dump has, after the PROM.
_CSRS, _BCRS = (*range(90), 112, 114), range(36)
#: Milliseconds that a frame may take on its way back, and between two looks.
_LOOP_LIMIT, _PAUSE = 200, 1
_LOOP_FRAME = bytes(range(14, 75))


class Controls(EthernetDriver):
    """The half of the driver that ethtool speaks with."""

    chip: Chip
    ports: Ports
    csr: Csrs
    bcr: Bcrs
    media: Media
    aprom: bytes
    transmitter: Transmitter
    receiver: Receiver
    tx_failed: Counter[str]
    missed: int
    babbles: int

    # ---- what the other half does ----

    @abstractmethod
    def collect(self) -> None:
        """Add up what it counted."""

    # ---- the link ----

    def get_link_settings(self) -> LinkSettings:
        """The PHY's, or what 10BASE-T can be."""
        return self.media.get()

    def set_link_settings(self, settings: LinkSettings) -> None:
        """Change them."""
        self.media.set(settings)

    def nway_reset(self) -> None:
        """Negotiate anew."""
        self.media.negotiate()

    # ---- rings ----

    def get_ringparam(self) -> Rings:
        """Descriptors per ring."""
        return Rings(self.rx_slots, self.tx_slots, 0, 0, _MOST, _MOST, 0, 0)

    def set_ringparam(self, settings: Rings) -> None:
        """Other rings; the next power of two counts."""
        self.resize_rings(
            *(1 << (max(slots, _FEWEST) - 1).bit_length() for slots in (settings.rx, settings.tx))
        )

    # ---- counters and contents ----

    def get_ethtool_stats(self) -> Mapping[str, int]:
        """What the driver counts: the chip has no more than the frames that it missed."""
        if self.netdev.running:
            self.collect()
        return {name: self.tx_failed[name] for name in ERRORS} | {
            "rx_missed_errors": self.missed,
            "tx_babbles": self.babbles,
        }

    def get_regs(self) -> RegisterDump:
        """The PROM, the CSRs and the BCRs."""
        csrs = [self.ports.read_csr(number) for number in _CSRS]
        bcrs = [self.ports.read_bcr(number) for number in _BCRS]
        return RegisterDump(0, self.aprom + b"".join(word.to_bytes(2, "little") for word in csrs + bcrs))

    def get_eeprom_len(self) -> int:
        """The address PROM's."""
        return len(self.aprom)

    def get_eeprom(self, offset: int, length: int) -> bytes:
        """As it was read when the driver took the device."""
        return self.aprom[offset : offset + length]

    # ---- tests and lights ----

    def self_test(self, offline: bool) -> SelfTest:
        """Link; offline also whether a frame comes back inside of the chip."""
        results = {"Link": 0 if self.media.link_ok() else 1}
        if offline:
            with self.paused():
                results["Loopback"] = self._loopback_test()
        return SelfTest(not any(results.values()), offline, results)

    def _loopback_test(self) -> int:
        """0 or -EAGAIN; the chip is stopped, and is so again."""
        frame = self.netdev.dev_addr * 2 + _LOOP_FRAME
        try:
            self.start()
            self.csr.write(CSR0(STOP=1))
            self.csr.modify(CSR15, LOOP=1, INTL=1)
            if self.chip.mii:
                self.bcr.modify(BCR32, MIIILP=1)
            self.csr.write(CSR0(STRT=1))
            self.transmitter.ring.put(frame, BLANK)
            self.transmitter.ring.publish()
            self.csr.write(CSR0(TDMD=1))
            return 0 if self._came_back(frame) else -errno.EAGAIN
        except TimedOut:
            return -errno.ETIMEDOUT
        finally:
            self.csr.write(CSR0(STOP=1))
            if self.chip.mii:
                self.bcr.modify(BCR32, MIIILP=0)

    def _came_back(self, frame: bytes) -> bool:
        ring = self.receiver.ring
        for _ in range(0, _LOOP_LIMIT, _PAUSE):
            msleep(_PAUSE)
            if ring.ready(1):
                return bytes(ring.buffer(0)[: len(frame)]) == frame
        return False

    def set_phys_id(self, state: PhysId) -> int:
        """Blink twice a second, all lights: by their polarity."""
        if state == "active":
            self.bcr.modify(BCR2, LEDPE=1)
            self._lights = [self.bcr.read(LED[i]) for i in range(LED.count)]
            return 2
        for i, light in enumerate(self._lights):
            polarity = light.LEDPOL ^ (state == "on")
            self.bcr.write(LED[i](light.raw, LEDPOL=polarity))
        if state == "inactive":
            self.bcr.modify(BCR2, LEDPE=0)
        return 0
