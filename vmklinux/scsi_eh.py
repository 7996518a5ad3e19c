"""What error handling does with failed commands, step by step (Linux include/scsi/scsi_eh.h, drivers/scsi/scsi_error.c).

Failed commands are in a list, linked by their ``eh_entry``: the host's ``eh_cmd_q`` at first. One that is done with is
moved to another list, whose commands are sent again or ended in the end (scsi_eh_flush_done_q). A driver that has an
error handler of its own (``eh_strategy_handler``) works on the same lists in the same steps, so these are Linux's API.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import TimedOut
from vmkernel_core.memory import load_bytes, store_bytes
from vmkernel_core.storage.command import Status
from vmklinux.api import linux_api
from vmklinux.kobject import Obj, addressof, container_of
from vmklinux.list import list_add_tail, list_del, list_entries
from vmklinux.scsi import Scsi
from vmklinux.scsi_policy import (
    EH_STATUS,
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
    from collections.abc import Iterator

    from vmklinux.hosts import Host
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

# What a driver's handlers return, and what is said of a command (include/scsi/scsi.h).
NEEDS_RETRY, SUCCESS, FAILED, ADD_TO_MLQUEUE, FAST_IO_FAIL = 0x2001, 0x2002, 0x2003, 0x2006, 0x2009
DID_RESET = 8
#: Bits of scsi_cmnd.eh_eflags (include/scsi/scsi_eh.h) and of scsi_cmnd.flags (scsi_cmnd.h).
SCSI_EH_ABORT_SCHEDULED, SCMD_LAST = 2, 4
_SCSI_2 = 3  # the level up to which a CDB carries the LUN
#: scsi_cmnd's fields that a command of the error handler's own takes over for a while, and where scsi_eh_save has them.
_SAVED = (
    ("cmd_len", "cmd_len"), ("sc_data_direction", "data_direction"), ("result", "result"), ("resid_len", "resid_len"),
    ("underflow", "underflow"), ("prot_op", "prot_op"), ("eh_eflags", "eh_eflags"),
)  # fmt: skip
_DMA_FROM_DEVICE, _DMA_NONE = 2, 3


def commands(linux: Linux, head: int) -> list[Obj]:
    """The commands of a list."""
    types = linux.state(Scsi).types
    entries = [Obj(linux.types, "list_head", entry) for entry in list_entries(linux, head)]
    return [container_of(entry, types, "scsi_cmnd", "eh_entry") for entry in entries]


def _host(linux: Linux, cmnd: Obj) -> Host:
    return linux.state(Scsi).hosts[int(cmnd.device.host)]


def handler(host: Host, name: str, cmnd: Obj) -> int | None:
    """Call an error handling function of the driver's for a command; None when it has none."""
    function = getattr(host.obj.hostt, name)
    return host.linux.call_int(function, cmnd, owner=host.owner) if function else None


def device_of(linux: Linux, cmnd: Obj) -> str:
    """The name of the device that a command is for."""
    return linux.string(cmnd.device.sdev_gendev.kobj.name)


# ---- a command of the error handler's own, in a failed one's place ----


@linux_api()
def scsi_eh_prep_cmnd(linux: Linux, scmd: Obj, ses: Obj, cmnd: int, cmnd_size: int, sense_bytes: int) -> None:
    """Put another command into a scsi_cmnd: REQUEST SENSE if ``sense_bytes``, else ``cmnd``; ``ses`` keeps the first."""
    types = linux.state(Scsi).types
    sdb_size, place = types.sizeof("scsi_data_buffer"), addressof(scmd, "cmnd")
    for field, kept in _SAVED:
        setattr(ses, kept, getattr(scmd, field))
    store_bytes(addressof(ses, "sdb"), load_bytes(addressof(scmd, "sdb"), sdb_size))
    store_bytes(addressof(ses, "cmnd"), load_bytes(place, 32))
    store_bytes(addressof(scmd, "sdb"), bytes(sdb_size))
    scmd.prot_op = scmd.eh_eflags = scmd.result = scmd.resid_len = scmd.underflow = 0
    scmd.sc_data_direction, cdb = _DMA_NONE, load_bytes(cmnd, cmnd_size) if cmnd else b""
    if sense_bytes:
        length = min(sense_bytes, SENSE_SIZE)
        sg = addressof(ses, "sense_sgl")
        linux.call("sg_init_one", sg, scmd.sense_buffer, length)
        table = scmd.sdb.table
        table.sgl, table.nents, table.orig_nents = Obj(linux.types, "scatterlist", sg), 1, 1
        scmd.sdb.length, scmd.sc_data_direction = length, _DMA_FROM_DEVICE
        cdb = request_sense(length)
    store_bytes(place, cdb.ljust(32, b"\0"))
    if cdb:
        scmd.cmd_len = (6, 10, 10, 12, 16, 12, 10, 10)[cdb[0] >> 5]  # COMMAND_SIZE, by the group code
    if 0 < scmd.device.scsi_level <= _SCSI_2:
        store_bytes(place + 1, bytes([load_bytes(place + 1, 1)[0] & 0x1F | scmd.device.lun << 5 & 0xE0]))
    store_bytes(scmd.sense_buffer, bytes(SENSE_SIZE))


