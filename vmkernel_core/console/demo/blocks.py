"""The demo's blocks on their way: several commands under way, each waited for where Ctrl-C is seen."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from vmkernel_core.console.demo.block_pattern import differing
from vmkernel_core.console.progress import Progress
from vmkernel_core.errors import TimedOut
from vmkernel_core.storage.command import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vmkernel_core.console.interruption import Interruption
    from vmkernel_core.storage.buffer import Buffer
    from vmkernel_core.storage.device import Request, StorageDevice

#: Seconds for one command; error handling may be at work meanwhile.
LIMIT: Final = 60.0
#: Pieces that are under way at a time.
_DEPTH: Final = 8

#: Blocks: the address of the first, and how many; and what gives such blocks' content.
Extent: TypeAlias = tuple[int, int]
Content: TypeAlias = "Callable[[int, int], bytes]"


class Blocks:
    """Reads and writes a disk; KeyboardInterrupt at a Ctrl-C, and what the commands end with: ScsiError, DeviceGone."""

    def __init__(self, disk: StorageDevice, ctrl_c: Interruption) -> None:
        self._disk = disk
        self._ctrl_c = ctrl_c

    def read(self, lba: int, count: int) -> bytes:
        """So many blocks."""
        with self._ended(self._disk.start_read(lba, count)) as buffer:
            return bytes(buffer.view)

    def differing(self, title: str, extents: Sequence[Extent], expected: Content) -> set[int]:
        """Read the extents; the addresses of blocks that are not as ``expected(lba, count)`` has them."""
        bad: set[int] = set()
        with Progress(title, len(extents)) as progress:
            started = ((extent, self._disk.start_read(*extent)) for extent in extents)
            for done, ((lba, count), requests) in enumerate(_several(started), 1):
                with self._ended(requests) as buffer:
                    bad.update(differing(lba, bytes(buffer.view), expected(lba, count)))
                progress.at(done)
        return bad

    def write(self, title: str, extents: Sequence[Extent], data: Content) -> None:
        """Write ``data(lba, count)`` to the extents, and have it reach the medium."""
        with Progress(title, len(extents)) as progress:
            started = ((extent, self._disk.start_write(extent[0], data(*extent))) for extent in extents)
            for done, (_, requests) in enumerate(_several(started), 1):
                self._ended(requests).close()
                progress.at(done)
        self._ctrl_c.check()
        self._disk.flush()

    def _ended(self, requests: Sequence[Request]) -> Buffer:
        """Wait for all of them; the buffer that they share. It must not be given back before."""
        for request in requests:
            if not self._ctrl_c.wait(partial(_ends, request), LIMIT):
                what = describe(request.command.cdb)
                raise TimedOut(f"{what} has not ended after {LIMIT:g} s", where=self._disk.name)
        for request in requests:
            request.result()
        buffer = requests[0].buffer
        assert buffer is not None
        return buffer


def _several(
    started: Iterable[tuple[Extent, list[Request]]],
) -> Iterable[tuple[Extent, list[Request]]]:
    """Start _DEPTH of them ahead of the one that is handed out."""
    under_way: deque[tuple[Extent, list[Request]]] = deque()
    for one in started:
        under_way.append(one)
        if len(under_way) == _DEPTH:
            yield under_way.popleft()
    yield from under_way


def _ends(request: Request, timeout: float) -> bool:
    try:
        request.wait(timeout)
    except TimedOut:
        return False
    return True
