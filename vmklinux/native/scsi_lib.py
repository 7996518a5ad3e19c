"""The queue of a device's commands (Linux drivers/scsi/scsi_lib.c): their way to the driver, and what becomes of them.

A command waits in its device's queue until device, host and a tag have room; it is the driver's then. What came back
is judged (by scsi_error.c, which judges for Linux's drivers too): it is done with, or sent again, or is for error
handling. What ended waits for ``reap``.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone
from vmkernel_core.storage.adapter import StorageStats
from vmkernel_core.storage.command import Completion, Direction, HostStatus, Status
from vmklinux.native.device import baton
from vmklinux.native.scsi_cmnd import CmndState, ScsiCmnd
from vmklinux.scsi_policy import BLOCK_TRANSFERS, DRAIN, SENSE_SIZE, SdevState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmkernel_core.storage.command import Command
    from vmklinux.native.scsi_device import ScsiDevice

#: States in which a device takes no commands, and those in which they wait.
_REFUSES: frozenset[SdevState] = frozenset(("OFFLINE", "TRANSPORT_OFFLINE", "CANCEL", "DEL"))
_BLOCKED: frozenset[SdevState] = frozenset(("BLOCK", "CREATED_BLOCK"))
#: Commands of one device that may wait; nanoseconds after which a driver that called itself busy is asked again.
QUEUE_MOST, BUSY_DELAY = 8192, 3_000_000
#: Nanoseconds between looks at whether a device that goes has commands left.
DRAIN_LOOK = 10_000_000
#: How most commands end.
_WELL = Completion(0, 0)
_TO_DEVICE = Direction.TO_DEVICE


class RequestQueue:
    """Of one device: ``waiting`` commands; ``busy`` ones, that the driver has, at most ``depth``; and those ``done``.

    ``not_before``: when a driver that called itself busy is asked again, 0 while it is not. ``ended``: the device has
    gone. Everything but submit, execute, reap and wait is done with the baton.
    """

    def __init__(self, device: ScsiDevice, depth: int) -> None:
        """Nothing waits."""
        self.device, self.host, self.depth = device, device.host, depth
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

    # ---- from programs, and back ----

    def _command(self, number: int, command: Command, now: int) -> ScsiCmnd:
        device, buffer, length, cdb = self.device, command.buffer, command.length, command.cdb
        if device.lun_in_cdb:
            cdb = bytes([cdb[0], cdb[1] & 0x1F | device.lun << 5 & 0xE0]) + cdb[2:]
        timeout = int(command.timeout * 1e9)
        return ScsiCmnd(
            device, number, cdb, command.direction,
            device.limits.segments(buffer, command.offset, length) if buffer is not None and length else (),
            length, timeout, command.retries, command.privileged, now + timeout * (command.retries + 1),
        )  # fmt: skip

    def submit(self, commands: Sequence[tuple[int, Command]]) -> int:
        """Send commands with their numbers; how many were taken. DeviceGone, UsageError (one's data does not fit)."""
        now = lib.vmk_now()
        made = [self._command(number, command, now) for number, command in commands]
        with baton():
            if self.ended:
                raise DeviceGone("the storage device has gone", where=self.device.name)
            room = max(QUEUE_MOST - len(self.waiting), 0)
            self.waiting.extend(made[:room])
            if too_long := [cmnd for cmnd in made[:room] if len(cmnd.cdb) > self.host.max_cmd_len]:
                self._return(too_long)
            self.host.run()
        return min(len(made), room)

    def _return(self, commands: Sequence[ScsiCmnd]) -> None:
        """scsi_dispatch_cmd: those whose CDB the adapter has no room for end at once."""
        for cmnd in commands:
            self.waiting.remove(cmnd)
            _give_up(cmnd, HostStatus.ABORT)
            self.finish(cmnd)
        self.wake()

    def execute(self, command: Command) -> Completion:
        """Send one command and wait for its end, with or without the baton. DeviceGone."""
        cmnd = self._command(0, command, lib.vmk_now())
        with baton():
            if self.ended:
                raise DeviceGone("the storage device has gone", where=self.device.name)
            cmnd.task = lib.vmk_world_task()
            self.waiting.append(cmnd)
            self.host.run()
            while cmnd.state is not CmndState.ENDED and cmnd.state is not CmndState.LOST:
                if lib.vmk_world_ending():
                    raise DeviceGone(
                        "the world that waits for the storage device ends", where=self.device.name
                    )
                lib.vmk_world_sleep(BUSY_DELAY if self.not_before else 100_000_000)
                if self.not_before:
                    self.host.run()
        return _completion(cmnd)

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

    # ---- to the driver ----

    def dispatch(self) -> None:
        """Give the driver what may go."""
        host, waiting = self.host, self.waiting
        while waiting:
            state = self.device.sdev_state
            if self.ended or host.ended or state in _REFUSES:
                self.refuse()
                return
            if state in _BLOCKED or (state == "QUIESCE" and not waiting[0].privileged):
                return
            most = min(len(waiting), self.depth - self.busy, len(host.tags))
            if most <= 0 or host.self_blocked or host.recovers:
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
        self.host.free_tag(cmnd)
        self.busy -= 1
        cmnd.state = CmndState.WAITING

    # ---- ends ----

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

    def refuse(self) -> None:
        """Nobody takes what waits: it ends."""
        waiting = list(self.waiting)
        self.waiting.clear()
        for cmnd in waiting:
            _give_up(cmnd, HostStatus.NO_CONNECT)
            self.finish(cmnd)
        self.wake()

    def abandon(self, cmnd: ScsiCmnd, host: HostStatus = HostStatus.NO_CONNECT) -> None:
        """End a command that the driver has, and may give back never, or late: its tag is free only then."""
        if cmnd.state is CmndState.LOST:
            return
        if cmnd.state is CmndState.FAILED:
            self.host.failed.remove(cmnd)
        _give_up(cmnd, host)
        self.busy -= 1
        if cmnd.returned:
            self.host.free_tag(cmnd)
        cmnd.state = CmndState.ENDED if cmnd.returned else CmndState.LOST
        self._end(cmnd)

    def end(self) -> None:
        """The device goes: what the driver has is waited for, then the rest ends. More commands are not taken."""
        deadline = lib.vmk_now() + int(DRAIN * 1e9)
        while self.busy and not self.host.ended and lib.vmk_now() < deadline and not lib.vmk_world_ending():
            lib.vmk_world_sleep(DRAIN_LOOK)
        self.ended = True
        for cmnd in list(self.host.in_flight.values()):
            if cmnd.device is self.device and cmnd.state is not CmndState.BY_EH:
                self.abandon(cmnd)
        self.refuse()

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
        if self.device.sdev_state in _REFUSES or self.ended:
            return int(lib.LINUX_SCSI_FINISH)
        if cmnd.residual and not cmnd.result and cmnd.cdb[0] in BLOCK_TRANSFERS:
            cmnd.host = HostStatus.SOFT_ERROR  # blocks are missing
        if cmnd.host == HostStatus.OK and cmnd.status == Status.TASK_SET_FULL:
            self._stats["queue_full"] += 1
        verdict: int = lib.linux_scsi_judge_result(cmnd.result, cmnd.cdb[0])
        if cmnd.host == HostStatus.PASSTHROUGH:
            cmnd.host = 0
        return self.by_sense(cmnd) if verdict == lib.LINUX_SCSI_SENSE else verdict

    def by_sense(self, cmnd: ScsiCmnd) -> int:
        """The same of a command that ended with CHECK CONDITION (scsi_check_sense)."""
        device = self.device
        traits = (
            (lib.LINUX_SCSI_EXPECTS_UA if device.expecting_cc_ua else 0)
            | (lib.LINUX_SCSI_ALLOW_RESTART if device.allow_restart else 0)
            | (lib.LINUX_SCSI_RETRY_HWERROR if device.retry_hwerror else 0)
            | (lib.LINUX_SCSI_BY_EH if cmnd.state is CmndState.BY_EH else 0)
        )
        judged: int = lib.linux_scsi_judge_sense(cmnd.sense.ljust(SENSE_SIZE, b"\0"), cmnd.cdb[0], traits)
        if judged & lib.LINUX_SCSI_EXPECTED:
            device.expecting_cc_ua = False
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
        cmnd.sense, cmnd.hostdata, cmnd.state, cmnd.returned = b"", None, CmndState.WAITING, False
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
        cmnd.returned = True
        host.errors.failed(cmnd)


def _give_up(cmnd: ScsiCmnd, host: HostStatus) -> None:
    cmnd.host, cmnd.status, cmnd.residual, cmnd.sense = host, 0, cmnd.length, b""


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