@linux_api()
def scsi_eh_restore_cmnd(linux: Linux, scmd: Obj, ses: Obj) -> None:
    """Put the first command back, as it had failed."""
    sdb_size = linux.state(Scsi).types.sizeof("scsi_data_buffer")
    for field, kept in _SAVED:
        setattr(scmd, field, getattr(ses, kept))
    store_bytes(addressof(scmd, "sdb"), load_bytes(addressof(ses, "sdb"), sdb_size))
    store_bytes(addressof(scmd, "cmnd"), load_bytes(addressof(ses, "cmnd"), 32))


def send(host: Host, cmnd: Obj, cdb: bytes, timeout: float, sense_bytes: int = 0) -> int:
    """scsi_send_eh_cmnd: send a command in a failed one's place: SUCCESS, NEEDS_RETRY or FAILED.

    With ``sense_bytes`` it is REQUEST SENSE, and the failed command has its sense data afterwards.
    """
    linux = host.linux
    save = host.scsi.new("scsi_eh_save", 0, 0)
    place = linux.allocate(len(cdb)) if cdb else 0
    if cdb:
        store_bytes(place, cdb)
    sense, submitter = load_bytes(cmnd.sense_buffer, SENSE_SIZE), cmnd.submitter
    scsi_eh_prep_cmnd(linux, cmnd, save, place, len(cdb), sense_bytes)
    cmnd.submitter = host.scsi.enum("SUBMITTED_BY_SCSI_ERROR_HANDLER")
    cmnd.flags |= SCMD_LAST
    try:
        return _submit(host, cmnd, timeout)
    finally:
        scsi_eh_restore_cmnd(linux, cmnd, save)
        cmnd.submitter = submitter
        if not sense_bytes:
            store_bytes(cmnd.sense_buffer, sense)
        if place:
            linux.free(place)
        linux.free(save)


def _submit(host: Host, cmnd: Obj, timeout: float) -> int:
    linux, deadline = host.linux, lib.vmk_now() + int(timeout * 1e9)
    lib.linux_scsi_eh_back(int(cmnd))  # what came back before does not count
    while linux.call_int(host.obj.hostt.queuecommand, host.obj, cmnd, owner=host.owner):
        if lib.vmk_now() > deadline:
            return FAILED
        linux.call(linux.entry("msleep"), int(STALL * 1000))
    try:
        host.errors.changed.wait_until(
            lambda: bool(lib.linux_scsi_eh_back(int(cmnd))), "a command of the error handler's", timeout
        )
    except TimedOut:  # scsi_abort_eh_cmnd: the driver has to forget it, whatever that takes
        for name in ("abort", *(reset.name for reset in RESETS)):
            if handler(host, f"eh_{name}_handler", cmnd) == SUCCESS:
                break
        return FAILED
    verdict = _ended(cmnd)
    return NEEDS_RETRY if verdict == ADD_TO_MLQUEUE else verdict


def _ended(cmnd: Obj) -> int:
    """scsi_eh_completed_normally: what a command of the error handler's own came back with."""
    host_byte, status = cmnd.result >> 16 & 0xFF, cmnd.result & 0xFE
    if host_byte == DID_RESET or (not host_byte and status == Status.CHECK_CONDITION):
        return int(lib.linux_scsi_check_sense(int(cmnd)))
    if host_byte:
        return FAILED
    if status == Status.RESERVATION_CONFLICT:  # somebody else's, but there it is
        return FAILED if load_bytes(addressof(cmnd, "cmnd"), 1)[0] else SUCCESS
    works = EH_STATUS.get(status)
    return FAILED if works is None else SUCCESS if works else NEEDS_RETRY


def _answers(host: Host, cmnd: Obj) -> bool:
    """scsi_eh_tur: whether the device answers TEST UNIT READY, at the second time at the latest."""
    if cmnd.device.sdev_state == host.scsi.enum("SDEV_OFFLINE"):
        return True  # nothing will be sent to it: its commands may end
    timeout = cmnd.device.eh_timeout / host.linux.hz
    verdict = send(host, cmnd, TEST_UNIT_READY, timeout)
    if verdict == NEEDS_RETRY:
        verdict = send(host, cmnd, TEST_UNIT_READY, timeout)
    return verdict in (SUCCESS, NEEDS_RETRY)


# ---- the steps ----


@linux_api()
def scsi_eh_finish_cmd(linux: Linux, scmd: Obj, done_q: Obj) -> None:
    """A command is done with: move it to the list of those that are sent again or ended."""
    entry = addressof(scmd, "eh_entry")
    list_del(linux, entry)
    list_add_tail(linux, entry, int(done_q))


