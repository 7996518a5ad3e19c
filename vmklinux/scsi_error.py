"""Error handling of SCSI hosts (Linux drivers/scsi/scsi_error.c): timeouts, aborts, resets, in Linux's order.

Each host has a world of its own for it (``scsi_eh_N``). It looks for commands whose time is up, has the driver abort
them, and once every command that the driver still has is a failed one, it resets: device, target, bus, host, until the
devices answer. What was rescued is sent again; devices that never answer are taken offline.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.api import linux_api
from vmklinux.btf import BtfError
from vmklinux.errors import DriverRefused, DriverStopped, WorldEnded
from vmklinux.kobject import Obj, addressof
from vmklinux.sched import WaitList
from vmklinux.scsi import Scsi

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.hosts import Host
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

# What a driver's handlers return (include/scsi/scsi.h).
SUCCESS, FAILED, FAST_IO_FAIL = 0x2002, 0x2003, 0x2009
DID_TIME_OUT, DID_RESET = 3, 8
#: Seconds between looks for commands whose time is up; Linux's block layer rounds to whole seconds.
PERIOD = 0.5
#: Seconds after which a handler's thread is given up; after a bus or host reset, until the devices are asked again.
LIMIT, SETTLE = 120.0, 10.0
#: Seconds that a driver has for a command of the error handler's own (SCSI_DEFAULT_EH_TIMEOUT).
EH_TIMEOUT = 10.0
#: Commands that one look finds.
MOST = 4096
_SCMD_EH_ABORT_SCHEDULED = 2  # include/scsi/scsi_eh.h
_TUR, _REQUEST_SENSE = 0x00, 0x03
#: The fields of a scsi_cmnd that a command of the error handler's own takes over for a while (struct scsi_eh_save).
_SAVED = ("result", "resid_len", "sc_data_direction", "underflow", "prot_op", "cmd_len", "submitter")


class ErrorHandler:
    """The error handler of one host."""

    def __init__(self, host: Host) -> None:
        """It does not run yet."""
        self.host = host
        self.linux: Linux = host.linux
        self.changed = WaitList()
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
        self.changed.wait_until(lambda: bool(self._task), f"the start of {name}", LIMIT)

    def cut(self) -> None:
        """The hardware has gone: end it now, also inside a handler of the driver's."""
        with self.linux.baton():
            self._stop = True
            if self._task:
                lib.vmk_world_end(self._task)

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
                self.changed.wait_until(lambda: self._ended, "SCSI error handling", LIMIT)
            except TimedOut as error:
                log.error("%s", error)
                lib.vmk_world_end(self._task)

    def _run(self) -> None:
        lib.vmk_baton_take()
        try:
            self._task = lib.vmk_world_task()
            lib.linux_scsi_host_watch(self.host.handle, self._task)
            self.changed.wake_all()
            while not self._stop:
                self._round()
                if not self._stop and not self._urgent():
                    lib.vmk_world_sleep(int(PERIOD * 1e9))
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
            self.changed.wake_all()
            lib.vmk_baton_drop()

    def _load(self) -> tuple[int, int]:
        busy, failed = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        lib.linux_scsi_host_load(self.host.handle, busy, failed)
        return int(busy[0]), int(failed[0])

    def _urgent(self) -> bool:
        busy, failed = self._load()
        return bool(failed and busy == failed) or self.host.obj.host_eh_scheduled > 0 or self._reset_wanted

    def _commands(self, count: int) -> list[Obj]:
        return [self.host.scsi.obj("scsi_cmnd", address) for address in self._cmnds[0:count]]

    def _round(self) -> None:
        for cmnd in self._commands(lib.linux_scsi_expired(self.host.handle, self._cmnds, MOST)):
            self._timed_out(cmnd)
        if self._urgent():
            self._recover()

    def _handler(self, name: str, cmnd: Obj) -> int | None:
        """Call a function of the driver's for a command; None when it has none."""
        function = getattr(self.host.obj.hostt, name)
        return self.linux.call_int(function, cmnd, owner=self.host.owner) if function else None

    # ---- timeouts ----

    def _timed_out(self, cmnd: Obj) -> None:
        """scsi_timeout and scmd_eh_abort_handler."""
        if (verdict := self._handler("eh_timed_out", cmnd)) is not None:
            if verdict == self._verdict("RESET_TIMER"):
                lib.linux_scsi_prolong(int(cmnd))
                return
            if verdict == self._verdict("DONE") and self._verdict("NOT_HANDLED") is not None:
                return  # the driver has seen to it
        if not lib.linux_scsi_expire(int(cmnd)):
            return
        where = self.linux.string(cmnd.device.sdev_gendev.kobj.name)
        log.warning(
            "%s: command %s timed out", where, load_bytes(addressof(cmnd, "cmnd"), cmnd.cmd_len).hex(" ")
        )
        set_host_byte(cmnd, DID_TIME_OUT)
        cmnd.eh_eflags |= _SCMD_EH_ABORT_SCHEDULED
        result = self._handler("eh_abort_handler", cmnd)
        set_host_byte(cmnd, DID_TIME_OUT)
        if result in (SUCCESS, FAST_IO_FAIL):
            log.warning("%s: it was aborted", where)
            lib.linux_scsi_release(int(cmnd), result == SUCCESS)
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

    def _failed(self) -> list[Obj]:
        return self._commands(lib.linux_scsi_failed(self.host.handle, self._cmnds, MOST))

    def _recover(self) -> None:
        """scsi_error_handler's one round: unjam the host, then let commands flow again."""
        host, shost = self.host, self.host.obj
        host.set_state("RECOVERY")
        wanted, self._reset_wanted = self._reset_wanted, False
        strategy = shost.transportt.eh_strategy_handler
        failed = self._failed()
        log.warning("host%d: error handling begins, %d commands failed", shost.host_no, len(failed))
        if wanted:
            self._reset_result = self._reset_on_demand()
        if strategy:
            self.linux.call(strategy, shost, owner=host.owner)
        self._unjam()
        shost.host_eh_scheduled = 0
        if shost.shost_state == host.scsi.enum("SHOST_RECOVERY"):
            host.set_state("RUNNING")
        log.warning("host%d: error handling has ended", shost.host_no)
        lib.linux_scsi_run(host.handle)
        self.changed.wake_all()

    def _unjam(self) -> None:
        """scsi_unjam_host: sense data, then one reset after the other until every device answers."""
        for cmnd in self._failed():
            if cmnd.result & 0xFF == 2 and cmnd.result >> 16 & 0xFF == 0:
                self._fetch_sense(cmnd)
        groups: tuple[tuple[str, Callable[[Obj], object], float], ...] = (
            ("eh_device_reset_handler", lambda c: int(c.device), 0.0),
            ("eh_target_reset_handler", lambda c: (c.device.channel, c.device.id), 0.0),
            ("eh_bus_reset_handler", lambda c: c.device.channel, SETTLE),
            ("eh_host_reset_handler", lambda _c: 0, SETTLE),
        )
        for name, group_of, settle in groups:
            groups_left: dict[object, list[Obj]] = {}
            for cmnd in self._failed():
                groups_left.setdefault(group_of(cmnd), []).append(cmnd)
            for cmnds in groups_left.values():
                self._reset_group(name, cmnds, settle)
        for cmnd in self._failed():
            self._offline(cmnd)

    def _reset_group(self, name: str, cmnds: list[Obj], settle: float) -> None:
        result = self._handler(name, cmnds[0])
        if result is None:
            return
        self.resets += 1
        log.warning(
            "%s: %s: %s",
            self._name(cmnds[0]),
            name.removesuffix("_handler"),
            {SUCCESS: "done"}.get(result, "failed"),
        )
        if result not in (SUCCESS, FAST_IO_FAIL):
            return
        if settle and not self.host.obj.hostt.skip_settle_delay:
            self.linux.call(self.linux.entry("msleep"), int(settle * 1000))
        alive: dict[int, bool] = {}
        for cmnd in cmnds:
            cmnd.device.was_reset = 1
            cmnd.device.expecting_cc_ua = 1
            device = int(cmnd.device)
            if device not in alive:
                alive[device] = result == FAST_IO_FAIL or self._answers(cmnd)
            if alive[device]:
                set_host_byte(cmnd, DID_RESET if cmnd.result >> 16 & 0xFF == 0 else cmnd.result >> 16 & 0xFF)
                lib.linux_scsi_release(int(cmnd), result == SUCCESS)

    def _name(self, cmnd: Obj) -> str:
        return self.linux.string(cmnd.device.sdev_gendev.kobj.name)

    def _offline(self, cmnd: Obj) -> None:
        """scsi_eh_offline_sdevs: nothing helped."""
        scsi = self.host.scsi
        if cmnd.device.sdev_state != scsi.enum("SDEV_OFFLINE"):
            log.error("%s: it does not answer after all resets, and is taken offline", self._name(cmnd))
            cmnd.device.sdev_state = scsi.enum("SDEV_OFFLINE")
        set_host_byte(cmnd, DID_TIME_OUT)
        lib.linux_scsi_release(int(cmnd), 0)

    def _answers(self, cmnd: Obj) -> bool:
        """scsi_eh_tur: whether the device answers TEST UNIT READY; a unit attention is asked away."""
        for _ in range(3):
            sense = self._send(cmnd, bytes([_TUR, 0, 0, 0, 0, 0]), 0)
            if sense is None:
                return False
            key = sense[1 if sense[0] & 0x7F >= 0x72 else 2] & 0xF if sense else 0
            if key != 6:
                return True
        return True

    def _fetch_sense(self, cmnd: Obj) -> None:
        """scsi_eh_get_sense: the driver brought no sense data; ask for it, and let the command end with it."""
        if (
            self._send(cmnd, bytes([_REQUEST_SENSE, 0, 0, 0, 96, 0]), 96) is not None
            and load_bytes(cmnd.sense_buffer, 1)[0] & 0x70 == 0x70
        ):
            lib.linux_scsi_release(int(cmnd), 0)

    def _send(self, cmnd: Obj, cdb: bytes, length: int) -> bytes | None:
        """scsi_send_eh_cmnd: send another command in a failed one's place; its sense data, None when nobody answered."""
        linux, host = self.linux, self.host
        place = addressof(cmnd, "cmnd")
        sdb, sdb_size = addressof(cmnd, "sdb"), host.scsi.types.sizeof("scsi_data_buffer")
        saved = {name: getattr(cmnd, name) for name in _SAVED}
        saved_cdb, saved_sdb = load_bytes(place, 32), load_bytes(sdb, sdb_size)
        old_sense = load_bytes(cmnd.sense_buffer, 96)
        sg = 0
        store_bytes(place, cdb.ljust(32, b"\0"))
        store_bytes(sdb, bytes(sdb_size))
        cmnd.cmd_len, cmnd.underflow, cmnd.result, cmnd.resid_len = len(cdb), 0, 0, 0
        cmnd.prot_op, cmnd.sc_data_direction = 0, 2 if length else 3
        if length:
            sg = int(linux.new("scatterlist"))
            entry = Obj(linux.types, "scatterlist", sg)
            linux.call("sg_init_one", sg, cmnd.sense_buffer, length)
            cmnd.sdb.table.sgl, cmnd.sdb.table.nents, cmnd.sdb.table.orig_nents = entry, 1, 1
            cmnd.sdb.length = length
        store_bytes(cmnd.sense_buffer, bytes(96))
        cmnd.submitter = host.scsi.enum("SUBMITTED_BY_SCSI_ERROR_HANDLER")
        lib.linux_scsi_eh_back(int(cmnd))
        answered = False
        try:
            if not linux.call_int(host.obj.hostt.queuecommand, host.obj, cmnd, owner=host.owner):
                try:
                    self.changed.wait_until(
                        lambda: bool(lib.linux_scsi_eh_back(int(cmnd))),
                        "a command of the error handler's",
                        EH_TIMEOUT,
                    )
                    answered = cmnd.result >> 16 & 0xFF == 0
                except TimedOut:
                    self._handler("eh_abort_handler", cmnd)
            sense = load_bytes(cmnd.sense_buffer, 96) if cmnd.result & 0xFF == 2 else b""
        finally:
            for name, value in saved.items():
                setattr(cmnd, name, value)
            store_bytes(place, saved_cdb)
            store_bytes(sdb, saved_sdb)
            if not length:
                store_bytes(cmnd.sense_buffer, old_sense)
            if sg:
                linux.free(sg)
        return sense if answered else None

    # ---- on demand ----

    def reset_host(self) -> None:
        """Reset the host now; commands in flight are sent again. DriverRefused, TimedOut."""
        with self.linux.baton():
            if self._ended:
                raise VmkError(f"host{self.host.obj.host_no} has gone")
            self._reset_wanted, self._reset_result = True, 0
            lib.vmk_world_wake(self._task)
            self.changed.wait_until(lambda: bool(self._reset_result) or self._ended, "a host reset", LIMIT)
            if self._reset_result != SUCCESS:
                raise DriverRefused(
                    f"{self.host.driver_name} did not reset its adapter",
                    5,
                    where=f"host{self.host.obj.host_no}",
                )

    def _reset_on_demand(self) -> int:
        """scsi_ioctl_reset: the handler is given a command that was never sent."""
        host, types = self.host, self.host.scsi.types
        if not host.devices or not host.obj.hostt.eh_host_reset_handler:
            return FAILED
        before = types.sizeof("request")
        size = before + types.sizeof("scsi_cmnd") + host.obj.hostt.cmd_size
        memory = self.linux.allocate(size)
        try:
            cmnd = host.scsi.obj("scsi_cmnd", memory + before)
            cmnd.device = next(iter(host.devices.values())).obj
            Obj(self.linux.types, "request", memory).tag = -1
            self.resets += 1
            return self._handler("eh_host_reset_handler", cmnd) or FAILED
        finally:
            self.linux.free(memory)


def set_host_byte(cmnd: Obj, value: int) -> None:
    """Put the host's part into a command's result."""
    cmnd.result = (cmnd.result & ~0xFF0000) | value << 16


@linux_api()
def scsi_schedule_eh(linux: Linux, shost: Obj) -> None:
    """Have error handling run although no command failed."""
    host = linux.state(Scsi).host(shost)
    if host is not None:
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
