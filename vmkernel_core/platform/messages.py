"""Message interrupts (PCI Local Bus 3.0, 6.8): what a device writes, and where, to raise an interrupt line."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.bus import Bus
from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Message:
    """The 32-bit write that raises a line: ``data`` to the bus address ``address``."""

    address: int
    data: int


class MessageInterrupts(Bus):
    """The lines of a platform that messages raise; the idle loop watches it as it watches a bus with registers.

    The platform makes a device's write of the 32-bit word ``n`` to the bus address ``address`` a write of the
    n-th eventfd; that one raises line ``first + n``. Lines are given out and taken back under the baton.
    """

    def __init__(self, address: int, first: int, eventfds: Sequence[int]) -> None:
        """Take over the eventfds. ``first`` is a multiple of 32: the lines of one device differ in low bits only."""
        super().__init__(lib.vmk_bus_messages())
        self._address = address
        self._first = first
        self._eventfds = list(eventfds)
        self._used: set[int] = set()

    def allocate(self, count: int, *, aligned: bool = False) -> list[int]:
        """Give out lines; fewer than ``count``, or none, when there are not so many.

        ``aligned``: a power of two of consecutive lines whose data differ in the low bits only, as MSI wants them:
        the largest block there is, at most ``count`` lines.
        """
        free = [
            line for line in range(self._first, self._first + len(self._eventfds)) if line not in self._used
        ]
        taken = _block(free, count) if aligned else free[:count]
        for line in taken:
            error = lib.vmk_messages_open(self.handle, self._eventfd(line), line)
            if error:
                raise VmkError(f"cannot watch for messages: {os.strerror(-error)}", where=f"line {line}")
            self._used.add(line)
        return taken

    def release(self, line: int) -> None:
        """Take a line back; a message that is under way is forgotten. Its handlers are gone already."""
        self._used.discard(line)
        error = lib.vmk_messages_close(self.handle, self._eventfd(line))
        if error not in (0, -errno.ENOENT):
            raise VmkError(f"cannot stop watching for messages: {os.strerror(-error)}", where=f"line {line}")
        lib.vmk_irq_unpulse(line)

    def message(self, line: int) -> Message:
        """What raises the line."""
        return Message(self._address, line - self._first)

    def close(self) -> None:
        """Close the eventfds too. Unwatch it first. May be called twice."""
        super().close()
        for eventfd in self._eventfds:
            os.close(eventfd)
        self._eventfds.clear()

    def _eventfd(self, line: int) -> int:
        return self._eventfds[line - self._first]


def _block(free: Sequence[int], count: int) -> list[int]:
    """The largest aligned power of two of consecutive lines, at most ``count``, among the free ones."""
    size = 1 << count.bit_length() - 1
    while size:
        for start in free:
            if start % size == 0 and set(range(start, start + size)) <= set(free):
                return list(range(start, start + size))
        size >>= 1
    return []
