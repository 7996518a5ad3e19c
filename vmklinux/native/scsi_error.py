"""Error handling of SCSI hosts in Python (Linux drivers/scsi/scsi_error.c): time-outs, aborts, resets, in Linux's order.

Each host has a world of its own for it (``scsi_eh_N``). It looks for commands whose time is up, has the driver abort
them, and once every command that the driver still has is a failed one, it resets: device, target, bus, host, until the
devices answer. What was rescued is sent again; devices that never answer are taken offline.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import NotSupported, TimedOut, VmkError
from vmkernel_core.storage.buffer import Buffer
from vmkernel_core.storage.command import Direction, HostStatus, Status
from vmklinux.errors import DriverRefused
from vmklinux.native.device import baton
from vmklinux.native.scsi_cmnd import CmndState, ScsiCmnd
from vmklinux.native.scsi_device import scsi_device_set_state
from vmklinux.native.timer import msleep
from vmklinux.native.wait import WaitQueue, wait_event_timeout
from vmklinux.scsi_policy import (
    EH_STATUS,
    EH_TIMEOUT,
    EXPIRY_PERIOD,
    HANDLER_LIMIT,
    RECOVERY,
    RESETS,
    SENSE_SIZE,
    STALL,
    START_LIMIT,
    START_UNIT,
    TEST_UNIT_READY,
    Reset,
    request_sense,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.scsi_device import ScsiDevice
    from vmklinux.native.scsi_host import ScsiHost

log = logging.getLogger(__name__)

#: Seconds after which a handler's thread, or a reset that somebody asked for, is given up.
LIMIT = HANDLER_LIMIT


class ErrorHandler:
    """The error handler of one host; ``task`` is its world, 0 when it does not run."""

    def __init__(self, host: ScsiHost) -> None:
        """It does not run yet."""
        self.host = host
        self.task = 0
        self.resets = 0
        self._changed = WaitQueue()
        self._stop = False
        self._ended = True
        self._wanted = False
        self._result: bool | VmkError | None = None

    # ---- its world ----

    def start(self) -> None:
        """Begin to look after the host. With the baton."""
        self._stop, self._ended = False, False
        name = f"scsi_eh_{self.host.number}"
        threading.Thread(target=self._run, name=name, daemon=True).start()
        if not wait_event_timeout(self._changed, lambda: bool(self.task), LIMIT):
            raise TimedOut(f"{name} did not start", where=self.host.name)

    def wake(self) -> None:
        """Have it look now."""
        if self.task:
            lib.vmk_world_wake(self.task)

    def cut(self) -> None:
        """The hardware has gone, or the driver: end it now, also inside a function of the driver's. With the baton."""
        self._stop = True
        if self.task:
            lib.vmk_world_end(self.task)
        self._changed.wake_up()

    def stop(self) -> None:
        """End it; a function of the driver's that runs is waited for. With the baton."""
        self._stop = True
        self.wake()
        if lib.vmk_world_task() != self.task and not wait_event_timeout(
            self._changed, lambda: self._ended, LIMIT
        ):
            log.error("%s: SCSI error handling did not end", self.host.name)
            self.cut()

    def _run(self) -> None:
        with baton():
            self.task = lib.vmk_world_task()
            self._changed.wake_up()
            try:
                while not (self._stop or lib.vmk_world_ending()):
                    self._round()
                    if not self._stop and not self._urgent():
                        self._sleep()
            except Exception as error:  # the driver's: nobody else is there to be told
                self.host.fail(error)
            finally:
                self.task, self._ended = 0, True
                self._changed.wake_up()

    def _sleep(self) -> None:
        now = lib.vmk_now()
        retries = [d.queue.not_before for d in self.host.devices if d.queue.not_before]
        lib.vmk_world_sleep(max(1, min([int(EXPIRY_PERIOD * 1e9), *(at - now for at in retries)])))
        if retries:
            self.host.run()

    def _urgent(self) -> bool:
        """Whether error handling is to begin: nothing goes on any more, and something is to be done."""
        host = self.host
        return self._wanted or (host.recovers and host.busy == len(host.failed))

    def _round(self) -> None:
        now, aborts = lib.vmk_now(), True
        for cmnd in list(self.host.in_flight.values()):
            if cmnd.state is CmndState.IN_FLIGHT and now > cmnd.deadline:
                aborts = self._timed_out(cmnd, abort=aborts)
        if self._urgent():
            self._recover()
        elif not (self.host.tags or self.host.busy):
            self._free_tags()

    # ---- time-outs ----

    def _timed_out(self, cmnd: ScsiCmnd, *, abort: bool) -> bool:
        """scmd_eh_abort_handler; whether it was aborted. Not after one was not: aborts may take long to fail."""
        device = cmnd.device
        cmnd.state = CmndState.EXPIRED
        device.queue.count("timeouts")
        log.warning("%s: command %s timed out", device.name, cmnd.cdb.hex(" "))
        aborted = abort and bool(self._ask(lambda: self.host.template.eh_abort(cmnd)))
        if cmnd.state is not CmndState.EXPIRED:
            return False  # the host has ended meanwhile
        cmnd.host, cmnd.status, cmnd.sense = HostStatus.TIME_OUT, 0, b""
        if aborted:
            log.warning("%s: it was aborted", device.name)
            self._release(cmnd)
            self.host.run()
        else:
            self.failed(cmnd)
        return aborted

    def _ask(self, function: Callable[[], bool]) -> bool | None:
        """Whether the driver did it; None when it has no such function."""
        try:
            return function()
        except NotSupported:
            return None
        except VmkError as error:
            log.warning("%s: %s", self.host.name, error)
            return False

    def failed(self, cmnd: ScsiCmnd) -> None:
        """A command that is the driver's still, or came back in doubt, is for the resets (scsi_eh_scmd_add)."""
        host = self.host
        cmnd.state = CmndState.FAILED
        host.failed.append(cmnd)
        self._hold()
        self.wake()

    def _hold(self) -> None:
        """No command goes out until error handling has ended."""
        self.host.host_state = RECOVERY.get(self.host.host_state, self.host.host_state)

    def _release(self, cmnd: ScsiCmnd) -> None:
        """The driver has it no more: it is sent again if its retries leave one, else it ends (scsi_eh_flush_done_q)."""
        if cmnd.state is CmndState.FAILED:
            self.host.failed.remove(cmnd)
        elif cmnd.state is not CmndState.EXPIRED:
            return  # the host has ended
        device, queue = cmnd.device, cmnd.device.queue
        queue.leave(cmnd)
        if device.state() != "dead" and queue.again(cmnd, counted=True):
            return
        if not cmnd.result:
            cmnd.host = HostStatus.TIME_OUT
        cmnd.residual = cmnd.length
        queue.finish(cmnd)
        queue.wake()

    # ---- recovery ----

    def _recover(self) -> None:
        """scsi_unjam_host: sense data, then one reset after the other until every device answers."""
        host = self.host
        self._hold()
        wanted, self._wanted = self._wanted, False
        log.warning("%s: error handling begins, %d commands failed", host.name, len(host.failed))
        if wanted:
            self._result = self._reset_on_demand()
        self._get_sense()
        self._start_units()
        for reset in RESETS:
            # One device of each group: what a reset reaches has as many parts of its address in common.
            for device in {d.address()[: reset.span]: d for d in self._devices()}.values():
                self._reset(reset, device)
        for cmnd in list(host.failed):
            self._offline(cmnd)
        for name, recovery in RECOVERY.items():
            if host.host_state == recovery:
                host.host_state = name
        log.warning("%s: error handling has ended", host.name)
        host.run()
        self._changed.wake_up()

    def _get_sense(self) -> None:
        """scsi_eh_get_sense: ask for the sense data that the driver did not bring."""
        for cmnd in list(self.host.failed):
            if cmnd.host or cmnd.status != Status.CHECK_CONDITION or cmnd.sense:
                continue
            with Buffer(self.host.memory, SENSE_SIZE) as buffer:
                asked = self._send(cmnd, request_sense(SENSE_SIZE), EH_TIMEOUT, buffer)
                if asked is None or asked.result:
                    continue
                cmnd.sense = bytes(buffer.view[: SENSE_SIZE - asked.residual])
            verdict = cmnd.device.queue.by_sense(cmnd)
            if verdict == lib.LINUX_SCSI_FINISH:
                cmnd.retries = cmnd.allowed  # it ends with its sense data
            if verdict in (lib.LINUX_SCSI_FINISH, lib.LINUX_SCSI_RETRY):
                self._release(cmnd)

    def _start_units(self) -> None:
        """scsi_eh_stu: START STOP UNIT for devices that say that they wait for it."""
        for device in self._devices():
            mine = self._failed_of(device)
            judge = device.queue.by_sense
            stopped = next((c for c in mine if c.sense and judge(c) == lib.LINUX_SCSI_FAIL), None)
            if stopped is None or not device.allow_restart:
                continue
            started = self._send(stopped, START_UNIT, START_LIMIT)
            if started is not None and not started.result and self._answers(stopped):
                for cmnd in mine:
                    self._release(cmnd)

    def _devices(self) -> list[ScsiDevice]:
        """Those that failed commands are for."""
        return list(dict.fromkeys(cmnd.device for cmnd in self.host.failed))

    def _failed_of(self, device: ScsiDevice) -> list[ScsiCmnd]:
        return [cmnd for cmnd in self.host.failed if cmnd.device is device]

    def _host_reset(self) -> bool:
        """The driver's; the tags of commands that ended without it, with their device, are free afterwards."""
        host = self.host
        done = host.template.eh_host_reset()
        if done:
            for cmnd in [c for c in host.in_flight.values() if c.state is CmndState.LOST]:
                cmnd.state = CmndState.ENDED
                host.free_tag(cmnd)
        return done

    def _function(self, reset: Reset, device: ScsiDevice) -> Callable[[], bool]:
        template = self.host.template
        functions: dict[str, Callable[[], bool]] = {
            "device_reset": partial(template.eh_device_reset, device),
            "target_reset": partial(template.eh_target_reset, device),
            "bus_reset": partial(template.eh_bus_reset, device),
            "host_reset": self._host_reset,
        }
        return functions[reset.name]

    def _reset(self, reset: Reset, device: ScsiDevice) -> None:
        """One reset; commands of the devices that answer after it are done with."""
        host, what, place = self.host, reset.name.replace("_", " "), device.address()[: reset.span]
        done = self._ask(self._function(reset, device))
        if done is None:
            return
        self.resets += 1
        log.warning(
            "%s: %s: %s", device.name if reset.span else host.name, what, "done" if done else "failed"
        )
        if not done:
            return
        below = [d for d in host.devices if d.address()[: reset.span] == place]
        self._was_reset(below)
        if reset.settle and not host.skip_settle_delay:
            msleep(reset.settle * 1000)
        for each in below:
            mine = self._failed_of(each)
            if mine and self._answers(mine[0]):
                for cmnd in mine:
                    self._release(cmnd)

    def _was_reset(self, devices: list[ScsiDevice]) -> None:
        """What the driver still has of these devices is gone from the hardware; they will tell of the reset."""
        host = self.host
        for device in devices:
            device.expecting_cc_ua = True
        for cmnd in list(host.in_flight.values()):
            if cmnd.device not in devices:
                continue
            if cmnd.state is CmndState.FAILED:
                cmnd.returned = True
            elif cmnd.state is CmndState.IN_FLIGHT:
                cmnd.host = HostStatus.RESET
                cmnd.device.queue.leave(cmnd)
                cmnd.device.queue.judge(cmnd)

    def _offline(self, cmnd: ScsiCmnd) -> None:
        """scsi_eh_offline_sdevs: nothing helped."""
        device = cmnd.device
        if device.state() != "dead":
            log.error("%s: it does not answer after all resets, and is taken offline", device.name)
            scsi_device_set_state(device, "OFFLINE")
        if cmnd.returned:
            self._release(cmnd)
        else:  # the hardware may have it still: nobody else gets its tag
            device.queue.abandon(cmnd, HostStatus.TIME_OUT)
            device.queue.wake()

    def _free_tags(self) -> None:
        """All tags are those of commands that ended without the driver: only a reset can make the host work again."""
        waits = [device for device in self.host.devices if device.queue.waiting]
        if waits and not self._ask(self._host_reset):
            log.error("%s: the hardware keeps all commands, and cannot be reset", self.host.name)
            for device in waits:
                device.queue.refuse()
        self.host.run()

    # ---- commands of its own ----

    def _answers(self, cmnd: ScsiCmnd) -> bool:
        """scsi_eh_tur: whether the device answers TEST UNIT READY, at the second time at the latest."""
        if cmnd.device.state() == "dead":
            return True  # nothing will be sent to it: its commands may end
        for _ in range(2):
            asked = self._send(cmnd, TEST_UNIT_READY, EH_TIMEOUT)
            if asked is None or (asked.host and asked.host != HostStatus.RESET):
                return False
            if asked.host != HostStatus.RESET and (
                EH_STATUS.get(asked.status) or asked.status == Status.RESERVATION_CONFLICT
            ):
                return True
            if asked.sense and asked.device.queue.by_sense(asked) == lib.LINUX_SCSI_FINISH:
                return True
        return True  # it asks to be asked again

    def _send(
        self, failed: ScsiCmnd, cdb: bytes, timeout: float, buffer: Buffer | None = None
    ) -> ScsiCmnd | None:
        """scsi_send_eh_cmnd: send a command to a failed one's device; None when it did not come back."""
        host, device = self.host, failed.device
        own = bool(host.tags)
        cmnd = ScsiCmnd(
            device, 0, cdb, Direction.FROM_DEVICE if buffer else Direction.NONE,
            buffer.elements if buffer else (), buffer.length if buffer else 0, 0, 0, True, 0,
            tag=host.tags.pop() if own else failed.tag, state=CmndState.BY_EH,
        )  # fmt: skip
        if own:
            host.in_flight[cmnd.tag] = cmnd
        came = True
        if not self._taken(cmnd, timeout):
            cmnd.host = HostStatus.TIME_OUT
        elif not wait_event_timeout(
            self._changed, lambda: cmnd.state is CmndState.ENDED or host.ended, timeout
        ):  # scsi_abort_eh_cmnd: the driver has to forget it, whatever that takes
            steps: list[Callable[[], bool]] = [partial(host.template.eh_abort, cmnd)]
            steps += [self._function(reset, device) for reset in RESETS]
            came = any(self._ask(step) for step in steps)
            cmnd.host = HostStatus.TIME_OUT
        if own and came and cmnd.state is not CmndState.LOST:
            host.free_tag(cmnd)
            cmnd.state = CmndState.BY_EH
        elif own:
            cmnd.state = CmndState.LOST
        return None if cmnd.host == HostStatus.TIME_OUT or host.ended else cmnd

    def _taken(self, cmnd: ScsiCmnd, timeout: float) -> bool:
        """Whether the driver, which may be busy, takes it in that time."""
        deadline = lib.vmk_now() + int(timeout * 1e9)
        while not self.host.queue([cmnd]):
            if lib.vmk_now() > deadline or self.host.ended:
                return False
            msleep(STALL * 1000)
        return True

    def back(self, cmnd: ScsiCmnd) -> None:
        """A command of its own came back."""
        cmnd.state = CmndState.ENDED
        self._changed.wake_up()

    # ---- on demand ----

    def reset_host(self) -> None:
        """Reset the host now; commands in flight are sent again. NotSupported, DriverRefused, TimedOut ..."""
        with self.host.parent.calling():
            if self._ended or self._stop:
                raise VmkError(f"{self.host.name} has gone")
            self._wanted, self._result = True, None
            self.wake()
            if not wait_event_timeout(self._changed, lambda: self._result is not None or self._ended, LIMIT):
                raise TimedOut(f"a host reset has not ended after {LIMIT:.0f} s", where=self.host.name)
            if isinstance(self._result, VmkError):
                raise self._result
            if not self._result:
                raise DriverRefused(
                    f"{self.host.driver_name} did not reset its adapter", 5, where=self.host.name
                )

    def _reset_on_demand(self) -> bool | VmkError:
        """scsi_ioctl_reset."""
        try:
            done = self._host_reset()
        except VmkError as error:
            return error
        self.resets += 1
        if done:
            self._was_reset(self.host.devices)
            for cmnd in list(self.host.failed):
                self._release(cmnd)
        return done
