"""Whether the units behind a new login are those that were there before.

A target that was set up anew may have another unit at the same LUN. The commands that wait were meant for the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi
from vmkernel_core.storage.command import INQUIRY, Status
from vmkernel_core.storage.naming import device_name
from vmklinux.scsi_common import IDENTIFICATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from native_drivers.scsi.vmkiscsi.tasks import Outcome, Tasks
    from vmklinux.native.scsi_device import ScsiDevice

#: Bytes that are asked for, of the page that names a unit (SPC-4, 7.8.6).
_LENGTH = 255
_ASK = bytes([INQUIRY, 1, IDENTIFICATION, 0, _LENGTH, 0])
#: The number of the first question; those of commands, which are tags, lie below.
_FIRST = 1 << 20


class IdentityCheck:
    """Asks units for their names. ``done``: all have answered; ``strangers`` are those that are not what they were.

    One that had no name when it was found, or that does not answer, is none: its own commands show what it is.
    """

    def __init__(self, tasks: Tasks, devices: Sequence[ScsiDevice]) -> None:
        """Queue the questions."""
        self.strangers: list[ScsiDevice] = []
        self._asked: dict[int, tuple[ScsiDevice, Any]] = {}
        for number, device in enumerate(devices, _FIRST):
            if IDENTIFICATION in device.vpd_pages:
                answer = ffi.new("unsigned char[]", _LENGTH)
                self._asked[number] = device, answer
                place = int(ffi.cast("uintptr_t", answer))
                tasks.issue(number, device.lun, _ASK, [(place, _LENGTH)], _LENGTH, writes=False)

    @property
    def done(self) -> bool:
        """Whether all have answered."""
        return not self._asked

    def take(self, number: int, outcome: Outcome) -> bool:
        """A command has ended; whether it was a question."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        device, answer = asked
        page = bytes(ffi.buffer(answer))[: _LENGTH - outcome.residual]
        # The rest of the page is about the way that leads to it.
        known, told = (device_name(one, b"", b"") for one in (device.vpd_pages[IDENTIFICATION], page))
        if outcome.status == Status.GOOD and told != known:
            self.strangers.append(device)
        return True
