"""What can go wrong with a command, as exceptions: what the device said (sense data), or how the way to it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core.errors import DeviceGone, NotSupported, TimedOut, VmkError
from vmkernel_core.storage.command import HostStatus, Status

if TYPE_CHECKING:
    from vmkernel_core.storage.command import Completion

#: Sense keys (SPC-4, 4.5.6).
KEYS = (
    "no sense", "recovered error", "not ready", "medium error", "hardware error", "illegal request", "unit attention",
    "data protect", "blank check", "vendor specific", "copy aborted", "aborted command", "reserved",
    "volume overflow", "miscompare", "completed",
)  # fmt: skip
#: Additional sense codes with their qualifiers (SPC-4, annex F): those that disks and RAID controllers give.
CODES = {
    (0x00, 0x00): "no additional sense information",
    (0x03, 0x00): "peripheral device write fault",
    (0x04, 0x00): "logical unit not ready, cause not reportable",
    (0x04, 0x01): "logical unit is in process of becoming ready",
    (0x04, 0x02): "logical unit not ready, initializing command required",
    (0x08, 0x00): "logical unit communication failure",
    (0x0C, 0x00): "write error",
    (0x0C, 0x02): "write error, auto reallocation failed",
    (0x10, 0x00): "ID CRC or ECC error",
    (0x11, 0x00): "unrecovered read error",
    (0x11, 0x04): "unrecovered read error, auto reallocate failed",
    (0x1A, 0x00): "parameter list length error",
    (0x1D, 0x00): "miscompare during verify operation",
    (0x20, 0x00): "invalid command operation code",
    (0x21, 0x00): "logical block address out of range",
    (0x24, 0x00): "invalid field in CDB",
    (0x25, 0x00): "logical unit not supported",
    (0x26, 0x00): "invalid field in parameter list",
    (0x27, 0x00): "write protected",
    (0x27, 0x07): "space allocation failed, write protect",
    (0x28, 0x00): "not ready to ready change, medium may have changed",
    (0x29, 0x00): "power on, reset, or bus device reset occurred",
    (0x29, 0x02): "SCSI bus reset occurred",
    (0x29, 0x03): "bus device reset function occurred",
    (0x2A, 0x01): "mode parameters changed",
    (0x2A, 0x09): "capacity data has changed",
    (0x2F, 0x00): "commands cleared by another initiator",
    (0x3A, 0x00): "medium not present",
    (0x3F, 0x0E): "reported LUNs data has changed",
    (0x44, 0x00): "internal target failure",
    (0x47, 0x00): "SCSI parity error",
    (0x55, 0x01): "system buffer full",
    (0x5D, 0x00): "failure prediction threshold exceeded",
}


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense data in numbers: key, additional sense code and qualifier; ``lba`` the block that it is about, if told."""

    key: int
    asc: int
    ascq: int
    lba: int | None = None

    def __str__(self) -> str:
        """In words."""
        words = CODES.get((self.asc, self.ascq)) or CODES.get((self.asc, 0)) or "no words for this code"
        at = "" if self.lba is None else f" at block {self.lba}"
        return (
            f"{KEYS[self.key]}: {words} (key {self.key:#x}, asc {self.asc:#04x}, ascq {self.ascq:#04x}){at}"
        )

    @classmethod
    def parse(cls, raw: bytes) -> Sense | None:
        """Read sense data in fixed or descriptor format (SPC-4, 4.5.2 and 4.5.3); None for what is neither."""
        format_ = raw[0] & 0x7F if raw else 0
        if format_ in (0x70, 0x71) and len(raw) >= 8:
            codes = raw[12:14] if len(raw) >= 14 else b"\0\0"
            lba = int.from_bytes(raw[3:7], "big") if raw[0] & 0x80 else None
            return cls(raw[2] & 0xF, codes[0], codes[1], lba)
        if format_ in (0x72, 0x73) and len(raw) >= 8:
            return cls(raw[1] & 0xF, raw[2], raw[3], _information(raw[8 : 8 + raw[7]]))
        return None


def _information(descriptors: bytes) -> int | None:
    """The information descriptor's value, where it is valid."""
    while len(descriptors) >= 2:
        kind, length = descriptors[0], descriptors[1] + 2
        if kind == 0 and length == 12 and len(descriptors) >= 12 and descriptors[2] & 0x80:
            return int.from_bytes(descriptors[4:12], "big")
        descriptors = descriptors[length:]
    return None


class ScsiError(VmkError):
    """A command failed: ``completion`` says how; ``sense`` what the device said, if it said anything."""

    def __init__(self, what: str, completion: Completion, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.completion = completion
        self.sense = Sense.parse(completion.sense)


class MediumError(ScsiError):
    """Blocks cannot be read or written: the medium is damaged there."""


class IllegalRequest(ScsiError, NotSupported):
    """The device does not know the command, or a field of it."""


class NotReady(ScsiError):
    """The device cannot be used yet, or has no medium."""


class WriteProtected(ScsiError):
    """The device takes no writes."""


class NoSpace(ScsiError):
    """There is no room for what was to be written: the device promised more blocks than it has."""


class CommandTimedOut(ScsiError, TimedOut):
    """The device did not answer in time, and error handling could not bring the command to an end either."""


class PathLost(ScsiError, DeviceGone):
    """There is no way to the device any more (its adapter, or its driver, has gone), or there was none for a while.

    The command may have been done.
    """


#: Sense keys to the exceptions that they become.
BY_KEY: dict[int, type[ScsiError]] = {
    0x2: NotReady,
    0x3: MediumError,
    0x5: IllegalRequest,
    0x7: WriteProtected,
}
#: Additional sense codes, with their qualifiers, that say more than their key.
BY_CODE: dict[tuple[int, int], type[ScsiError]] = {(0x27, 0x07): NoSpace}
#: Host statuses to the exceptions that they become.
BY_HOST: dict[int, type[ScsiError]] = {
    HostStatus.NO_CONNECT: PathLost, HostStatus.BAD_TARGET: PathLost, HostStatus.TIME_OUT: CommandTimedOut,
    HostStatus.TRANSPORT_FAILFAST: PathLost, HostStatus.TRANSPORT_DISRUPTED: PathLost,
    HostStatus.MEDIUM_ERROR: MediumError,
}  # fmt: skip


def error_for(completion: Completion, what: str, where: str) -> ScsiError:
    """The exception for a command that was not good; ``what`` it was to do, and on which device."""
    sense = Sense.parse(completion.sense)
    # Sense data says more than that the driver saw an error of some kind; Linux looks at it first, too.
    if completion.host not in (HostStatus.OK, HostStatus.ERROR) or (completion.host and sense is None):
        try:
            word = HostStatus(completion.host).name.lower().replace("_", " ")
        except ValueError:
            word = f"host status {completion.host:#x}"
        kind = BY_HOST.get(completion.host, ScsiError)
        return kind(f"{what} failed: {word}", completion, where=where)
    if sense is not None:
        kind = BY_CODE.get((sense.asc, sense.ascq)) or BY_KEY.get(sense.key, ScsiError)
        return kind(f"{what} failed: {sense}", completion, where=where)
    try:
        word = Status(completion.status).name.lower().replace("_", " ")
    except ValueError:
        word = f"status {completion.status:#x}"
    return ScsiError(f"{what} failed: {word}", completion, where=where)
