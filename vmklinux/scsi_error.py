"""Error handling of SCSI hosts (Linux drivers/scsi/scsi_error.c): timeouts, aborts, resets, in Linux's order.

Each host has a world of its own for it (``scsi_eh_N``). It looks for commands whose time is up, has the driver abort
them, and once every command that the driver still has is a failed one, it resets: device, target, bus, host, until the
devices answer (scsi_eh.py). What was rescued is sent again; devices that never answer are taken offline.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import NotSupported, TimedOut, VmkError
from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.api import linux_api
from vmklinux.btf import BtfError
from vmklinux.errors import DriverRefused, DriverStopped, WorldEnded
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_del, list_init
from vmklinux.sched import WaitQueue
from vmklinux.scsi import Scsi
from vmklinux.scsi_eh import (
    FAILED,
    FAST_IO_FAIL,
    SCSI_EH_ABORT_SCHEDULED,
    SUCCESS,
    device_of,
    handler,
    scsi_eh_flush_done_q,
    scsi_eh_get_sense,
    scsi_eh_ready_devs,
)
from vmklinux.scsi_policy import EXPIRY_PERIOD, HANDLER_LIMIT

if TYPE_CHECKING:
    from vmklinux.hosts import Host
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

DID_TIME_OUT = 3
#: Commands that one look finds.
MOST = 4096


class ErrorHandler:
    """The error handler of one host."""

    def __init__(self, host: Host) -> None:
        """It does not run yet."""
        self.host = host
        self.linux: Linux = host.linux
        self.changed = WaitQueue()
        self.resets = 0
        self._task = 0
        self._stop = False
        self._ended = True
        self._reset_wanted = False
        self._reset_result = 0
        self._cmnds = ffi.new("uint64_t[]", MOST)

    # ---- its world ----

    def start(self) -> None:
        """Begin to look after the host. With the baton."""
        self._stop, self._ended = False, False
        name = f"scsi_eh_{self.host.obj.host_no}"
        threading.Thread(target=self._run, name=name, daemon=True).start()
        self.changed.wait_until(lambda: bool(self._task), f"the start of {name}", HANDLER_LIMIT)

    def cut(self) -> None:
        """The hardware has gone: end it now, also inside a handler of the driver's."""
        with self.linux.baton():
            self._stop = True
            if self._task:
                lib.vmk_world_end(self._task)

    @property
    def at_work(self) -> int:
        """Its world while it handles errors, else 0."""
        return self._task if self._task and self.host.recovers else 0

    def wake(self) -> None:
        """Have it look now."""
        if self._task:
            lib.vmk_world_wake(self._task)

    def stop(self) -> None:
        """End it; a handler of the driver's that runs is waited for. With or without the baton."""
        if self._ended:
            return
        with self.linux.baton():
            self._stop = True
            lib.vmk_world_wake(self._task)
            if lib.vmk_world_task() == self._task:
                return
            try:
                self.changed.wait_until(lambda: self._ended, "SCSI error handling", HANDLER_LIMIT)
            except TimedOut as error:
                log.error("%s", error)
                lib.vmk_world_end(self._task)

    def _run(self) -> None:
        lib.vmk_baton_take()
        try:
            self._task = lib.vmk_world_task()
            lib.linux_scsi_host_watch(self.host.handle, self._task)
            self.changed.wake_up()
            while not self._stop:
                self._round()
                if not self._stop and not self._urgent():
                    lib.vmk_world_sleep(int(EXPIRY_PERIOD * 1e9))
                if lib.vmk_world_ending():
                    break
        except (DriverStopped, WorldEnded):
            log.debug(
                "the error handler of host%d was ended", self.host.obj.host_no
            )  # on_stopped has been told
        except Exception:  # an emulated function failed: nobody else is there to be told
            log.exception("SCSI error handling failed")
        finally:
            if self.host.handle != ffi.NULL:
                lib.linux_scsi_host_watch(self.host.handle, 0)
            self._task, self._ended = 0, True
            self.changed.wake_up()
            lib.vmk_baton_drop()

    def _load(self) -> tuple[int, int]:
        busy, failed = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        lib.linux_scsi_host_load(self.host.handle, busy, failed)
        return int(busy[0]), int(failed[0])

    def _urgent(self) -> bool:
        """Whether error handling is to begin: nothing goes on any more, and something is to be done."""
        busy, failed = self._load()
        wanted = failed or self.host.obj.host_eh_scheduled > 0
        return (bool(wanted) and busy == failed) or self._reset_wanted

    def _commands(self, count: int) -> list[Obj]:
        return [self.host.scsi.obj("scsi_cmnd", address) for address in self._cmnds[0:count]]

    def _round(self) -> None:
        for cmnd in self._commands(lib.linux_scsi_expired(self.host.handle, self._cmnds, MOST)):
            self._timed_out(cmnd)
        if self._urgent():
            self._recover()

    # ---- timeouts ----

    def _timed_out(self, cmnd: Obj) -> None:
        """scsi_timeout and scmd_eh_abort_handler."""
        if (verdict := handler(self.host, "eh_timed_out", cmnd)) is not None:
            if verdict == self._verdict("RESET_TIMER"):
                lib.linux_scsi_prolong(int(cmnd))
                return
            if verdict == self._verdict("DONE") and self._verdict("NOT_HANDLED") is not None:
                return  # the driver has seen to it
        how = lib.linux_scsi_expire(int(cmnd))
        if not how:
            return
        where = device_of(self.linux, cmnd)
        if how == lib.LINUX_SCSI_TIMED_OUT:
            cdb = load_bytes(addressof(cmnd, "cmnd"), cmnd.cmd_len)
            log.warning("%s: command %s timed out", where, cdb.hex(" "))
        if self.host.obj.hostt.eh_abort_handler:
            cmnd.eh_eflags |= SCSI_EH_ABORT_SCHEDULED
        result = handler(self.host, "eh_abort_handler", cmnd)
        set_host_byte(cmnd, DID_TIME_OUT)
        if result in (SUCCESS, FAST_IO_FAIL):
            log.warning("%s: it was aborted", where)
            if result == FAST_IO_FAIL:
                cmnd.retries = cmnd.allowed  # it is not sent again
            lib.linux_scsi_release(int(cmnd))
            lib.linux_scsi_run(self.host.handle)
        else:
            lib.linux_scsi_fail(int(cmnd))

    def _verdict(self, name: str) -> int | None:
        """What eh_timed_out may return, under the name that this kernel has for it."""
        for prefix in ("SCSI_EH", "BLK_EH"):
            try:
                return self.host.scsi.enum(f"{prefix}_{name}")
            except BtfError:
                continue
        return None

    # ---- recovery ----

    def _recover(self) -> None:
        """scsi_error_handler's one round: unjam the host, then let commands flow again."""
        host, shost = self.host, self.host.obj
        host.recover()
        wanted, self._reset_wanted = self._reset_wanted, False
        # Drivers with an error handler of their own (libata) log themselves: they also look for devices in it.
        own = bool(shost.transportt.eh_strategy_handler)
        level = logging.DEBUG if own and not wanted else logging.WARNING
        log.log(level, "host%d: error handling begins, %d commands failed", shost.host_no, shost.host_failed)
        if wanted:
            self._reset_result = self._reset_on_demand()
        if own:
            self._leave_to_driver()
        else:
            self._unjam()
            shost.host_eh_scheduled = 0
        host.recovered()
        log.log(level, "host%d: error handling has ended", shost.host_no)
        lib.linux_scsi_run(host.handle)
        self.changed.wake_up()

    def _leave_to_driver(self) -> None:
        """The driver has an error handler of its own (libata, libsas), which empties eh_cmd_q."""
        self.linux.call(self.host.obj.transportt.eh_strategy_handler, self.host.obj, owner=self.host.owner)
        left = lib.linux_scsi_failed(self.host.handle, self._cmnds, MOST)
        for cmnd in self._commands(left):  # none, as the rules are: Linux would wait for them for ever
            log.error("%s: the driver's error handler has left a command", device_of(self.linux, cmnd))
            list_del(self.linux, addressof(cmnd, "eh_entry"))
            lib.linux_scsi_release(int(cmnd))

    def _unjam(self) -> None:
        """scsi_unjam_host: sense data, then one reset after the other until every device answers."""
        linux, shost = self.linux, self.host.obj
        work, done = shost.eh_cmd_q, linux.new("list_head")
        list_init(linux, int(done))
        if not scsi_eh_get_sense(linux, work, done):
            scsi_eh_ready_devs(linux, shost, work, done)
        scsi_eh_flush_done_q(linux, done)
        linux.free(done)

    # ---- on demand ----

    def reset_host(self) -> None:
        """Reset the host now; commands in flight are sent again. NotSupported, DriverRefused, TimedOut."""
        if not self.host.obj.hostt.eh_host_reset_handler:
            raise NotSupported(f"{self.host.driver_name} cannot be told to reset its adapter")
        with self.linux.baton():
            if self._ended:
                raise VmkError(f"host{self.host.obj.host_no} has gone")
            self._reset_wanted, self._reset_result = True, 0
            lib.vmk_world_wake(self._task)
            self.changed.wait_until(
                lambda: bool(self._reset_result) or self._ended, "a host reset", HANDLER_LIMIT
            )
            if self._reset_result != SUCCESS:
                raise DriverRefused(
                    f"{self.host.driver_name} did not reset its adapter",
                    5,
                    where=f"host{self.host.obj.host_no}",
                )

    def _reset_on_demand(self) -> int:
        """scsi_ioctl_reset: the handler is given a command that was never sent."""
        host, types = self.host, self.host.scsi.types
        if not host.devices:
            return FAILED
        before = types.sizeof("request")
        size = before + types.sizeof("scsi_cmnd") + host.obj.hostt.cmd_size
        memory = self.linux.allocate(size)
        try:
            cmnd = host.scsi.obj("scsi_cmnd", memory + before)
            cmnd.device = next(iter(host.devices.values())).obj
            Obj(self.linux.types, "request", memory).tag = -1
            self.resets += 1
            return handler(host, "eh_host_reset_handler", cmnd) or FAILED
        finally:
            self.linux.free(memory)


