"""A logical unit of a host in Python: what it is, its state, its limits (Linux drivers/scsi/scsi.c, scsi_device.h).

The queue of its commands is in scsi_lib.py, the cutting of their data in scsi_sg.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmkernel_core.errors import UsageError
from vmkernel_core.storage.buffer import Buffer
from vmkernel_core.storage.command import Command, Direction
from vmkernel_core.storage.errors import Sense
from vmklinux.native.device import baton
from vmklinux.native.scsi import scsi_hosts
from vmklinux.native.scsi_lib import RequestQueue
from vmklinux.native.scsi_sg import SgLimits
from vmklinux.scsi_common import INQUIRY, INQUIRY_TIMEOUT
from vmklinux.scsi_policy import DEVICE_STATES, TRANSITIONS, SdevState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmkernel_core.storage.adapter import StorageStats
    from vmkernel_core.storage.command import Completion
    from vmkernel_core.storage.device import DeviceState
    from vmkernel_core.storage.sg_array import SgArray
    from vmklinux.native.scsi_host import ScsiHost

_UNIT_ATTENTION = 6


class Place(NamedTuple):
    """Where a device is on its host."""

    channel: int
    id: int
    lun: int


class ScsiDevice:
    """A logical unit (DeviceDriver): ``channel``, ``id`` and ``lun`` on its ``host``.

    For ``slave_configure``: ``set_queue_depth``; ``max_sectors`` of 512 bytes in a command; ``vendor``, ``model``,
    ``revision`` and ``type`` (the peripheral device type) as INQUIRY told them; ``skip_vpd_pages`` of a device that does
    not take it well to be asked for them; ``allow_restart``: it may be started when it says that it waits for that;
    ``retry_hwerror``: its hardware errors are worth another try. ``hostdata`` is the driver's own.
    """

    def __init__(self, host: ScsiHost, channel: int, id: int, lun: int) -> None:
        """The scan makes it; nobody has asked it anything yet."""
        self.host = host
        self.memory = host.memory
        self.channel, self.id, self.lun = channel, id, lun
        self.name = f"{host.number}:{channel}:{id}:{lun}"
        self.hostdata: Any = None
        self.sdev_state: SdevState = "CREATED"
        self.type, self.scsi_level, self.removable = 0x1F, 0, False
        self.vendor = self.model = self.revision = ""
        self.max_sectors = host.max_sectors
        self.allow_restart = self.retry_hwerror = self.skip_vpd_pages = self.lun_in_cdb = False
        self.expecting_cc_ua = False
        self.visible = False
        self.block_size = 512
        self.vpd_pages: dict[int, bytes] = {}
        self._inquiry = b""
        self.limits = SgLimits(host)
        self.queue = RequestQueue(self, host.cmd_per_lun)

    def __repr__(self) -> str:
        """Address and what it is."""
        return f"<ScsiDevice {self.name}: {self.vendor} {self.model}, {self.sdev_state}>"

    # ---- what it is (DeviceDriver) ----

    @property
    def max_transfer(self) -> int:
        """Bytes of one command, in whatever contiguous memory they lie."""
        return self.limits.most(min(self.host.max_sectors, self.max_sectors))

    @property
    def alignment(self) -> int:
        """Pieces of data begin and end at multiples of it."""
        return self.host.dma_alignment + 1

    def fits(self, buffer: SgArray, offset: int, length: int) -> int:
        """How many bytes of that part of a buffer one command can carry."""
        return self.limits.fits(buffer, offset, length)

    def inquiry(self) -> bytes:
        """What the scan read."""
        return self._inquiry

    def set_inquiry(self, data: bytes) -> None:
        """For the scan."""
        self._inquiry = data
        self.type, self.removable = data[0] & 0x1F, bool(data[1] & 0x80)
        self.vendor, self.model, self.revision = (
            data[start:end].decode("ascii", "replace").strip(" \0")
            for start, end in ((8, 16), (16, 32), (32, 36))
        )

    def vpd(self, page: int) -> bytes:
        """What the scan read, else the device's answer now."""
        if page in self.vpd_pages:
            return self.vpd_pages[page]
        supported = self.vpd_pages.get(0)
        if self.skip_vpd_pages or (supported is not None and page not in supported[4:]):
            return b""
        return self.read_vpd(page)

    def read_vpd(self, page: int, length: int = 255) -> bytes:
        """A page of vital product data (SPC-4, 7.8), with its header; b"" when the device has none."""
        cdb = bytes([INQUIRY, 1, page, length >> 8, length & 0xFF, 0])
        completion, data = self.read(cdb, length, INQUIRY_TIMEOUT)
        if completion.host or completion.status or len(data) < 4 or data[1] != page:
            return b""
        return data[: 4 + int.from_bytes(data[2:4], "big")]

    def address(self) -> Place:
        """Channel, target and LUN."""
        return Place(self.channel, self.id, self.lun)

    def configured(self, block_size: int) -> None:
        """Its block size is known."""
        self.block_size = block_size

    # ---- how it is (DeviceDriver) ----

    def state(self) -> DeviceState:
        """How the way to it is."""
        return "dead" if self.queue.ended or self.host.ended else DEVICE_STATES.get(self.sdev_state, "dead")

    def set_online(self, on: bool) -> None:
        """Take it offline, or bring it back."""
        with baton():
            scsi_device_set_state(self, "RUNNING" if on else "OFFLINE")

    def queue_depth(self) -> int:
        """Commands that the driver is given at once."""
        return self.queue.depth

    def set_queue_depth(self, depth: int) -> int:
        """Set it, to what the host takes at most; what it is then."""
        self.queue.depth = max(1, min(depth, self.host.can_queue))
        return self.queue.depth

    def stats(self) -> StorageStats:
        """Counters."""
        return self.queue.stats()

    # ---- commands (DeviceDriver) ----

    def submit(self, commands: Sequence[tuple[int, Command]]) -> int:
        """Send commands with their numbers; how many were taken. DeviceGone, UsageError (one's data does not fit)."""
        return self.queue.submit(commands)

    def execute(self, command: Command) -> Completion:
        """Send one command and wait for its end, with or without the baton. DeviceGone."""
        return self.queue.execute(command)

    def reap(self, most: int) -> list[tuple[int, Completion]]:
        """Fetch the numbers of commands that ended, and how."""
        return self.queue.reap(most)

    def wait(self, timeout: float) -> bool:
        """Wait until there is something to reap; whether there is."""
        return self.queue.wait(timeout)

    def read(self, cdb: bytes, length: int, timeout: float, *, retries: int = 3) -> tuple[Completion, bytes]:
        """Send a command of the mid-layer's own that fetches data, again while a unit attention ends it. DeviceGone."""
        with Buffer(self.memory, length) as buffer:
            buffer.view[:] = bytes(length)
            command = Command(
                cdb,
                Direction.FROM_DEVICE,
                buffer,
                0,
                length,
                timeout=timeout,
                retries=retries,
                privileged=True,
            )
            for _ in range(retries + 1):
                completion = self.execute(command)
                sense = Sense.parse(completion.sense)
                if sense is None or sense.key != _UNIT_ATTENTION:
                    break
            return completion, bytes(buffer.view[: length - completion.residual])


def scsi_device_set_state(device: ScsiDevice, state: SdevState) -> None:
    """Bring a device into another state; UsageError when it cannot go there from its own. With the baton."""
    if device.sdev_state == state:
        return
    if state not in TRANSITIONS[device.sdev_state]:
        raise UsageError(f"a device that is {device.sdev_state} cannot be {state}", where=device.name)
    device.sdev_state = state
    device.host.run()
    scsi_hosts.on_device_state(device)
