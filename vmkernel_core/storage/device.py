"""A storage device: a logical unit that serves blocks, as the hypervisor sees it (SBC-3, SPC-4)."""

from __future__ import annotations

import logging
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from vmkernel_core.errors import NotSupported, TimedOut, UsageError, VmkError
from vmkernel_core.storage.buffer import Buffer
from vmkernel_core.storage.command import (
    MODE_SENSE_6,
    READ_10,
    READ_16,
    READ_CAPACITY_10,
    REPEATABLE,
    RETRIES,
    SERVICE_ACTION_IN_16,
    SYNCHRONIZE_CACHE_10,
    SYNCHRONIZE_CACHE_16,
    TIMEOUT,
    TRANSFER_10,
    TRANSFER_16,
    UNMAP,
    WRITE_10,
    WRITE_16,
    WRITE_SAME_16,
    Command,
    Completion,
    Direction,
    describe,
)
from vmkernel_core.storage.errors import IllegalRequest, NotReady, ScsiError, error_for
from vmkernel_core.storage.naming import device_name
from vmkernel_core.storage.sg_array import SgArray

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.storage.adapter import StorageAdapter, StorageStats

log = logging.getLogger(__name__)

#: active: it takes commands; blocked: they wait, its transport has lost it for now; dead: it answers no longer.
DeviceState: TypeAlias = Literal["active", "blocked", "dead"]

READ_CAPACITY_16 = 0x10  # a service action (SBC-3)
CACHING_PAGE = 0x08
#: A peripheral device type, and an additional sense code (SPC-4).
TYPE_ROM, MEDIUM_NOT_PRESENT = 0x05, 0x3A
#: Seconds for a flush: a cache may be large, its disks slow.
FLUSH_TIMEOUT = 60.0
#: Blocks that one UNMAP or WRITE SAME names when the device sets no limit.
DISCARD_MOST = 1 << 22


class DeviceDriver(Protocol):
    """What stands behind a device; vmklinux makes it of a scsi_device."""

    memory: MachineMemory

    @property
    def max_transfer(self) -> int:
        """Bytes that one command may transfer."""

    @property
    def alignment(self) -> int:
        """Bytes; pieces of data begin and end at multiples of it."""

    def inquiry(self) -> bytes:
        """Its standard INQUIRY data."""

    def vpd(self, page: int) -> bytes:
        """A page of vital product data, with its header; b"" when it has none."""

    def address(self) -> tuple[int, int, int]:
        """Channel, target and LUN on its adapter."""

    def state(self) -> DeviceState:
        """How the way to it is."""

    def set_online(self, on: bool) -> None:
        """Take it offline, or bring it back; UsageError."""

    def queue_depth(self) -> int:
        """Commands that it takes at once."""

    def set_queue_depth(self, depth: int) -> int:
        """Ask for another depth; the one it has then."""

    def configured(self, block_size: int) -> None:
        """The device's block size is known."""

    def fits(self, buffer: SgArray, offset: int, length: int) -> int:
        """How many bytes of that part of a buffer one command can carry, for the pieces that they lie in."""

    def execute(self, command: Command) -> Completion:
        """Send one command and wait for its end, wherever this is called. DeviceGone."""

    def submit(self, commands: Sequence[tuple[int, Command]]) -> int:
        """Send commands, each with a number of the caller's; how many were taken, in their order.

        DeviceGone; UsageError when the data of one does not fit.
        """

    def reap(self, most: int) -> list[tuple[int, Completion]]:
        """Fetch the numbers of commands that ended, and their ends."""

    def wait(self, timeout: float) -> bool:
        """Wait, in seconds, until there is something to reap; whether there is. Ends when the device goes."""

    def stats(self) -> StorageStats:
        """Counters."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may do: bytes it transfers, and how blocks are given back (``discard``).

    ``discard`` is the operation code that does it, 0 when none; ``discard_most`` the blocks that one may name.
    ``alignment``: bytes; the pieces of an SgArray begin and end at multiples of it (the end of the last one is free).
    """

    transfer: int
    alignment: int
    discard: int = 0
    discard_most: int = 0


