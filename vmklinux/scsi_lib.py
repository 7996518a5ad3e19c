"""SCSI commands, the control half (Linux drivers/scsi/scsi_lib.c); what runs per command is in scsi_lib.c."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, UsageError, VmkError
from vmkernel_core.memory import load_bytes, store, store_bytes
from vmkernel_core.storage.adapter import StorageStats
from vmkernel_core.storage.command import Completion
from vmkernel_core.storage.errors import Sense
from vmklinux.api import linux_api, no_op
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi
from vmklinux.scsi_policy import BLOCK_TRANSFERS, DRAIN, SENSE_SIZE, TRANSITIONS, SdevState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from vmkernel_core.storage.command import Command
    from vmkernel_core.storage.sg_array import SgArray
    from vmklinux.hosts import Host
    from vmklinux.linux import Linux
    from vmklinux.scsi import Device

DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_NONE = 1, 2, 3  # include/linux/dma-direction.h
#: Commands whose ends one call fetches.
REAP_MOST = 256


class Answer:
    """What became of a command: ``result`` as scsi_cmnd has it, residual bytes, sense data."""

    __slots__ = ("residual", "result", "retries", "sense")

    def __init__(self, done: Any) -> None:
        """Take it from the C half."""
        self.result: int = done.result
        self.residual: int = done.residual
        self.retries: int = done.retries
        self.sense: bytes = bytes(ffi.buffer(done.sense, done.sense_length))

    @property
    def sense_key(self) -> int:
        """The sense key, 0 without sense data."""
        if len(self.sense) < 3:
            return 0
        return self.sense[1 if self.sense[0] & 0x7F >= 0x72 else 2] & 0xF


def completion(answer: Answer) -> Completion:
    """The same in the vmkernel's terms."""
    return _completion(answer.result, answer.residual, answer.retries, answer.sense)


def _completion(result: int, residual: int, retries: int, sense: bytes) -> Completion:
    if not (result or residual or retries or sense):
        return _WELL
    return Completion(result >> 16 & 0xFF, result & 0xFF, residual, retries, sense)


#: struct linux_scsi_io and struct linux_scsi_done: a batch of them is made, or read, in one go.
_IO, _DONE = struct.Struct("<QQQQIIIIBBBB32s4x"), struct.Struct("<QiIII96s")
assert (_IO.size, _DONE.size) == (ffi.sizeof("struct linux_scsi_io"), ffi.sizeof("struct linux_scsi_done"))
#: How most commands end.
_WELL = Completion(0, 0)


def _io(command: Command, number: int = 0) -> bytes:
    cdb, buffer = command.cdb, command.buffer
    pieces, count = (buffer.pieces, buffer.count) if buffer is not None else (0, 0)
    underflow = command.length if cdb[0] in BLOCK_TRANSFERS else 0
    return _IO.pack(
        number, 0, pieces, command.offset, count, command.length, int(command.timeout * 1000), underflow,
        command.direction, len(cdb), command.retries, lib.LINUX_SCSI_PRIVILEGED if command.privileged else 0, cdb,
    )  # fmt: skip


def _ios(raw: bytes) -> Any:
    return ffi.from_buffer("struct linux_scsi_io[]", raw)


