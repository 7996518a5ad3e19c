"""The firmware's events: a direct command waits for the next one, for as long as that takes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from native_drivers.scsi.megaraid_sas.firmware import MfiError
from native_drivers.scsi.megaraid_sas.frames import (
    CRITICAL,
    DEBUG,
    EVENTS,
    INFO,
    PROGRESS,
    WARNING,
    Dcmd,
    EventDetail,
    EventLogState,
)
from native_drivers.scsi.megaraid_sas.raid import text
from vmkernel_core.errors import DeviceGone, VmkError
from vmklinux.native.scsi_scan import scsi_rescan_device
from vmklinux.native.workqueue import Workqueue

if TYPE_CHECKING:
    from native_drivers.scsi.megaraid_sas.driver import MegaraidSas

log = logging.getLogger(__name__)

#: Events after which the drives are looked for, and asked, again (FreeBSD's mfireg.h, MR_EVT_*).
RESCAN = {
    0x0051: "logical drive state changed", 0x005B: "disk inserted", 0x0070: "disk removed",
    0x0072: "disk state changed", 0x008A: "logical drive created", 0x008B: "logical drive deleted",
    0x00DB: "foreign configuration imported", 0x00FC: "logical drive offline", 0x0152: "scan requested",
}  # fmt: skip
_LEVELS = {
    DEBUG: logging.DEBUG, PROGRESS: logging.INFO, INFO: logging.INFO, WARNING: logging.WARNING, CRITICAL: logging.ERROR,
}  # fmt: skip
_NONE = -1
#: Seconds that an abort of the wait has.
_ABORT = 5.0


class Events:
    """Listens to one controller; ``slot`` has the frame of the wait, -1 when there is none; ``next`` is the number of
    the first event that was not told of, 0 before there was one.
    """

    def __init__(self, driver: MegaraidSas) -> None:
        """Not yet."""
        self._driver = driver
        self._work = Workqueue(driver.pdev)
        self.slot, self.next = _NONE, 0
        self._ended = False

    def listen(self) -> None:
        """Wait for events: at first from now on, later from where it was left. TimedOut, DeviceGone.

        Firmware that tells of none is none the worse for it: ``rescan`` finds what came or went.
        """
        if self.slot != _NONE:
            return
        firmware = self._driver.firmware
        try:
            log_state = EventLogState.at(
                memoryview(firmware.dcmd(Dcmd.CTRL_EVENT_GETINFO, EventLogState.size))
            )
        except MfiError as error:
            log.warning("%s", error)
            return
        newest = log_state.newest + 1
        self._wait(min(self.next or newest, newest))

    def _wait(self, number: int) -> None:
        mbox = number.to_bytes(4, "little") + EVENTS.to_bytes(4, "little")
        self.next, self._ended = number, False
        self.slot = self._driver.firmware.start_dcmd(Dcmd.CTRL_EVENT_WAIT, EventDetail.size, mbox)

    def answered(self, slot: int) -> None:
        """A reply is for a command of the driver's own; in the interrupt."""
        if slot == self.slot:
            self._ended = True
            self._work.schedule_work(self._came)

    def look(self) -> None:
        """Look for the drives soon, though nothing was told of them."""
        self._work.schedule_work(self._rescan)

    def forget(self) -> None:
        """The firmware is reset, and forgets the wait."""
        self.slot, self._ended = _NONE, False

    def stop(self) -> None:
        """No events any more."""
        slot, self.slot, firmware = self.slot, _NONE, self._driver.firmware
        if slot == _NONE or self._driver.pdev.gone:
            return
        if self._ended:
            firmware.finish(slot)
            return
        firmware.give_up(slot)
        try:
            firmware.abort(slot, timeout=_ABORT)
        except VmkError as error:  # it goes with the reset that follows
            log.debug("%s: %s", self._driver.pdev.name, error)

    def _came(self) -> None:
        firmware, slot = self._driver.firmware, self.slot
        if slot == _NONE or not self._ended:  # a reset came between
            return
        self.slot = _NONE
        event = EventDetail.at(memoryview(bytes(firmware.data(slot)[: EventDetail.size])))
        if firmware.finish(slot):
            return  # aborted, or it is not known
        level = _LEVELS.get(event.evt_class, logging.CRITICAL)
        log.log(level, "%s: event %#x: %s", self._driver.pdev.name, event.code, text(event.description))
        try:
            self._wait((event.seq + 1) & 0xFFFF_FFFF)
            if event.evt_class == PROGRESS:
                self._driver.scan_start()
        except DeviceGone:
            raise
        except VmkError as error:  # whatever reset comes between listens again
            log.warning("%s: %s", self._driver.pdev.name, error)
        if event.code in RESCAN:
            self._rescan()

    def _rescan(self) -> None:
        """Take away drives that went, find those that came, and ask all: their state may be another one."""
        host = self._driver.host
        try:
            host.rescan()
            for device in host.devices:
                scsi_rescan_device(device)
        except DeviceGone:
            raise
        except VmkError as error:  # the firmware is reset, or the host goes
            log.warning("%s: %s", self._driver.pdev.name, error)
