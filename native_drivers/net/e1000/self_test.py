"""The self test: registers, EEPROM, interrupt, frames sent to itself, link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000 import loopback
from native_drivers.net.e1000.registers import (
    FCAH,
    FCAL,
    FCRTH,
    FCT,
    FCTTV,
    ICR,
    ICS,
    IMC,
    IMS,
    MTA,
    RAL,
    RDBAH,
    RDBAL,
    RDH,
    RDLEN,
    RDT,
    RDTR,
    STATUS,
    TDBAH,
    TDBAL,
    TDLEN,
    TIPG,
    VET,
    VFTA,
)
from vmkernel_core.net.settings import SelfTest
from vmklinux.native.irq import request_irq
from vmklinux.native.register import RegisterTimeout
from vmklinux.native.timer import msleep
from vmklinux.native.wait import WaitQueue, wait_event_timeout

if TYPE_CHECKING:
    from native_drivers.net.e1000.controls import Controls
    from vmklinux.native.register import Register

#: Registers that keep what is written, and their bits that do (SDM 13.4, 13.5); reception and transmission are off.
_KEPT: tuple[tuple[type[Register], int], ...] = (
    (FCAL, 0xFFFF_FFFF), (FCAH, 0x0000_FFFF), (FCT, 0x0000_FFFF), (VET, 0x0000_FFFF), (FCTTV, 0x0000_FFFF),
    (RDTR, 0x0000_FFFF), (RDBAL, 0xFFFF_FFF0), (RDBAH, 0xFFFF_FFFF), (RDLEN, 0x000F_FF80), (RDH, 0x0000_FFFF),
    (RDT, 0x0000_FFFF), (FCRTH, 0x0000_FFF8), (TIPG, 0x3FFF_FFFF), (TDBAL, 0xFFFF_FFF0), (TDBAH, 0xFFFF_FFFF),
    (TDLEN, 0x000F_FF80), (RAL[0], 0xFFFF_FFFF), (RAL[15], 0xFFFF_FFFF), (MTA[0], 0xFFFF_FFFF), (MTA[127], 0xFFFF_FFFF),
    (VFTA[0], 0xFFFF_FFFF), (VFTA[127], 0xFFFF_FFFF),
)  # fmt: skip
_PATTERNS = (0x5A5A_5A5A, 0xA5A5_A5A5, 0x0000_0000, 0xFFFF_FFFF)
#: Causes that software may set (SDM 13.4.19).
_CAUSES = ("TXDW", "TXQE", "LSC", "RXDMT0", "RXO", "RXT0")
_ALL = (1 << IMC.width) - 1
#: Milliseconds in which an interrupt that is masked does not come; seconds in which one that is not has to, and a link:
#: 802.3's negotiation takes up to 4.
_QUIET, _INTERRUPT_LIMIT, _LINK_LIMIT = 10, 2.0, 5.0
#: How often one that is masked has to come until it counts: a message of before the mask may come late.
_TIMES = 3


class SelfTester:
    """One run of the tests; a number for each, 0 when it found nothing."""

    def __init__(self, driver: Controls) -> None:
        """``run`` does it."""
        self._driver = driver
        self._registers = driver.registers

    def run(self, offline: bool) -> SelfTest:
        """The link's test; ``offline`` all, after which the chip begins anew."""
        results = {"Link test   (on/offline)": self._link()}
        if offline:
            with self._driver.paused():
                results = {
                    "Register test  (offline)": self._kept(),
                    "Eeprom test    (offline)": int(not self._driver.eeprom.checksum_is_good),
                    "Interrupt test (offline)": self._interrupts(),
                    "Loopback test  (offline)": loopback.run(self._driver),  # which resets it
                    **results,
                }
        return SelfTest(not any(results.values()), offline, results)

    def _link(self) -> int:
        """1 when none comes; a chip that is closed tries."""
        running = self._driver.netdev.running
        try:
            if not running:
                self._driver.link.start()
            self._registers.wait(STATUS, _LINK_LIMIT, LU=1)
        except RegisterTimeout:
            return 1
        finally:
            if not running:
                self._driver.link.stop()
        return 0

    def _kept(self) -> int:
        """The offset of the first register that loses bits."""
        for register, mask in _KEPT:
            before = self._registers.load(register)
            for pattern in _PATTERNS:
                self._registers.store(register, pattern & mask)
                if self._registers.load(register) & mask != pattern & mask:
                    return register.offset
            self._registers.store(register, before)
        return 0

    def _interrupts(self) -> int:
        """The causes that interrupted while they were masked, or did not when they were not."""
        registers, seen, queue = self._registers, [0], WaitQueue()

        def interrupt() -> bool:
            causes = registers.load(ICR)
            seen[0] |= causes
            queue.wake_up()
            return bool(causes)

        def comes_masked(mask: int) -> bool:
            seen[0] = 0
            registers.write(ICS(mask))
            msleep(_QUIET)
            registers.load(ICR)
            return bool(seen[0])

        wrong = 0
        registers.load(ICR)
        handler = request_irq(self._driver.pdev, interrupt)
        try:
            for cause in _CAUSES:
                mask = ICR.fields[cause].mask
                registers.write(IMC(_ALL))
                masked = all(comes_masked(mask) for _ in range(_TIMES))
                seen[0] = 0
                registers.write(IMS(mask))
                registers.write(ICS(mask))
                came = wait_event_timeout(queue, lambda: bool(seen[0]), _INTERRUPT_LIMIT)
                if masked or not came:  # that it was this cause, nobody else having been allowed to
                    wrong |= mask
        finally:
            registers.write(IMC(_ALL))
            registers.load(ICR)
            handler.now()
        return wrong
