"""Interrupt handlers written in Python; lines and delivery are in interrupt.c."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds after which an operator's interrupt comes again: the call into Python that it hit is over then.
_AGAIN = 0.001


class Handler:
    """A function that is called, with the baton, at a delivery point after its line was asserted; until ``remove``.

    It tells whether its device had asked: a line that nobody serves is disabled in the end. UsageError for a line that
    there is not.
    """

    def __init__(self, line: int, function: Callable[[], bool]) -> None:
        self.line = line
        self.function = function
        self._handle = ffi.new_handle(self)
        self._cookie = int(ffi.cast("uint64_t", self._handle))
        entry = int(ffi.cast("uint64_t", ffi.addressof(lib, "vmk_python_irq")))
        lib.vmk_baton_take()
        try:
            if lib.vmk_irq_add(line, entry, self._cookie):
                raise UsageError(f"no interrupt line {line}")
        finally:
            lib.vmk_baton_drop()

    def remove(self) -> None:
        """It is not called any more. May be called twice."""
        lib.vmk_baton_take()
        try:
            lib.vmk_irq_remove(self.line, self._cookie)
        finally:
            lib.vmk_baton_drop()


def interrupt_program() -> None:
    """A KeyboardInterrupt came where C called Python, and would end there: have it come again, to the program."""
    program = threading.main_thread().ident
    assert program is not None
    threading.Timer(_AGAIN, signal.pthread_kill, (program, signal.SIGINT)).start()


@ffi.def_extern()  # type: ignore[untyped-decorator]  # cffi has no types for its decorators
def vmk_python_irq(line: int, cookie: Any) -> int:
    """The C core's call of a handler; core_build.py declares it."""
    try:
        handler: Handler = ffi.from_handle(cookie)
        return int(handler.function())
    except KeyboardInterrupt:
        interrupt_program()
        return 0
    except Exception:
        log.exception("the handler of line %d failed", line)
        return 0
