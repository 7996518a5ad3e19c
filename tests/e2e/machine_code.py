"""Functions of machine code for tests that need a callback of a known effect: x86-64, System V calling convention."""

from __future__ import annotations

from vmkernel_core.memory import store_bytes
from vmklinux.linux import Linux

_PAGE = 0x7F20_0000
_RWX = 7
#: Results of interrupt handlers (include/linux/irqreturn.h).
IRQ_NONE, IRQ_HANDLED = 0, 1
RET = b"\xc3"
#: Adds one to the 32-bit counter at the second argument, where an interrupt handler gets its cookie.
COUNT_ARG2 = b"\xff\x06"


def returns(value: int) -> bytes:
    """The end of a function: its result, and the way back."""
    return b"\xb8" + value.to_bytes(4, "little") + RET


class Code:
    """A page for such functions below 2 GiB, where kernel code lies."""

    def __init__(self, linux: Linux) -> None:
        """Map it."""
        linux.map_at(_PAGE, 4096, _RWX)
        self._next = _PAGE

    def add(self, code: bytes) -> int:
        """Put a function there; its address."""
        address, self._next = self._next, self._next + -(-len(code) // 16) * 16
        store_bytes(address, code)
        return address
