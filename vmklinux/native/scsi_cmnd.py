"""A SCSI command on its way through a driver in Python (Linux include/scsi/scsi_cmnd.h)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from vmkernel_core.storage.command import Direction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmklinux.native.scsi_device import ScsiDevice


class CmndState(IntEnum):
    """Who has a command."""

    WAITING = 0  # the mid-layer, in its device's queue
    IN_FLIGHT = 1  # the driver
    EXPIRED = 2  # the driver, which is asked to abort it; what it says of it now comes too late
    FAILED = 3  # the error handler
    LOST = 4  # the driver; for everybody else it has ended
    BY_EH = 5  # the driver; it is the error handler's own
    ENDED = 6  # nobody


# A Struct, since one is made for each transfer: a dataclass takes five times as long.
class ScsiCmnd(msgspec.Struct, eq=False):
    """A command, from its submission to its end.

    For the driver: ``tag`` (0 to ``can_queue`` - 1, unique among those that the driver has), ``device``, ``cdb``,
    ``direction``, and ``length`` bytes of data in ``sg``: machine address, as the hardware is told, and length of each
    segment. ``hostdata`` is the driver's own, None whenever it gets the command.

    From the driver, before ``scsi_done``: ``host`` (a HostStatus), ``status`` (a Status), ``residual`` bytes that were
    not transferred, and ``sense`` data where there are any. All are 0 and empty when it gets the command.

    The rest is the mid-layer's: ``timeout`` and times in nanoseconds of CLOCK_MONOTONIC; ``returned``: the driver gave
    it back, though error handling has it.
    """

    device: ScsiDevice
    number: int
    cdb: bytes
    direction: Direction
    sg: Sequence[tuple[int, int]]
    length: int
    timeout: int
    allowed: int
    privileged: bool
    give_up: int
    task: int = 0
    tag: int = -1
    host: int = 0
    status: int = 0
    residual: int = 0
    sense: bytes = b""
    hostdata: Any = None
    state: CmndState = CmndState.WAITING
    deadline: int = 0
    retries: int = 0
    returned: bool = False

    @property
    def result(self) -> int:
        """Host status and status in one number, as Linux's scsi_cmnd has them."""
        return self.host << 16 | self.status

    def __repr__(self) -> str:
        """Tag, device and operation code."""
        return f"<ScsiCmnd {self.tag}: {self.cdb[0]:#04x} for {self.device.name}, {self.state.name}>"