@linux_api()
def scsi_eh_flush_done_q(linux: Linux, done_q: Obj) -> None:
    """Send the commands of a list again, as far as their retries go; the others end."""
    for cmnd in commands(linux, int(done_q)):
        list_del(linux, addressof(cmnd, "eh_entry"))
        lib.linux_scsi_release(int(cmnd))


@linux_api()
def scsi_eh_get_sense(linux: Linux, work_q: Obj, done_q: Obj) -> int:
    """Ask for the sense data that drivers did not bring; whether no command is left then."""
    for cmnd in commands(linux, int(work_q)):
        sensed = load_bytes(cmnd.sense_buffer, 1)[0] & 0x70 == 0x70
        if sensed or cmnd.eh_eflags & SCSI_EH_ABORT_SCHEDULED or cmnd.result & 0xFE != Status.CHECK_CONDITION:
            continue
        host = _host(linux, cmnd)
        if send(host, cmnd, b"", cmnd.device.eh_timeout / linux.hz, SENSE_SIZE) != SUCCESS:
            continue
        verdict = lib.linux_scsi_check_sense(int(cmnd))
        if verdict == SUCCESS:
            cmnd.retries = cmnd.allowed  # it ends with its sense data
        if verdict in (SUCCESS, NEEDS_RETRY):
            scsi_eh_finish_cmd(linux, cmnd, done_q)
    return int(not commands(linux, int(work_q)))


@linux_api()
def scsi_eh_ready_devs(linux: Linux, shost: Obj, work_q: Obj, done_q: Obj) -> None:
    """Start devices that wait for it, then reset until they answer; those that do not are taken offline."""
    host = linux.state(Scsi).hosts[int(shost)]
    _start_units(host, work_q, done_q)
    for reset in RESETS:
        for group in _grouped(commands(linux, int(work_q)), reset.span):
            _reset(host, reset, group, done_q)
    for cmnd in commands(linux, int(work_q)):
        _offline(host, cmnd)
        scsi_eh_finish_cmd(linux, cmnd, done_q)


def _grouped(cmnds: list[Obj], span: int) -> Iterator[list[Obj]]:
    """Those whose devices have so many parts of channel, target and LUN in common."""
    groups: dict[tuple[int, ...], list[Obj]] = {}
    for cmnd in cmnds:
        device = cmnd.device
        groups.setdefault((device.channel, device.id, device.lun)[:span], []).append(cmnd)
    return iter(groups.values())


def _start_units(host: Host, work_q: Obj, done_q: Obj) -> None:
    """scsi_eh_stu: START STOP UNIT for devices that say that they wait for it."""
    linux = host.linux
    for group in _grouped(commands(linux, int(work_q)), 3):
        stopped = next((c for c in group if _is_stopped(c)), None)
        if stopped is None:
            continue
        if SUCCESS in (send(host, stopped, START_UNIT, START_LIMIT) for _ in range(2)) and _answers(
            host, stopped
        ):
            for cmnd in group:
                scsi_eh_finish_cmd(linux, cmnd, done_q)


def _is_stopped(cmnd: Obj) -> bool:
    sensed = load_bytes(cmnd.sense_buffer, 1)[0] & 0x70 == 0x70
    return bool(cmnd.device.allow_restart and sensed) and lib.linux_scsi_check_sense(int(cmnd)) == FAILED


def _reset(host: Host, reset: Reset, cmnds: list[Obj], done_q: Obj) -> None:
    """One reset; commands of the devices that answer after it are done with."""
    linux = host.linux
    result = handler(host, f"eh_{reset.name}_handler", cmnds[0])
    if result is None:
        return
    host.errors.resets += 1
    how = "done" if result == SUCCESS else "failed"
    log.warning("%s: %s: %s", device_of(linux, cmnds[0]), reset.name.replace("_", " "), how)
    if result not in (SUCCESS, FAST_IO_FAIL):
        return
    if reset.settle and not host.obj.hostt.skip_settle_delay:
        linux.call(linux.entry("msleep"), int(reset.settle * 1000))
    alive: dict[int, bool] = {}
    for cmnd in cmnds:
        cmnd.device.was_reset = cmnd.device.expecting_cc_ua = 1
    for cmnd in cmnds:
        device = int(cmnd.device)
        if device not in alive:
            alive[device] = result == FAST_IO_FAIL or _answers(host, cmnd)
        if result == FAST_IO_FAIL:
            cmnd.retries = cmnd.allowed  # it is not sent again
        if alive[device]:
            scsi_eh_finish_cmd(linux, cmnd, done_q)


def _offline(host: Host, cmnd: Obj) -> None:
    """scsi_eh_offline_sdevs: nothing helped."""
    offline = host.scsi.enum("SDEV_OFFLINE")
    if cmnd.device.sdev_state != offline:
        log.error(
            "%s: it does not answer after all resets, and is taken offline", device_of(host.linux, cmnd)
        )
        host.scsi.set_device_state(cmnd.device, offline)
