"""Ctrl-C where kernel code runs: noted at once, obeyed where nothing is left half done."""

from __future__ import annotations

import signal
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

#: Seconds until a wait looks whether it was interrupted.
SLICE = 0.2


class Interruption:
    """In its context Ctrl-C takes effect at ``check`` and in ``wait`` only; a second Ctrl-C does so at once.

    An exception out of the blue would end a device model or an emulated function in the middle of its work, and
    be lost there, as there is C between it and whoever should see it.
    """

    def __init__(self) -> None:
        """Nobody has interrupted."""
        self._noted = False

    def __enter__(self) -> Interruption:
        """Take over Ctrl-C; in the main thread only."""
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal passes it
        if self._noted:
            raise KeyboardInterrupt
        self._noted = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a Ctrl-C."""
        if self._noted:
            raise KeyboardInterrupt

    def wait(self, ready: Callable[[float], bool], limit: float) -> bool:
        """Call ``ready`` (it waits for the seconds it is given, and says whether it has it) until it says yes.

        False when ``limit`` seconds have passed.
        """
        deadline = monotonic() + limit
        while True:
            self.check()
            left = deadline - monotonic()
            if ready(max(0.0, min(left, SLICE))):
                return True
            if left <= 0:
                return False