class Queue:
    """The commands of one scsi_device."""

    def __init__(self, host: Host, sdev: Obj) -> None:
        """Give the device a queue at its host."""
        self.linux = host.linux
        self._host = host
        device = lib.linux_scsi_device_create(host.handle, int(sdev))
        if device == ffi.NULL:
            raise VmkError("no memory for the queue of a SCSI device")
        # Whoever is inside a call with it holds this object: it is freed when nobody is.
        self._device = ffi.gc(device, lib.linux_scsi_device_free)
        self._done = ffi.new("struct linux_scsi_done[]", REAP_MOST)

    def end(self) -> None:
        """The device goes: what the driver has is waited for, then the rest ends with DID_NO_CONNECT.

        With the baton. More commands are not taken.
        """
        deadline = lib.vmk_now() + int(DRAIN * 1e9)
        while self.stats().in_flight and lib.vmk_now() < deadline and not lib.vmk_world_ending():
            lib.vmk_world_sleep(10_000_000)
        lib.linux_scsi_device_end(self._device)

    def send(self, io: Any) -> Answer:
        """Send one command and wait for its end, also inside kernel code. DeviceGone."""
        done = ffi.new("struct linux_scsi_done *")
        error = lib.linux_scsi_execute(self._device, io, done)
        if error:
            raise DeviceGone("the SCSI device has gone")
        return Answer(done)

    def execute(self, command: Command) -> Completion:
        """The same for a command of the vmkernel's."""
        return completion(self.send(_ios(_io(command))))

    def read(self, cdb: bytes, length: int, timeout: float, *, retries: int = 3) -> tuple[Answer, bytes]:
        """Send a command of the mid-layer's own that fetches data, again while a unit attention ends it."""
        data = self.linux.allocate(length)
        try:
            io = ffi.new("struct linux_scsi_io *")
            io.data, io.length, io.timeout_ms = data, length, int(timeout * 1000)
            io.direction, io.cdb_length, io.flags = DMA_FROM_DEVICE, len(cdb), lib.LINUX_SCSI_PRIVILEGED
            io.retries = retries
            ffi.memmove(io.cdb, cdb, len(cdb))
            for _ in range(retries + 1):
                answer = self.send(io)
                if answer.sense_key != 6:
                    break
            return answer, load_bytes(data, length - answer.residual)
        finally:
            self.linux.free(data)

    def fits(self, buffer: SgArray, offset: int, length: int) -> int:
        """How many bytes of that part of a buffer one command can carry."""
        io = ffi.new("struct linux_scsi_io *")
        io.pieces, io.count, io.offset, io.length = buffer.pieces, buffer.count, offset, length
        return int(lib.linux_scsi_fits(self._device, io))

    def submit(self, commands: Sequence[tuple[int, Command]]) -> int:
        """Send commands with their numbers; how many were taken. DeviceGone, UsageError (one's data does not fit)."""
        ios = _ios(b"".join([_io(command, number) for number, command in commands]))
        taken: int = lib.linux_scsi_submit(self._device, ios, len(commands))
        if taken == -errno.EMSGSIZE:
            raise UsageError(
                "the data of a command is not in its buffer, or in pieces that the adapter cannot take in one command",
                remedy="read and write cut it; limits.transfer holds for contiguous data",
            )
        if taken < 0:
            raise DeviceGone("the storage device has gone")
        return taken

    def reap(self, most: int) -> list[tuple[int, Completion]]:
        """Fetch the numbers of commands that ended, and how."""
        have = lib.linux_scsi_reap(self._device, self._done, min(most, REAP_MOST))
        return [
            (number, _completion(result, residual, retries, sense[:length]))
            for number, result, residual, retries, length, sense in _DONE.iter_unpack(
                bytes(ffi.buffer(self._done, have * _DONE.size))
            )
        ]

    def wait(self, timeout: float) -> bool:
        """Wait until there is something to reap; whether there is."""
        return bool(lib.linux_scsi_wait(self._device, int(timeout * 1e9)))

    def stats(self) -> StorageStats:
        """Counters."""
        raw = ffi.new("struct linux_scsi_stats *")
        lib.linux_scsi_stats(self._device, raw)
        return StorageStats(
            raw.commands, raw.bytes_read, raw.bytes_written, raw.errors, raw.retries, raw.timeouts, raw.busy,
            raw.queue_full, raw.unit_attentions, raw.in_flight, raw.in_flight_most,
        )  # fmt: skip


# ---- commands that drivers and transport classes send ----


def _send_for(
    linux: Linux, sdev: Obj, cdb: int, direction: int, data: int, length: int, timeout: int, retries: int
) -> Answer | None:
    """Send a command whose CDB and data lie in kernel memory; None when the device has gone."""
    device = linux.state(Scsi).device(sdev)
    if device is None:
        return None
    size = (6, 10, 10, 12, 16, 12, 10, 10)[load_bytes(cdb, 1)[0] >> 5]  # COMMAND_SIZE, by the group code
    bounce = linux.allocate(length) if length else 0
    try:
        if direction == DMA_TO_DEVICE and length:
            store_bytes(bounce, load_bytes(data, length))
        io = ffi.new("struct linux_scsi_io *")
        io.data, io.length, io.timeout_ms = bounce, length, timeout * 1000 // linux.hz
        io.direction, io.cdb_length = direction, size
        io.retries, io.flags = retries, lib.LINUX_SCSI_PRIVILEGED
        ffi.memmove(io.cdb, load_bytes(cdb, size), size)
        answer = device.queue.send(io)
        if direction == DMA_FROM_DEVICE and length:
            store_bytes(data, load_bytes(bounce, length))
        return answer
    except DeviceGone:
        return None
    finally:
        if bounce:
            linux.free(bounce)


