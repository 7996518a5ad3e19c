"""The firmware's events: a direct command waits for the next one, for as long as that takes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from native_drivers.scsi.megaraid_sas.frames import EVENTS, Dcmd, EventDetail, EventLogState
from native_drivers.scsi.megaraid_sas.raid import text
from vmkernel_core.errors import VmkError
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
_NONE = -1
#: Seconds that an abort of the wait has.
_ABORT = 5.0


class Events:
    """Listens to one controller; ``slot`` has the frame of the wait, -1 when there is none."""

    def __init__(self, driver: MegaraidSas) -> None:
        """Not yet."""
        self._driver = driver
        self._work = Workqueue(driver.pdev)
        self.slot = _NONE

    def listen(self) -> None:
        """Wait for events from now on; what came before is known. MfiError, TimedOut, DeviceGone."""
        firmware = self._driver.firmware
        state = EventLogState.at(memoryview(firmware.dcmd(Dcmd.CTRL_EVENT_GETINFO, EventLogState.size)))
        self._wait(state.newest + 1)

    def _wait(self, number: int) -> None:
        mbox = number.to_bytes(4, "little") + EVENTS.to_bytes(4, "little")
        self.slot = self._driver.firmware.start_dcmd(Dcmd.CTRL_EVENT_WAIT, EventDetail.size, mbox)

    def answered(self, slot: int) -> None:
        """A reply is for a command of the driver's own; in the interrupt."""
        if slot == self.slot:
            self._work.schedule_work(self._came)

    def forget(self) -> None:
        """The firmware was reset, and the wait with it."""
        self.slot = _NONE

    def stop(self) -> None:
        """No events any more."""
        slot, self.slot = self.slot, _NONE
        if slot != _NONE and not self._driver.pdev.gone:
            try:
                self._driver.firmware.abort(slot, timeout=_ABORT)
            except VmkError as error:  # it goes with the reset that follows
                log.debug("%s: %s", self._driver.pdev.name, error)

    def _came(self) -> None:
        firmware, slot = self._driver.firmware, self.slot
        if slot == _NONE:
            return
        self.slot = _NONE
        event = EventDetail.at(memoryview(bytes(firmware.data(slot)[: EventDetail.size])))
        if firmware.finish(slot):
            return  # aborted, or it is not known
        log.info("%s: event %#x: %s", self._driver.pdev.name, event.code, text(event.description))
        self._wait(event.seq + 1)
        if event.code in RESCAN:
            self._driver.host.rescan()
            for device in self._driver.host.devices:
                scsi_rescan_device(device)
