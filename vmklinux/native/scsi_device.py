"""A logical unit of a host in Python, and the queue of its commands (Linux drivers/scsi/scsi_lib.c, scsi.c).

A command waits in its device's queue until device, host and a tag have room; it is the driver's then. What came back
is judged (by scsi_error.c, which judges for Linux's drivers too): it is done with, or sent again, or is for error
handling. What ended waits for ``reap``.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, UsageError
from vmkernel_core.storage.adapter import StorageStats
from vmkernel_core.storage.buffer import Buffer
from vmkernel_core.storage.command import Command, Completion, Direction, HostStatus, Status
from vmkernel_core.storage.errors import Sense
from vmklinux.native.device import baton
from vmklinux.native.scsi import scsi_hosts
from vmklinux.native.scsi_cmnd import SENSE_SIZE, CmndState, ScsiCmnd
from vmklinux.scsi_common import INQUIRY, INQUIRY_TIMEOUT, TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmkernel_core.storage.device import DeviceState
    from vmkernel_core.storage.sg_array import SgArray
    from vmklinux.native.scsi_host import ScsiHost

#: enum scsi_device_state.
SdevState = Literal[
    "CREATED", "RUNNING", "CANCEL", "DEL", "QUIESCE", "OFFLINE", "TRANSPORT_OFFLINE", "BLOCK", "CREATED_BLOCK"
]
_GONE: frozenset[SdevState] = frozenset(("OFFLINE", "TRANSPORT_OFFLINE", "DEL"))
_STATES: dict[SdevState, DeviceState] = {
    "RUNNING": "active", "QUIESCE": "active", "BLOCK": "blocked", "CREATED_BLOCK": "blocked",
}  # fmt: skip
#: Commands of one device that may wait; nanoseconds after which a driver that called itself busy is asked again.
QUEUE_MOST, BUSY_DELAY = 8192, 3_000_000
#: Seconds that a device which goes waits for commands that the driver has; nanoseconds between looks at it.
DRAIN, DRAIN_LOOK = 60.0, 10_000_000
#: How most commands end.
_WELL = Completion(0, 0)
_TO_DEVICE = Direction.TO_DEVICE
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
        self._depth = host.cmd_per_lun
        limits = ffi.new("struct linux_sg_limits *")
        limits.boundary, limits.alignment = host.dma_boundary, host.dma_alignment
        limits.size, limits.segments = host.max_segment_size, max(host.sg_tablesize, 1)
        self._limits = limits

        self.waiting: deque[ScsiCmnd] = deque()
        self.done: deque[tuple[int, Completion]] = deque()
        #: By thread: its event, and what it attends to until it is not 0.
        self.waiters: dict[int, tuple[int, Any]] = {}
        self.busy = 0
        self.not_before = 0
        self.ended = False
        self._stats = dict.fromkeys(
            ("commands", "bytes_read", "bytes_written", "errors", "retries", "timeouts", "busy", "queue_full",
             "unit_attentions", "in_flight_most"), 0
        )  # fmt: skip

    def __repr__(self) -> str:
        """Address and what it is."""
        return f"<ScsiDevice {self.name}: {self.vendor} {self.model}, {self.sdev_state}>"

    # ---- what it is (DeviceDriver) ----

    @property
    def max_transfer(self) -> int:
        """Bytes of one command, in whatever contiguous memory they lie."""
        segments = max(self.host.sg_tablesize - 1, 1)  # they may begin amid a page
        most = min(self.host.max_sectors, self.max_sectors) * 512
        return max(min(most, segments * self.host.max_segment_size), 4096)

    @property
    def alignment(self) -> int:
        """Pieces of data begin and end at multiples of it."""
        return self.host.dma_alignment + 1

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

    def state(self) -> DeviceState:
        """How the way to it is."""
        return "dead" if self.ended or self.host.ended else _STATES.get(self.sdev_state, "dead")

    def set_online(self, on: bool) -> None:
        """Take it offline, or bring it back."""
        with baton():
            scsi_device_set_state(self, "RUNNING" if on else "OFFLINE")

    def queue_depth(self) -> int:
        """Commands that the driver is given at once."""
        return self._depth

    def set_queue_depth(self, depth: int) -> int:
        """Set it, to what the host takes at most; what it is then."""
        self._depth = max(1, min(depth, self.host.can_queue))
        return self._depth

    def configured(self, block_size: int) -> None:
        """Its block size is known."""
        self.block_size = block_size

    # ---- data ----

    def fits(self, buffer: SgArray, offset: int, length: int) -> int:
        """How many bytes of that part of a buffer one command can carry."""
        return self._cut(buffer, offset, length, ffi.NULL)[1]

    def _cut(self, buffer: SgArray, offset: int, length: int, out: Any) -> tuple[int, int]:
        """Cut data into segments, which are written to ``out``; how many they are, and how many bytes they hold."""
        pieces, fits = ffi.cast("struct vmk_sg_elem *", buffer.pieces), ffi.new("uint32_t *")
        count = lib.linux_sg_cut(self._limits, pieces, buffer.count, offset, length, out, fits)
        return int(count), int(fits[0])

    def _segments(self, buffer: SgArray, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Where a command's data lies; UsageError when it is not in the buffer, or in too many pieces."""
        if buffer.count == 1:
            start = buffer.elements[0][0] + offset
            host = self.host
            if (
                length <= host.max_segment_size
                and offset + length <= buffer.length
                and not start & host.dma_alignment
                and start | host.dma_boundary >= start + length - 1
            ):
                return ((start, length),)
        pieces = ffi.new("struct vmk_sg_elem[]", self._limits.segments)
        count, fits = self._cut(buffer, offset, length, pieces)
        if fits == length:
            return [(piece.address, piece.length) for piece in pieces[0:count]]
        raise UsageError(
            "the data of a command is not in its buffer, or in pieces that the adapter cannot take in one command",
            where=self.name,
            remedy="read and write cut it; limits.transfer holds for contiguous data",
        )

    # ---- commands (DeviceDriver) ----

    def _command(self, number: int, command: Command, now: int) -> ScsiCmnd:
        buffer, length, cdb = command.buffer, command.length, command.cdb
        if self.lun_in_cdb:
            cdb = bytes([cdb[0], cdb[1] & 0x1F | self.lun << 5 & 0xE0]) + cdb[2:]
        timeout = int(command.timeout * 1e9)
        return ScsiCmnd(
            self, number, cdb, command.direction,
            self._segments(buffer, command.offset, length) if buffer is not None and length else (),
            length, timeout, command.retries, command.privileged, now + timeout * (command.retries + 1),
        )  # fmt: skip

    def submit(self, commands: Sequence[tuple[int, Command]]) -> int:
        """Send commands with their numbers; how many were taken. DeviceGone, UsageError (one's data does not fit)."""
        now = lib.vmk_now()
        made = [self._command(number, command, now) for number, command in commands]
        with baton():
            if self.ended:
                raise DeviceGone("the storage device has gone", where=self.name)
            room = max(QUEUE_MOST - len(self.waiting), 0)
            self.waiting.extend(made[:room])
            self.host.run()
        return min(len(made), room)

    def execute(self, command: Command) -> Completion:
        """Send one command and wait for its end, with or without the baton. DeviceGone."""
        cmnd = self._command(0, command, lib.vmk_now())
        with baton():
            if self.ended:
                raise DeviceGone("the storage device has gone", where=self.name)
            cmnd.task = lib.vmk_world_task()
            self.waiting.append(cmnd)
            self.host.run()
            while cmnd.state is not CmndState.ENDED and cmnd.state is not CmndState.LOST:
                if lib.vmk_world_ending():
                    raise DeviceGone("the world that waits for the storage device ends", where=self.name)
                lib.vmk_world_sleep(BUSY_DELAY if self.not_before else 100_000_000)
                if self.not_before:
                    self.host.run()
        return _completion(cmnd)

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

    def reap(self, most: int) -> list[tuple[int, Completion]]:
        """Fetch the numbers of commands that ended, and how."""
        done = self.done
        return [done.popleft() for _ in range(min(most, len(done)))]

    def wait(self, timeout: float) -> bool:
        """Wait until there is something to reap; whether there is."""
        if self.done or timeout <= 0:
            return bool(self.done)
        deadline = lib.vmk_now() + int(timeout * 1e9)
        thread, ended = threading.get_ident(), ffi.new("uint32_t *")
        self.waiters[thread] = lib.vmk_world_event(), ended
        try:
            while not self.done and not self.ended and lib.vmk_now() < deadline:
                ended[0] = 0
                if self.done:  # since it was looked at
                    break
                lib.vmk_attend_until(ended, min(deadline, self.not_before or deadline))
                if self.not_before:
                    with baton():
                        self.host.run()
        finally:
            del self.waiters[thread]
        return bool(self.done)

    def wake(self) -> None:
        """Something ended, or everything: other threads that wait look again."""
        thread = threading.get_ident()
        for waiter, (event, ended) in list(self.waiters.items()):
            ended[0] = 1
            if waiter != thread:
                lib.vmk_event_post(event)

    def stats(self) -> StorageStats:
        """Counters."""
        return StorageStats(**self._stats, in_flight=self.busy)

    def count(self, what: str) -> None:
        """One more of something that the counters know."""
        self._stats[what] += 1

    # ---- from the queue to the driver and back; with the baton ----

    def dispatch(self) -> None:
        """Give the driver what may go."""
        host, waiting = self.host, self.waiting
        while waiting:
            state = self.sdev_state
            if self.ended or host.ended or state in _GONE:
                for cmnd in list(waiting):
                    self._refuse(cmnd)
                waiting.clear()
                self.wake()
                return
            if state in ("BLOCK", "CREATED_BLOCK") or (state == "QUIESCE" and not waiting[0].privileged):
                return
            most = min(len(waiting), self._depth - self.busy, len(host.tags))
            if most <= 0 or host.self_blocked or host.host_state == "RECOVERY":
                return
            now = lib.vmk_now()
            if self.not_before and host.in_flight and now < self.not_before:
                return
            self.not_before = 0
            batch = [self._take(now) for _ in range(most if state != "QUIESCE" else 1)]
            self._stats["in_flight_most"] = max(self._stats["in_flight_most"], self.busy)
            taken = host.queue(batch)
            if taken < len(batch):
                self._put_back(batch[taken:])
                return

    def _take(self, now: int) -> ScsiCmnd:
        cmnd, host = self.waiting.popleft(), self.host
        tag = host.tags.pop()
        cmnd.tag = tag
        cmnd.state = CmndState.IN_FLIGHT
        cmnd.deadline = now + cmnd.timeout
        host.in_flight[tag] = cmnd
        self.busy += 1
        return cmnd

    def _put_back(self, commands: Sequence[ScsiCmnd]) -> None:
        """The driver is busy."""
        for cmnd in reversed(commands):
            if cmnd.state is CmndState.IN_FLIGHT:
                self.leave(cmnd)
                self.waiting.appendleft(cmnd)
        self.not_before = lib.vmk_now() + BUSY_DELAY
        self._stats["busy"] += 1

    def leave(self, cmnd: ScsiCmnd) -> None:
        """A command is the driver's no longer."""
        del self.host.in_flight[cmnd.tag]
        self.host.tags.append(cmnd.tag)
        self.busy -= 1
        cmnd.state = CmndState.WAITING

    def finish(self, cmnd: ScsiCmnd) -> None:
        """The end of a command that its driver has no more: it waits to be reaped."""
        cmnd.state = CmndState.ENDED
        self._end(cmnd)

    def _end(self, cmnd: ScsiCmnd) -> None:
        completion, stats = _completion(cmnd), self._stats
        stats["commands"] += 1
        if completion is _WELL:
            stats["bytes_written" if cmnd.direction == _TO_DEVICE else "bytes_read"] += cmnd.length
        else:
            self._count_end(cmnd, completion)
        if cmnd.task:
            lib.vmk_world_wake(cmnd.task)
        else:
            self.done.append((cmnd.number, completion))

    def _count_end(self, cmnd: ScsiCmnd, completion: Completion) -> None:
        stats = self._stats
        stats["retries"] += cmnd.retries
        if completion.good:
            way = "bytes_written" if cmnd.direction == _TO_DEVICE else "bytes_read"
            stats[way] += cmnd.length - completion.residual
        else:
            stats["errors"] += 1

    def _refuse(self, cmnd: ScsiCmnd) -> None:
        cmnd.host, cmnd.status, cmnd.residual, cmnd.sense = HostStatus.NO_CONNECT, 0, cmnd.length, b""
        self.finish(cmnd)

    def abandon(self, cmnd: ScsiCmnd) -> None:
        """End a command that the driver has, and may give back never, or late."""
        if cmnd.state is CmndState.LOST:
            return
        cmnd.host, cmnd.status, cmnd.residual, cmnd.sense = HostStatus.NO_CONNECT, 0, cmnd.length, b""
        cmnd.state = CmndState.LOST
        self.busy -= 1
        self._end(cmnd)

    def end(self) -> None:
        """The device goes: what the driver has is waited for, then the rest ends. More commands are not taken."""
        deadline = lib.vmk_now() + int(DRAIN * 1e9)
        while self.busy and not self.host.ended and lib.vmk_now() < deadline and not lib.vmk_world_ending():
            lib.vmk_world_sleep(DRAIN_LOOK)
        self.ended = True
        for cmnd in list(self.host.in_flight.values()):
            if cmnd.device is self:
                self.abandon(cmnd)
        self.dispatch()
        self.wake()

    # ---- what came back ----

    def judge(self, cmnd: ScsiCmnd) -> None:
        """What becomes of a command that did not simply end well; its driver has it no more."""
        cmnd.state = CmndState.WAITING
        verdict = self.disposition(cmnd)
        if verdict == lib.LINUX_SCSI_FAIL:
            self._to_error_handler(cmnd)
        elif verdict == lib.LINUX_SCSI_FINISH or not self.again(
            cmnd, counted=verdict == lib.LINUX_SCSI_RETRY, later=verdict == lib.LINUX_SCSI_REQUEUE
        ):
            self.finish(cmnd)

    def disposition(self, cmnd: ScsiCmnd) -> int:
        """scsi_decide_disposition: what becomes of it, by its result and sense data: a verdict of LINUX_SCSI_*."""
        if self.sdev_state in _GONE or self.ended:
            return int(lib.LINUX_SCSI_FINISH)
        if cmnd.host == HostStatus.OK and cmnd.status == Status.TASK_SET_FULL:
            self._stats["queue_full"] += 1
        verdict: int = lib.linux_scsi_judge_result(cmnd.result, cmnd.cdb[0])
        if cmnd.host == HostStatus.PASSTHROUGH:
            cmnd.host = 0
        return self.by_sense(cmnd) if verdict == lib.LINUX_SCSI_SENSE else verdict

    def by_sense(self, cmnd: ScsiCmnd) -> int:
        """The same of a command that ended with CHECK CONDITION (scsi_check_sense)."""
        traits = (
            (lib.LINUX_SCSI_EXPECTS_UA if self.expecting_cc_ua else 0)
            | (lib.LINUX_SCSI_ALLOW_RESTART if self.allow_restart else 0)
            | (lib.LINUX_SCSI_RETRY_HWERROR if self.retry_hwerror else 0)
            | (lib.LINUX_SCSI_BY_EH if cmnd.state is CmndState.BY_EH else 0)
        )
        judged: int = lib.linux_scsi_judge_sense(cmnd.sense.ljust(SENSE_SIZE, b"\0"), cmnd.cdb[0], traits)
        if judged & lib.LINUX_SCSI_EXPECTED:
            self.expecting_cc_ua = False
        if judged & lib.LINUX_SCSI_UNASKED:
            self._stats["unit_attentions"] += 1
            if not cmnd.privileged:  # scsi_io_completion: a command of a file system's is sent again
                return int(lib.LINUX_SCSI_RETRY)
        return judged & 0xFF

    def again(self, cmnd: ScsiCmnd, *, counted: bool, later: bool = False) -> bool:
        """Send a command again, before those that wait; False: it has had its tries."""
        now = lib.vmk_now()
        if now > cmnd.give_up:
            return False
        if counted:
            cmnd.retries += 1
            if cmnd.retries > cmnd.allowed:
                cmnd.retries = cmnd.allowed
                return False
        cmnd.host = cmnd.status = cmnd.residual = 0
        cmnd.sense, cmnd.hostdata, cmnd.state = b"", None, CmndState.WAITING
        self.waiting.appendleft(cmnd)
        if later:
            self.not_before = now + BUSY_DELAY
        return True

    def _to_error_handler(self, cmnd: ScsiCmnd) -> None:
        """The driver brought it back, but only error handling can tell what is to become of it."""
        host = self.host
        host.tags.remove(cmnd.tag)
        host.in_flight[cmnd.tag] = cmnd
        self.busy += 1
        host.errors.failed(cmnd)


def _completion(cmnd: ScsiCmnd) -> Completion:
    if not (cmnd.host or cmnd.status or cmnd.residual or cmnd.retries):
        return _WELL
    return Completion(
        cmnd.host, cmnd.status, min(cmnd.residual, cmnd.length), cmnd.retries,
        _told(cmnd.sense) if cmnd.host or cmnd.status else b"",
    )  # fmt: skip


def _told(sense: bytes) -> bytes:
    """Sense data as far as it goes: the drivers that say nothing of its length fill their buffer (SPC-4, 4.5)."""
    return sense[: min(8 + sense[7], SENSE_SIZE)] if len(sense) >= 8 and sense[0] & 0x70 == 0x70 else b""


def scsi_device_set_state(device: ScsiDevice, state: SdevState) -> None:
    """Bring a device into another state; UsageError when it cannot go there from its own. With the baton."""
    if device.sdev_state == state:
        return
    if state not in TRANSITIONS[device.sdev_state]:
        raise UsageError(f"a device that is {device.sdev_state} cannot be {state}", where=device.name)
    device.sdev_state = state
    device.host.run()
    scsi_hosts.on_device_state(device)
