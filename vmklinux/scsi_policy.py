"""What both SCSI mid-layers do alike, as data: states, time limits, and the steps of error handling.

Linux's values (drivers/scsi/scsi_error.c, scsi_lib.c, hosts.c). One mid-layer serves Linux's modules
(``vmklinux/scsi*``), the other drivers in Python (``vmklinux/native/scsi_*``). What results and sense data mean is in
scsi_error.c, for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from vmkernel_core.storage.command import READ_10, READ_16, WRITE_10, WRITE_16, Status

if TYPE_CHECKING:
    from vmkernel_core.storage.device import DeviceState

# ---- states ----

#: enum scsi_device_state.
SdevState: TypeAlias = Literal[
    "CREATED", "RUNNING", "CANCEL", "DEL", "QUIESCE", "OFFLINE", "TRANSPORT_OFFLINE", "BLOCK", "CREATED_BLOCK"
]
#: Which states a device may go to, by the one that it is in (the table in scsi_device_set_state).
TRANSITIONS: dict[SdevState, frozenset[SdevState]] = {
    "CREATED": frozenset(("RUNNING", "OFFLINE", "TRANSPORT_OFFLINE", "CREATED_BLOCK", "CANCEL", "DEL")),
    "RUNNING": frozenset(("CANCEL", "QUIESCE", "OFFLINE", "TRANSPORT_OFFLINE", "BLOCK", "DEL")),
    "CANCEL": frozenset(("DEL",)),
    "QUIESCE": frozenset(("RUNNING", "CANCEL", "OFFLINE", "TRANSPORT_OFFLINE", "BLOCK", "DEL")),
    "OFFLINE": frozenset(("RUNNING", "CANCEL", "TRANSPORT_OFFLINE", "BLOCK", "DEL")),
    "TRANSPORT_OFFLINE": frozenset(("RUNNING", "OFFLINE", "CANCEL", "BLOCK", "DEL")),
    "BLOCK": frozenset(("RUNNING", "OFFLINE", "TRANSPORT_OFFLINE", "CANCEL", "DEL")),
    "CREATED_BLOCK": frozenset(("CREATED", "RUNNING", "OFFLINE", "TRANSPORT_OFFLINE", "CANCEL", "DEL")),
    "DEL": frozenset(),
}
#: What the vmkernel calls the states of a device that does not go, or has gone.
DEVICE_STATES: dict[SdevState, DeviceState] = {
    "RUNNING": "active", "QUIESCE": "active", "BLOCK": "blocked", "CREATED_BLOCK": "blocked",
    "OFFLINE": "dead", "TRANSPORT_OFFLINE": "dead",
}  # fmt: skip
#: The states of a host (enum scsi_host_state), and those in which error handling runs meanwhile.
RECOVERY = {"RUNNING": "RECOVERY", "CANCEL": "CANCEL_RECOVERY", "DEL": "DEL_RECOVERY"}

# ---- limits, in seconds ----

#: That whoever wants to scan a host, or to take a device away, waits for another who does.
SCAN_LIMIT = 120.0
#: That a device which goes waits for commands that the driver has.
DRAIN = 60.0
#: Between looks for commands whose time is up; Linux's block layer rounds to whole seconds.
EXPIRY_PERIOD = 0.5
#: After which an error handler's thread is given up.
HANDLER_LIMIT = 120.0
#: That a device has for a command of the error handler's (SCSI_DEFAULT_EH_TIMEOUT), and to start.
EH_TIMEOUT, START_LIMIT = 10.0, 30.0
#: After a bus or host reset until the devices are asked again, and between tries of a driver that is busy.
SETTLE, STALL = 10.0, 0.1

# ---- error handling ----

#: Bytes of sense data that are kept (SCSI_SENSE_BUFFERSIZE).
SENSE_SIZE = 96
#: Commands of the error handler's own: whether a unit answers, and to start one that waits for that.
TEST_UNIT_READY, START_UNIT = bytes(6), bytes([0x1B, 0, 0, 0, 1, 0])


def request_sense(length: int) -> bytes:
    """REQUEST SENSE for so many bytes in fixed format (SPC-4, 6.39)."""
    return bytes([0x03, 0, 0, 0, length, 0])


#: Of a command of the error handler's own (scsi_eh_completed_normally): whether the unit that gave this status works, or
#: is to be asked again. 0x10, 0x14 and 0x22 are SAM-2's for linked commands, and for commands that were ended.
EH_STATUS: dict[int, bool] = {
    Status.GOOD: True, Status.CONDITION_MET: True, 0x10: True, 0x14: True, 0x22: True,
    Status.BUSY: False, Status.TASK_SET_FULL: False,
}  # fmt: skip


class Reset(NamedTuple):
    """A reset: ``span`` parts of channel, target and LUN are the same for all that it reaches; ``settle`` seconds pass
    until these answer."""

    name: str
    span: int
    settle: float


#: The resets, the smallest first.
RESETS = (
    Reset("device_reset", 3, 0.0),
    Reset("target_reset", 2, 0.0),
    Reset("bus_reset", 1, SETTLE),
    Reset("host_reset", 0, SETTLE),
)

#: Commands of whose data nothing may be missing when they ended well (sd.c's ``underflow``).
BLOCK_TRANSFERS = frozenset((READ_10, READ_16, WRITE_10, WRITE_16))