def set_host_byte(cmnd: Obj, value: int) -> None:
    """Put the host's part into a command's result."""
    cmnd.result = (cmnd.result & ~0xFF0000) | value << 16


@linux_api()
def scsi_schedule_eh(linux: Linux, shost: Obj) -> None:
    """Have error handling run although no command failed, once those in flight have ended."""
    host = linux.state(Scsi).host(shost)
    if host is not None and host.recover():
        shost.host_eh_scheduled += 1
        host.errors.wake()


@linux_api()
def scsi_report_bus_reset(linux: Linux, shost: Obj, channel: int) -> None:
    """The driver reset a bus by itself: its devices will tell of it by a unit attention."""
    host = linux.state(Scsi).host(shost)
    for device in host.devices.values() if host else ():
        if device.obj.channel == channel:
            device.obj.was_reset = device.obj.expecting_cc_ua = 1


@linux_api()
def scsi_report_device_reset(linux: Linux, shost: Obj, channel: int, target: int) -> None:
    """The driver reset a target by itself."""
    host = linux.state(Scsi).host(shost)
    for device in host.devices.values() if host else ():
        if device.address[:2] == (channel, target):
            device.obj.was_reset = device.obj.expecting_cc_ua = 1


@linux_api()
def scsi_build_sense(linux: Linux, scmd: Obj, desc: int, key: int, asc: int, ascq: int) -> None:
    """Give a command sense data of the driver's own, and the status that goes with it."""
    sense = (
        bytes([0x72, key, asc, ascq, 0, 0, 0, 0])
        if desc
        else bytes([0x70, 0, key, *bytes(4), 10, *bytes(4), asc, ascq, *bytes(4)])
    )
    store_bytes(scmd.sense_buffer, sense)
    scmd.result = 2