def _normalize(linux: Linux, answer: Answer, sshdr: int) -> None:
    if not sshdr:
        return
    raw = answer.sense.ljust(SENSE_SIZE, b"\0")
    if raw[0] & 0x70 != 0x70:
        told = bytes(8)
    elif raw[0] & 0x7F >= 0x72:
        told = bytes([raw[0] & 0x7F, *raw[1:4], 0, 0, 0, raw[7]])
    else:
        told = bytes([raw[0] & 0x7F, raw[2] & 0xF, raw[12], raw[13], 0, 0, 0, 0])
    store_bytes(sshdr, told)  # struct scsi_sense_hdr: eight bytes, in this order


_NO_CONNECT = 1 << 16
_UNIT_ATTENTION = 6
_INVALID_OPERATION_CODE = (5, 0x20)  # key and additional sense code


@linux_api()
def __scsi_execute(
    linux: Linux, sdev: Obj, cmd: int, data_direction: int, buffer: int, bufflen: int, sense: int, sshdr: Obj,
    timeout: int, retries: int, flags: int, rq_flags: int, resid: int,
) -> int:  # fmt: skip
    """Send a command of a driver's own and wait for its end; its result."""
    answer = _send_for(linux, sdev, cmd, data_direction, buffer, bufflen, timeout, retries)
    if answer is None:
        return _NO_CONNECT
    if resid:
        store(resid, 4, answer.residual)
    if sense:
        store_bytes(sense, answer.sense.ljust(SENSE_SIZE, b"\0"))
    _normalize(linux, answer, int(sshdr))
    return answer.result


@linux_api(partial="scsi_failures, by which a caller asks for retries of its own, is not looked at.")
def scsi_execute_cmd(
    linux: Linux,
    sdev: Obj,
    cmd: int,
    opf: int,
    buffer: int,
    bufflen: int,
    timeout: int,
    ml_retries: int,
    args: Obj,
) -> int:
    """Send a command of a driver's own and wait for its end; its result."""
    way = DMA_NONE if not bufflen else DMA_TO_DEVICE if opf & 1 else DMA_FROM_DEVICE
    answer = _send_for(linux, sdev, cmd, way, buffer, bufflen, timeout, ml_retries)
    if answer is None:
        return -errno.ENODEV
    if args:
        if args.resid:
            store(args.resid, 4, answer.residual)
        if args.sense:
            store_bytes(args.sense, answer.sense.ljust(SENSE_SIZE, b"\0")[: args.sense_len])
        _normalize(linux, answer, int(args.sshdr))
    return answer.result


# ---- the state of devices ----


@linux_api()
def scsi_device_set_state(linux: Linux, sdev: Obj, state: int) -> int:
    """Bring a device into another state; -EINVAL when it cannot go there from the one that it is in."""
    scsi = linux.state(Scsi)
    names: dict[int, SdevState] = {scsi.enum(f"SDEV_{name}"): name for name in TRANSITIONS}
    if sdev.sdev_state == state:
        return 0
    now = names.get(sdev.sdev_state)
    if now is None or names.get(state) not in TRANSITIONS[now]:
        return -errno.EINVAL
    scsi.set_device_state(sdev, state)
    return 0


def _run(linux: Linux, sdev: Obj) -> None:
    host = linux.state(Scsi).host(sdev.host)
    if host is not None:
        lib.linux_scsi_run(host.handle)


@linux_api()
def scsi_device_quiesce(linux: Linux, sdev: Obj) -> int:
    """Let only the mid-layer's own commands go to a device, and wait until it has no others; 0 or an errno."""
    scsi = linux.state(Scsi)
    error = scsi_device_set_state(linux, sdev, scsi.enum("SDEV_QUIESCE"))
    device = scsi.device(sdev)
    if not error and device is not None:
        device.host.idle.wait_until(
            lambda: not device.queue.stats().in_flight, "a SCSI device's commands", 60.0
        )
    return error


