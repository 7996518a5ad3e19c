"""SCSI commands that libiscsi has on one connection, and task management (RFC 7143, 11.3 to 11.6).

Data goes from and to the memory that a command names, without a copy. The library refers to a task for longer than the
command lives: of a write that the target ended early, or that was aborted, data may be queued, or half sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from native_drivers.scsi.vmkiscsi.library import Event, Residual, TaskFunction, TaskStatus, Transfer
from vmkernel_core.storage.command import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from native_drivers.scsi.vmkiscsi.library import Library

#: Gets a target's response to task management (RFC 7143, 11.6.1), or None when the connection ended first.
Answer: TypeAlias = "Callable[[int | None], None]"
_NO_TAG = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a SCSI command: its status, or a TaskStatus; bytes that were not transferred; sense data."""

    status: int
    residual: int = 0
    sense: bytes = b""


_GOOD = Outcome(Status.GOOD)


class _Task:
    """A command that the library has: its scsi_task, and the list of pieces that this one refers to."""

    __slots__ = ("handle", "pieces")

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.pieces: Any = None


class Tasks:
    """The commands of a context, by the caller's numbers.

    ``ended`` has the numbers of those that ended since the owner last emptied it, with their ends. ``lost``: the library
    gave up the connection. ``failure`` is an exception that could not be raised out of a call of the library's.
    """

    def __init__(self, library: Library, context: Any) -> None:
        """None yet."""
        self.ended: list[tuple[int, Outcome]] = []
        self.lost = False
        self.failure: BaseException | None = None
        self._lib, self._ffi, self._context = library.lib, library.ffi, context
        self._tasks: dict[int, _Task] = {}
        self._stale: list[_Task] = []
        self._limbo: list[_Task] = []
        self._answers: dict[int, Answer] = {}
        self._serial = 0
        # The library holds the addresses of these.
        self._on_end = library.callback(self._end, self.failed)
        self._on_management = library.callback(self._managed, self.failed)

    def failed(self, error: BaseException) -> None:
        """A function that the library called raised."""
        self.failure = self.failure or error

    def issue(
        self, number: int, lun: int, cdb: bytes, pieces: Sequence[tuple[int, int]], length: int, writes: bool
    ) -> None:
        """Queue a command, whose data lies in ``pieces``: addresses of this process, and lengths."""
        lib = self._lib
        way = (Transfer.WRITE if writes else Transfer.READ) if length else Transfer.NONE
        handle = lib.scsi_create_task(len(cdb), cdb, way, length)
        task = self._tasks[number] = _Task(handle)
        if length:
            task.pieces = self._ffi.new("struct scsi_iovec[]", pieces)
            set_pieces = lib.scsi_task_set_iov_out if writes else lib.scsi_task_set_iov_in
            set_pieces(handle, task.pieces, len(pieces))
        if lib.iscsi_scsi_command_async(self._context, lun, handle, self._on_end, self._ffi.NULL, number) < 0:
            self.lost = True

    def _end(self, _context: Any, status: int, _data: Any, number: int) -> None:
        if status == TaskStatus.CANCELLED:  # by forget(), or with all others
            self.lost = self.lost or number in self._tasks
            return
        task = self._tasks.pop(number)
        handle = task.handle
        residual = handle.residual if handle.residual_status == Residual.UNDERFLOW else 0
        if status == Status.GOOD:
            self.ended.append((number, Outcome(status, residual) if residual else _GOOD))
            self._lib.scsi_free_scsi_task(handle)
            return
        sense, data = b"", handle.datain
        if status == Status.CHECK_CONDITION and data.size > 2:
            # The length of the sense data comes before them (RFC 7143, 11.4.7.2).
            raw = bytes(self._ffi.buffer(data.data, data.size))
            sense = raw[2 : 2 + int.from_bytes(raw[:2], "big")]
        self.ended.append((number, Outcome(status, residual, sense)))
        self._stale.append(task)

    def forget(self, number: int) -> bool:
        """Take a command back after the target forgot it.

        False when the target never heard of it: its number is missing there, and the connection of no use any more.
        """
        task = self._tasks.pop(number)
        queued = self._lib.iscsi_out_queue_length(self._context)
        self._lib.iscsi_scsi_cancel_task(self._context, task.handle)
        heard = self._lib.iscsi_out_queue_length(self._context) == queued
        self._stale.append(task)
        self.settle()
        return bool(heard)

    def settle(self) -> None:
        """Take data that nobody wants any more out of the queue. Not in a call of the library's."""
        for task in self._stale:
            while self._lib.iscsi_scsi_cancel_task(self._context, task.handle) == 0:
                pass
        self._limbo += self._stale
        self._stale.clear()
        if (
            self._limbo and not self._lib.iscsi_which_events(self._context) & Event.OUT
        ):  # nothing is half sent
            self._free()

    def _free(self) -> None:
        for task in self._limbo:
            self._lib.scsi_free_scsi_task(task.handle)
        self._limbo.clear()

    def abort(self, number: int, answer: Answer) -> bool:
        """Have the target abort a command; False when it cannot be asked."""
        handle = self._tasks[number].handle
        return self._manage(TaskFunction.ABORT_TASK, handle.lun, handle.itt, handle.cmdsn, answer)

    def reset_lun(self, lun: int, answer: Answer) -> bool:
        """Have the target reset a logical unit; likewise."""
        return self._manage(TaskFunction.LUN_RESET, lun, _NO_TAG, 0, answer)

    def _manage(self, function: TaskFunction, lun: int, tag: int, cmdsn: int, answer: Answer) -> bool:
        self._serial += 1
        number, manage = self._serial, self._lib.iscsi_task_mgmt_async
        self._answers[number] = answer
        if manage(self._context, lun, function, tag, cmdsn, self._on_management, number) < 0:
            del self._answers[number]
            return False
        return True

    def _managed(self, _context: Any, status: int, data: Any, number: int) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer(None if status else self._ffi.cast("uint32_t *", data)[0])

    def close(self) -> None:
        """The context has gone: no command ends any more."""
        self._limbo += [*self._stale, *self._tasks.values()]
        self._stale.clear()
        self._tasks.clear()
        self._free()
        for number in list(self._answers):
            self._answers.pop(number)(None)