class Request:
    """A command that was submitted. ``result`` waits for it; ``buffer`` holds what was read.

    It is None without data, and for data in an SgArray of the caller's.
    """

    __slots__ = ("_device", "command", "completion")

    def __init__(self, device: StorageDevice, command: Command) -> None:
        self._device = device
        self.command = command
        self.completion: Completion | None = None

    @property
    def buffer(self) -> Buffer | None:
        """What its data lies in."""
        return self.command.buffer if isinstance(self.command.buffer, Buffer) else None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.completion is not None

    def wait(self, timeout: float | None = None) -> Completion:
        """Wait for its end, whatever that is; TimedOut when it has none yet after ``timeout`` seconds.

        Without a timeout: as long as the device may take, error handling included. It stays in flight then.
        """
        return self.completion or self._device._await(self, timeout)

    def result(self, timeout: float | None = None) -> Completion:
        """Wait for its end and raise the ScsiError that it ended with, if it did."""
        completion = self.completion or self._device._await(self, timeout)
        if not completion.good:
            raise error_for(completion, describe(self.command.cdb), self._device.name)
        return completion


class StorageDevice:
    """A disk, or a disk that a RAID controller makes of several; or a CD drive.

    ``name`` is what it calls itself by (``naa.…``, ``eui.…``, ``t10.…``), else ``path``, its place
    (``vmhba0:C0:T1:L0``). ``blocks`` of ``block_size`` bytes each. Its methods may be called from several threads.
    ``kind`` is its peripheral device type (SPC-4, 6.6.2): 0 a disk, 5 a CD or DVD drive. ``medium``: whether there is
    one in a drive whose medium can be taken out; without, it has no blocks.
    ``write_cache``: whether it may hold what was written in memory that forgets: only ``flush`` makes sure.
    """

    def __init__(self, adapter: StorageAdapter, driver: DeviceDriver) -> None:
        """Ask the device what it is; ScsiError when it does not say."""
        self.adapter = adapter
        self._driver = driver
        self._lock = threading.Lock()
        self._pending: dict[int, Request] = {}
        self._serial = 0
        self.error: VmkError | None = None
        channel, target, lun = driver.address()
        self.path = f"{adapter.name}:C{channel}:T{target}:L{lun}"
        self.name = device_name(driver.vpd(0x83), driver.vpd(0x80), driver.inquiry()) or self.path
        inquiry = driver.inquiry()
        self.vendor, self.model, self.revision = (
            inquiry[start:end].decode("ascii", "replace").strip(" \0")
            for start, end in ((8, 16), (16, 32), (32, 36))
        )
        self.kind = inquiry[0] & 0x1F
        self.removable = bool(inquiry[1] & 0x80)
        self.blocks = 0
        self.block_size = 512
        self._thin = False
        self.refresh()

    # ---- what it is ----

    def refresh(self) -> None:
        """Ask it again for what may have changed: medium, capacity, write cache and protection, limits.

        Where the adapter tells of a change, this is done by itself (event "changed"). ScsiError, DeviceGone.
        """
        self.medium = True
        try:
            self._measure(self._driver.inquiry()[2])
        except NotReady as error:
            if error.sense is None or error.sense.asc != MEDIUM_NOT_PRESENT:
                raise
            self.medium, self.blocks = False, 0
        self.write_cache, protected = self._mode()
        self.read_only = protected or self.kind == TYPE_ROM
        self.limits = self._limits()
        self._driver.configured(self.block_size)

    @property
    def state(self) -> DeviceState:
        """How the way to it is."""
        return "dead" if self.error else self._driver.state()

    def set_online(self, on: bool) -> None:
        """Take it offline, or bring it back after error handling, or somebody, has taken it offline.

        While it is offline every command ends at once with PathLost. What waits in the device is not touched.
        UsageError for a device that is going, DeviceGone.
        """
        if self.error:
            raise self.error
        self._driver.set_online(on)

    @property
    def capacity(self) -> int:
        """Its size in bytes."""
        return self.blocks * self.block_size

    @property
    def queue_depth(self) -> int:
        """Commands that it takes at once; more that are submitted wait on this side."""
        return self._driver.queue_depth()

    @queue_depth.setter
    def queue_depth(self, depth: int) -> None:
        if depth < 1:
            raise UsageError(f"a queue depth of {depth}", where=self.name)
        self._driver.set_queue_depth(depth)

    def _measure(self, version: int) -> None:
        """READ CAPACITY: the long form first where the device is new enough to have it (SPC-3), as Linux does.

        A CD drive need not know it (MMC-6); one of ATA's takes no CDB of 16 bytes at all.
        """
        long = version >= 5 and self.kind != TYPE_ROM
        if not long or not self._measure_long():
            answer = self._ask(bytes([READ_CAPACITY_10, *bytes(9)]), 8, "READ CAPACITY(10)")
            last, self.block_size = struct.unpack(">II", answer)
            self.blocks = last + 1
            if last == 0xFFFF_FFFF:
                self._measure_long()

    def _measure_long(self) -> bool:
        cdb = struct.pack(">BBQIBB", SERVICE_ACTION_IN_16, READ_CAPACITY_16, 0, 32, 0, 0)
        try:
            answer = self._ask(cdb, 32, "READ CAPACITY(16)")
        except IllegalRequest:
            return False
        last, self.block_size = struct.unpack_from(">QI", answer)
        self.blocks = last + 1
        self._thin = bool(answer[14] & 0x80)
        return True

    def _mode(self) -> tuple[bool, bool]:
        """Write cache on, and write protected, as MODE SENSE says; a device without it has neither."""
        try:
            page = self._ask(bytes([MODE_SENSE_6, 0, CACHING_PAGE, 0, 192, 0]), 192, "MODE SENSE")
        except ScsiError as error:
            log.debug("%s: %s", self.path, error)
            return False, False
        at = 4 + page[3]
        cached = len(page) > at + 2 and page[at] & 0x3F == CACHING_PAGE and bool(page[at + 2] & 4)
        return cached, bool(page[2] & 0x80)

    def _limits(self) -> Limits:
        transfer, most = self._driver.max_transfer, DISCARD_MOST
        block_limits, provisioning = self._driver.vpd(0xB0), self._driver.vpd(0xB2)
        if len(block_limits) >= 12 and (blocks := int.from_bytes(block_limits[8:12], "big")):
            transfer = min(transfer, blocks * self.block_size)
        if len(block_limits) >= 24 and (blocks := int.from_bytes(block_limits[20:24], "big")):
            most = min(most, blocks)
        transfer = max(transfer // self.block_size, 1) * self.block_size
        how = provisioning[5] if len(provisioning) >= 6 else 0
        discard = UNMAP if how & 0x80 else WRITE_SAME_16 if how & 0x40 else 0
        return Limits(transfer, self._driver.alignment, discard if self._thin else 0, most)

    def _ask(self, cdb: bytes, length: int, what: str) -> bytes:
        """Send a command that fetches data, while the device is set up; its data."""
        with Buffer(self._driver.memory, length) as buffer:
            buffer.view[:] = bytes(length)
            # A device that was just reset says so (unit attention) before it answers.
            for _ in range(RETRIES):
                command = Command(cdb, Direction.FROM_DEVICE, buffer, 0, length, privileged=True)
                completion = self._driver.execute(command)
                if completion.good:
                    return bytes(buffer.view[: length - completion.residual]).ljust(length, b"\0")
                error = error_for(completion, what, self.path)
                if error.sense is None or error.sense.key != 6:
                    break
            raise error

    # ---- commands ----

    def submit(
        self,
        cdb: bytes,
        direction: Direction = Direction.NONE,
        data: bytes | int | SgArray = 0,
        *,
        timeout: float = TIMEOUT,
        retries: int | None = None,
    ) -> Request:
        """Send a SCSI command of the caller's own; a Request to wait for.

        ``retries``: how often it may be sent again when it, or its answer, was lost. None: five times if it may be done
        twice (REPEATABLE), else never: it ends with PathLost or CommandTimedOut then, and may have been done; or with
        a unit attention, and has not.
        ``data``: the bytes to send, how many bytes to fetch, or a Buffer or SgArray for either. UsageError, also when
        that lies in more pieces than the adapter takes in one command; DeviceGone.
        """
        if not 6 <= len(cdb) <= 32:
            raise UsageError(f"a CDB of {len(cdb)} bytes", remedy="6 to 32")
        if retries is None:
            retries = RETRIES if cdb[0] in REPEATABLE else 0
        buffer = self._buffer_for(data)
        length = buffer.length if buffer else 0
        command = Command(cdb, direction, buffer, 0, length, timeout=timeout, retries=retries)
        return self._send([Request(self, command)])[0]

    def _buffer_for(self, data: bytes | int | SgArray) -> SgArray | None:
        if isinstance(data, SgArray):
            return data
        if not data:
            return None
        buffer = Buffer(self._driver.memory, data if isinstance(data, int) else len(data))
        if not isinstance(data, int):
            buffer.view[:] = data
        return buffer

    def buffer(self, length: int) -> Buffer:
        """A buffer of so many bytes in machine memory, which a device reads and writes without a copy."""
        return Buffer(self._driver.memory, length)

    def start_read(self, lba: int, count: int, buffer: SgArray | None = None) -> list[Request]:
        """Begin to read ``count`` blocks from ``lba`` on into a buffer; one Request for each command that it takes."""
        return self.start(
            self.read_commands(lba, count, buffer or self.buffer(max(count, 1) * self.block_size))
        )

    def start_write(self, lba: int, data: bytes | SgArray) -> list[Request]:
        """Begin to write; one Request for each command that it takes. A buffer must not change before they end."""
        length = data.length if isinstance(data, SgArray) else len(data)
        count = self._whole(length)
        self._inside(lba, count)
        buffer = self._buffer_for(data)
        assert buffer is not None
        return self.start(self.write_commands(lba, count, buffer))

    def read_commands(self, lba: int, count: int, buffer: SgArray, offset: int = 0) -> list[Command]:
        """The commands that read ``count`` blocks from ``lba`` on into a buffer, from byte ``offset`` on.

        ``start`` sends those of many transfers at once. UsageError out of range.
        """
        return self._transfers(READ_10, READ_16, Direction.FROM_DEVICE, lba, count, buffer, offset)

    def write_commands(self, lba: int, count: int, buffer: SgArray, offset: int = 0) -> list[Command]:
        """The commands that write ``count`` blocks from ``lba`` on out of a buffer, from byte ``offset`` on."""
        return self._transfers(WRITE_10, WRITE_16, Direction.TO_DEVICE, lba, count, buffer, offset)

    def read(self, lba: int, count: int) -> bytes:
        """Read ``count`` blocks from block ``lba`` on. UsageError out of range, ScsiError, DeviceGone, TimedOut."""
        self._inside(lba, count)
        buffer = self.buffer(count * self.block_size)
        self.read_into(lba, buffer, count)
        data = bytes(buffer.view)
        buffer.close()  # not where that failed: what is still in flight holds it
        return data

    def read_into(self, lba: int, buffer: SgArray, count: int = 0) -> None:
        """Read blocks into a buffer, which they fill unless ``count`` is given. Raises what ``read`` does.

        An SgArray takes them where its pieces lie.
        """
        _all(self.start_read(lba, count or self._whole(buffer.length), buffer))

    def write(self, lba: int, data: bytes | SgArray) -> None:
        """Write whole blocks from block ``lba`` on; it returns when the device has taken all of them.

        Any that failed is reported: ScsiError. Those of a device with a ``write_cache`` are safe after ``flush``.
        """
        _all(self.start_write(lba, data))

    def flush(self) -> None:
        """Have everything that was written reach the medium (SYNCHRONIZE CACHE); ScsiError when it did not."""
        cdb = bytes([SYNCHRONIZE_CACHE_10, *bytes(9)])
        if self.blocks > 1 << 32:
            cdb = bytes([SYNCHRONIZE_CACHE_16, *bytes(15)])
        try:
            self._send([Request(self, Command(cdb, timeout=FLUSH_TIMEOUT))])[0].result()
        except IllegalRequest:
            if self.write_cache:
                raise
            # A device without a cache need not know the command.

    def discard(self, lba: int, count: int) -> None:
        """Give ``count`` blocks from ``lba`` on back: what is read there afterwards is not defined.

        NotSupported when the device cannot, UsageError out of range, ScsiError.
        """
        self._inside(lba, count)
        if not self.limits.discard:
            raise NotSupported(f"{self.name} does not give blocks back", remedy="limits.discard tells")
        requests = []
        while count:
            part = min(count, self.limits.discard_most)
            if self.limits.discard == UNMAP:
                cdb, data = (
                    struct.pack(">BBIBHB", UNMAP, 0, 0, 0, 24, 0),
                    struct.pack(">HHIQII", 22, 16, 0, lba, part, 0),
                )
            else:
                cdb = struct.pack(">BBQIBB", WRITE_SAME_16, 8, lba, part, 0, 0)
                data = bytes(self.block_size)
            requests.append(self.submit(cdb, Direction.TO_DEVICE, data))
            lba, count = lba + part, count - part
        _all(requests)

    def _whole(self, length: int) -> int:
        if not length or length % self.block_size:
            raise UsageError(
                f"{length} bytes are not whole blocks",
                where=self.name,
                remedy=f"multiples of {self.block_size}",
            )
        return length // self.block_size

    def _inside(self, lba: int, count: int) -> None:
        if lba < 0 or count < 1 or lba + count > self.blocks:
            raise UsageError(
                f"{count} blocks from {lba} on are not inside the device",
                where=self.name,
                remedy=f"it has {self.blocks} blocks"
                if self.medium
                else "it has no medium; refresh() looks for one",
            )

    def _transfers(
        self, short: int, long: int, way: Direction, lba: int, count: int, buffer: SgArray, offset: int
    ) -> list[Command]:
        """Cut a transfer into commands, with the ten byte form of the CDB wherever it will do."""
        self._inside(lba, count)
        size = count * self.block_size
        if offset < 0 or offset + size > buffer.length:
            raise UsageError(f"a buffer of {buffer.length - offset} bytes for {size}", where=self.name)
        commands = []
        while count:
            part = self._part(buffer, offset, count)
            where, size = lba, part * self.block_size
            if where + part <= 1 << 32 and part < 1 << 16:
                cdb = TRANSFER_10.pack(short, 0, where, 0, part, 0)
            else:
                cdb = TRANSFER_16.pack(long, 0, where, part, 0, 0)
            commands.append(Command(cdb, way, buffer, offset, size))
            lba, count, offset = lba + part, count - part, offset + size
        return commands

    def _part(self, buffer: SgArray, offset: int, count: int) -> int:
        """How many of ``count`` blocks, whose data lie from a byte of a buffer on, one command can carry."""
        part = min(self.limits.transfer // self.block_size, count)
        if buffer.count > 1:  # limits.transfer is made for one piece
            part = self._driver.fits(buffer, offset, part * self.block_size) // self.block_size
        if not part:
            raise UsageError(
                "a block lies in pieces that the adapter cannot take",
                where=self.name,
                remedy=f"fewer of them, which begin and end at multiples of {self.limits.alignment}",
            )
        return part

    def start(self, commands: Sequence[Command]) -> list[Request]:
        """Send several commands at once; a Request for each. DeviceGone, UsageError (data that does not fit)."""
        return self._send([Request(self, command) for command in commands])

    def wait(self, timeout: float) -> None:
        """Wait until commands in flight have ended, for so many seconds at most; Request.done says which."""
        self._driver.wait(timeout)
        self._reap()

    def _send(self, requests: list[Request]) -> list[Request]:
        if self.error:
            raise self.error
        with self._lock:
            first = self._serial + 1
            self._serial += len(requests)
            numbered = dict(enumerate(requests, first))
            self._pending.update(numbered)
        waiting = [(number, request.command) for number, request in numbered.items()]
        try:
            while waiting:
                taken = self._driver.submit(waiting)
                waiting = waiting[taken:]
                if waiting:  # more than this side keeps: some have to end first
                    self._driver.wait(TIMEOUT)
                    self._reap()
        except BaseException:
            with self._lock:
                for number, _ in waiting:
                    del self._pending[number]
            raise
        return requests

    def _reap(self) -> None:
        with self._lock:
            for number, completion in self._driver.reap(len(self._pending)):
                self._pending.pop(number).completion = completion

    def _await(self, request: Request, timeout: float | None) -> Completion:
        command = request.command
        allowed = command.timeout * (command.retries + 2) + FLUSH_TIMEOUT if timeout is None else timeout
        deadline = time.monotonic() + allowed
        while True:
            left = deadline - time.monotonic()
            # Another thread may fetch its end: nobody waits for long without looking.
            self._driver.wait(max(0.0, min(left, 0.1)))
            self._reap()
            if completion := request.completion:
                return completion
            if left <= 0:
                what = describe(command.cdb)
                raise TimedOut(f"{what} has not ended after {allowed:.0f} s", where=self.name)

    @property
    def in_flight(self) -> int:
        """Commands that were submitted and have not ended."""
        self._reap()
        with self._lock:
            return len(self._pending)

    def stats(self) -> StorageStats:
        """Counters since the device appeared."""
        return self._driver.stats()

    def removed(self, error: VmkError) -> None:
        """The way to it has gone: what is in flight ends with PathLost, what comes later raises ``error``."""
        if self.error is None:
            self.error = error

    def __repr__(self) -> str:
        """Name, size and what it is."""
        return f"<StorageDevice {self.name}: {self.vendor} {self.model}, {self.blocks} blocks of {self.block_size}>"

    def __enter__(self) -> StorageDevice:
        """Use it as a context manager that flushes it at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush, unless the way to it has gone."""
        if self.error is None:
            self.flush()


def _all(requests: Sequence[Request]) -> None:
    """Wait for all of them, then raise the error of the first that failed: none is left behind in flight."""
    for request in requests:
        request.wait()
    for request in requests:
        request.result()