@linux_api()
def scsi_device_resume(linux: Linux, sdev: Obj) -> None:
    """Let all commands go to a device again."""
    scsi = linux.state(Scsi)
    if sdev.sdev_state == scsi.enum("SDEV_QUIESCE"):
        scsi_device_set_state(linux, sdev, scsi.enum("SDEV_RUNNING"))
    _run(linux, sdev)


def _of_target(linux: Linux, starget: Obj) -> Iterator[Device]:
    for host in list(linux.state(Scsi).hosts.values()):
        yield from [device for device in host.devices.values() if device.obj.sdev_target == starget]


@linux_api()
def scsi_target_quiesce(linux: Linux, starget: Obj) -> None:
    """The same for every device of a target."""
    for device in _of_target(linux, starget):
        scsi_device_quiesce(linux, device.obj)


@linux_api()
def scsi_target_resume(linux: Linux, starget: Obj) -> None:
    """Let all commands go to every device of a target again."""
    for device in _of_target(linux, starget):
        scsi_device_resume(linux, device.obj)


def block(linux: Linux, sdev: Obj) -> int:
    """scsi_internal_device_block: hold a device's commands back."""
    scsi = linux.state(Scsi)
    created = scsi_device_set_state(linux, sdev, scsi.enum("SDEV_BLOCK"))
    return created and scsi_device_set_state(linux, sdev, scsi.enum("SDEV_CREATED_BLOCK"))


def unblock(linux: Linux, sdev: Obj, state: int) -> int:
    """scsi_internal_device_unblock: let them go, with the device in that state."""
    scsi = linux.state(Scsi)
    blocked = (scsi.enum("SDEV_BLOCK"), scsi.enum("SDEV_TRANSPORT_OFFLINE"))
    if sdev.sdev_state in blocked:
        scsi.set_device_state(sdev, state)
    elif sdev.sdev_state == scsi.enum("SDEV_CREATED_BLOCK"):
        dead = (scsi.enum("SDEV_TRANSPORT_OFFLINE"), scsi.enum("SDEV_OFFLINE"))
        sdev.sdev_state = state if state in dead else scsi.enum("SDEV_CREATED")
    elif sdev.sdev_state not in (scsi.enum("SDEV_CANCEL"), scsi.enum("SDEV_OFFLINE")):
        return -errno.EINVAL
    _run(linux, sdev)
    return 0


def below(linux: Linux, dev: Obj) -> list[Device]:
    """The devices that hang below a device of the tree: a target, or a transport's remote port."""
    found = []
    for host in list(linux.state(Scsi).hosts.values()):
        for device in host.devices.values():
            at = device.obj.sdev_gendev
            while at and at != dev:
                at = at.parent
            if at:
                found.append(device)
    return found


@linux_api()
def scsi_internal_device_block_nowait(linux: Linux, sdev: Obj) -> int:
    """Hold back the commands of a device, and wait for none that the driver has; 0 or an errno."""
    return block(linux, sdev)


@linux_api()
def scsi_internal_device_unblock_nowait(linux: Linux, sdev: Obj, new_state: int) -> int:
    """Let them go; 0 or an errno."""
    return unblock(linux, sdev, new_state)


@linux_api()
def scsi_target_block(linux: Linux, dev: Obj) -> None:
    """Hold back the commands of every device below."""
    for device in below(linux, dev):
        block(linux, device.obj)


@linux_api()
def scsi_block_targets(linux: Linux, shost: Obj, dev: Obj) -> None:
    """Hold back the commands of every device below."""
    scsi_target_block(linux, dev)


@linux_api()
def scsi_target_unblock(linux: Linux, dev: Obj, new_state: int) -> None:
    """Let them go."""
    for device in below(linux, dev):
        unblock(linux, device.obj, new_state)


@linux_api()
def scsi_host_block(linux: Linux, shost: Obj) -> int:
    """Hold back the commands of every device of a host; 0 or an errno."""
    host = linux.state(Scsi).host(shost)
    for device in list(host.devices.values()) if host else ():
        if error := block(linux, device.obj):
            return error
    return 0


