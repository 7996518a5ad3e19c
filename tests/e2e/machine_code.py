"""Functions of machine code for tests that need a callback of a known effect: x86-64, System V calling convention."""

from __future__ import annotations

from vmkernel_core.memory import store_bytes
from vmklinux.linux import Linux

_PAGE = 0x7F20_0000
_RWX = 7
#: Results of interrupt handlers (include/linux/irqreturn.h).
IRQ_NONE, IRQ_HANDLED, IRQ_WAKE_THREAD = 0, 1, 2
RET = b"\xc3"
#: Adds one to the 32-bit counter at the second argument, as an interrupt handler gets its cookie; at the first argument.
COUNT_ARG2, COUNT_ARG1 = b"\xff\x06", b"\xff\x07"


def returns(value: int) -> bytes:
    """The end of a function: its result, and the way back."""
    return b"\xb8" + value.to_bytes(4, "little") + RET


def call(function: int) -> bytes:
    """A call of a function below 4 GiB with the arguments that this one got; the stack stays aligned."""
    return b"\x57\x56\x50\xb8" + function.to_bytes(4, "little") + b"\xff\xd0\x58\x5e\x5f"


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
