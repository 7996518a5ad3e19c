"""How far a long run has come, on standard error; a short one shows nothing."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from rich.progress import Progress as Bars

_T = TypeVar("_T")

#: Seconds until a terminal shows a bar, and between lines where there is no terminal.
PATIENCE = 1.0
LINE_EVERY = 5.0


class Progress:
    """A bar on a terminal, a line now and then elsewhere. Use it as a context manager; ``at`` tells how far it is."""

    def __init__(self, title: str, total: int | None) -> None:
        """``title`` says what is counted, up to ``total`` where that is known."""
        self._title = title
        self._total = total
        self._stack = ExitStack()
        self._bars: Bars | None = None
        self._terminal = sys.stderr.isatty()
        self._next = monotonic() + (PATIENCE if self._terminal else LINE_EVERY)

    def __enter__(self) -> Progress:
        """Begin to wait for something to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wipe the bar off."""
        self._stack.close()

    def at(self, done: int) -> None:
        """So many are done."""
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done)
        elif monotonic() >= self._next:
            if self._terminal:
                self._bars = self._new_bar(done)
            else:
                self._next += LINE_EVERY
                of = "" if self._total is None else f" of {self._total}"
                print(f"{self._title}: {done}{of}", file=sys.stderr, flush=True)

    def over(self, found: Iterable[_T]) -> Iterator[_T]:
        """The same, counted as they are taken."""
        for number, each in enumerate(found):
            self.at(number)
            yield each

    def _new_bar(self, done: int) -> Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bars = self._stack.enter_context(Bars(*columns, console=Console(stderr=True), transient=True))
        bars.add_task(self._title, total=self._total, completed=done)
        return bars