@linux_api()
def scsi_host_unblock(linux: Linux, shost: Obj, new_state: int) -> int:
    """Let them go; 0 or an errno."""
    host = linux.state(Scsi).host(shost)
    for device in list(host.devices.values()) if host else ():
        if error := unblock(linux, device.obj, new_state):
            return error
    return 0


@linux_api()
def scsi_mode_sense(linux: Linux, sdev: Obj, dbd: int, modepage: int, *rest: int | Obj) -> int:
    """Read a mode page into the caller's buffer and say where in it the page begins; 0 or an errno.

    By the command of ten bytes where the device is said to know it, or more is wanted than that of six can carry.
    """
    # 6.12 has a sub-page before the buffer.
    subpage = int(rest[0]) if len(rest) == 7 else 0
    buffer, length, timeout, retries, data, sshdr = rest[-6:]
    device = linux.state(Scsi).device(sdev)
    if device is None:
        return -errno.ENODEV
    flags = (8 if sdev.set_dbd_for_ms else dbd) & 0x18
    long = bool(sdev.use_10_for_ms) or int(length) > 0xFF
    while True:
        header, size = (8, min(int(length), 0xFFFF)) if long else (4, int(length))
        if size < header:
            return -errno.EINVAL
        cdb = (
            bytes([0x5A, flags, modepage, subpage, 0, 0, 0, size >> 8, size & 0xFF, 0])
            if long
            else bytes([0x1A, flags, modepage, subpage, size, 0])
        )
        answer, page = device.queue.read(cdb, size, int(timeout) / linux.hz, retries=int(retries))
        _normalize(linux, answer, int(sshdr))
        if not answer.result and len(page) >= header:
            break
        sense = Sense.parse(answer.sense)
        unknown = sense is not None and (sense.key, sense.asc) == _INVALID_OPERATION_CODE
        if not (long and unknown) or int(length) > 0xFF:
            return -errno.EIO
        sdev.use_10_for_ms, long = 0, False  # it does not know the long form
    store_bytes(int(buffer), page)
    if isinstance(data, Obj) and data:
        data.header_length = header
        if long:
            data.length, data.longlba = int.from_bytes(page[:2], "big") + 2, page[4] & 1
            data.medium_type, data.device_specific = page[2], page[3]
            data.block_descriptor_length = int.from_bytes(page[6:8], "big")
        else:
            data.length, data.longlba = page[0] + 1, 0
            data.medium_type, data.device_specific, data.block_descriptor_length = page[1:4]
    return 0


@linux_api()
def scsi_test_unit_ready(linux: Linux, sdev: Obj, timeout: int, retries: int, sshdr: Obj) -> int:
    """Ask a device whether it is ready, again while a removable medium tells of a change; its result."""
    device = linux.state(Scsi).device(sdev)
    if device is None:
        return _NO_CONNECT
    for _ in range(max(retries, 1)):
        answer, _data = device.queue.read(bytes(6), 0, timeout / linux.hz, retries=0)
        if answer.sense_key == _UNIT_ATTENTION and sdev.removable:
            sdev.changed = 1
        if answer.sense_key != _UNIT_ATTENTION:
            break
    _normalize(linux, answer, int(sshdr))
    return answer.result


@linux_api()
def sdev_disable_disk_events(linux: Linux, sdev: Obj) -> None:
    """Count up how often a device's medium is not to be looked at."""
    sdev.disk_events_disable_depth.counter += 1


@linux_api()
def sdev_enable_disk_events(linux: Linux, sdev: Obj) -> None:
    """Count it down."""
    sdev.disk_events_disable_depth.counter -= 1


no_op(
    "scsi_lib.py",
    "It tells programs by a hotplug event that something about the device has changed: none of them listens.",
    "sdev_evt_send_simple",
)  # fmt: skip
no_op(
    "scsi_lib.py",
    "No power management core runs: a device is awake while its driver is bound.",
    "scsi_autopm_get_device", "scsi_autopm_put_device",
)  # fmt: skip
no_op(
    "scsi_lib.py",
    "No block device is made of a disk, so nobody asks a driver for its geometry (bios_param), which needs these.",
    "scsi_bios_ptable", "scsi_partsize", "scsicam_bios_param",
)  # fmt: skip
