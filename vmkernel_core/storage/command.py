"""SCSI commands on their way to a device, and what comes back of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from vmkernel_core.storage.sg_array import SgArray

#: Operation codes (SPC-4, SBC-3).
INQUIRY, MODE_SENSE_6, READ_CAPACITY_10, UNMAP, REPORT_LUNS = 0x12, 0x1A, 0x25, 0x42, 0xA0
READ_10, WRITE_10, SYNCHRONIZE_CACHE_10 = 0x28, 0x2A, 0x35
READ_16, WRITE_16, SYNCHRONIZE_CACHE_16, WRITE_SAME_16, SERVICE_ACTION_IN_16 = 0x88, 0x8A, 0x91, 0x93, 0x9E
#: Reading and writing: flags, where, (group,) how much, control; and what an operation code that has these does.
TRANSFER_10, TRANSFER_16 = struct.Struct(">BBIBHB"), struct.Struct(">BBQIBB")
_TRANSFERS = {READ_10: "read", READ_16: "read", WRITE_10: "write", WRITE_16: "write"}
_FLUSHES = (SYNCHRONIZE_CACHE_10, SYNCHRONIZE_CACHE_16)

#: Seconds that a device has for a command, and how often it is sent again; what Linux's disk driver uses.
TIMEOUT, RETRIES = 30.0, 5
#: Operation codes of what leaves a disk as it was, or the same when it is done twice (SPC-4, SBC-3). Others are not sent
#: again by themselves: COMPARE AND WRITE that was done already would miscompare, PERSISTENT RESERVE OUT conflict.
REPEATABLE = frozenset({
    0x00, 0x03, INQUIRY, REPORT_LUNS, READ_CAPACITY_10, SERVICE_ACTION_IN_16,  # what it is, and how
    0x15, 0x55, MODE_SENSE_6, 0x5A, 0x4D, 0x5E, 0xA3, 0x1C, 0x37, 0xB7,  # MODE SELECT, and what only asks
    0x1B, 0x1E,  # START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL
    0x08, READ_10, 0xA8, READ_16, 0x2F, 0xAF, 0x8F, 0x34, 0x90,  # READ, VERIFY, PRE-FETCH
    0x0A, WRITE_10, 0xAA, WRITE_16, 0x2E, 0xAE, 0x8E,  # WRITE, WRITE AND VERIFY
    0x41, WRITE_SAME_16, UNMAP, SYNCHRONIZE_CACHE_10, SYNCHRONIZE_CACHE_16,
})  # fmt: skip


class Direction(IntEnum):
    """Which way data goes."""

    TO_DEVICE = 1
    FROM_DEVICE = 2
    NONE = 3


class HostStatus(IntEnum):
    """How the adapter's driver saw a command end; Linux and ESX have the same numbers."""

    OK = 0
    NO_CONNECT = 1
    BUS_BUSY = 2
    TIME_OUT = 3
    BAD_TARGET = 4
    ABORT = 5
    PARITY = 6
    ERROR = 7
    RESET = 8
    BAD_INTERRUPT = 9
    PASSTHROUGH = 10
    SOFT_ERROR = 11
    IMMEDIATE_RETRY = 12
    REQUEUE = 13
    TRANSPORT_DISRUPTED = 14
    TRANSPORT_FAILFAST = 15
    TARGET_FAILURE = 16
    NEXUS_FAILURE = 17
    ALLOCATION_FAILURE = 18
    MEDIUM_ERROR = 19
    TRANSPORT_MARGINAL = 20


class Status(IntEnum):
    """What the device itself answered (SAM-5, 5.3)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


def describe(cdb: bytes) -> str:
    """What a command does, for people: ``read of 8 blocks at 0``, ``flush``, ``command 0x12``."""
    code = cdb[0]
    if word := _TRANSFERS.get(code):
        if code < READ_16:
            _, _, lba, _, count, _ = TRANSFER_10.unpack(cdb)
        else:
            _, _, lba, count, _, _ = TRANSFER_16.unpack(cdb)
        return f"{word} of {count} blocks at {lba}"
    return "flush" if code in _FLUSHES else f"command {code:#04x}"


# A Struct, since one is made for each transfer: a dataclass takes five times as long.
class Command(msgspec.Struct, frozen=True):
    """A command: its CDB of at most 32 bytes, and the part of a buffer (an SgArray of any kind) that its data lies in.

    ``timeout`` in seconds, ``retries`` after the first try. ``privileged``: a unit attention ends it, and a device
    that is being configured takes it.
    """

    cdb: bytes
    direction: Direction = Direction.NONE
    buffer: SgArray | None = None
    offset: int = 0
    length: int = 0
    timeout: float = TIMEOUT
    retries: int = RETRIES
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a command; ``residual`` bytes of its data were not transferred, ``retries`` were needed."""

    host: int
    status: int
    residual: int = 0
    retries: int = 0
    sense: bytes = field(default=b"", repr=False)

    @property
    def good(self) -> bool:
        """Whether it did what it was to do; with sense data of a recovered error too."""
        if not (self.host or self.status):  # most are, and this is asked of each
            return True
        if self.host != HostStatus.OK:
            return False
        return self.status in (Status.GOOD, Status.CONDITION_MET) or (
            self.status == Status.CHECK_CONDITION and self._recovered
        )

    @property
    def _recovered(self) -> bool:
        """Whether the sense data, of this command, tell of an error that the device made good."""
        format_ = self.sense[0] & 0x7F if len(self.sense) >= 8 else 0
        return (format_ == 0x70 and self.sense[2] & 0xF == 1) or (
            format_ == 0x72 and self.sense[1] & 0xF == 1
        )
