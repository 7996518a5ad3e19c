"""Buses: how registers are reached, in C for QEMU, in Python for models in this process."""

from __future__ import annotations

import errno
import logging
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, TimedOut, UsageError, VmkError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_log = logging.getLogger(__name__)
_REPLY_SIZE = 1 << 16


class Space(IntEnum):
    """The address spaces of a bus, numbered as in core.h."""

    MEMORY = 0
    IO = 1


class Bus:
    """A way to registers: ``handle`` is the C core's ``struct vmk_bus *``, for windows and the idle loop.

    Addresses are bus addresses, sizes 1, 2, 4 or 8 bytes (I/O space: not 8). Threads may share a bus.
    """

    def __init__(self, handle: Any) -> None:
        """Take over a bus of the C core's; NULL stands for "no memory"."""
        if not handle:
            raise VmkError("no memory for a bus")
        self._handle = handle

    @property
    def handle(self) -> Any:
        """The C core's bus; DeviceGone after ``close``."""
        if self._handle is None:
            raise DeviceGone("the bus is closed", remedy="start its platform again")
        return self._handle

    def read(self, space: Space, address: int, size: int) -> int:
        """Read a register; all ones where nothing answers and once the bus is gone."""
        return int(lib.vmk_bus_read(self.handle, space, address, size))

    def read_rep(self, space: Space, address: int, size: int, count: int) -> list[int]:
        """Read the same register, a FIFO, ``count`` times; in one exchange where the bus can, which costs far less."""
        values = ffi.new("uint64_t[]", count)
        lib.vmk_bus_read_rep(self.handle, space, address, size, values, count)
        found: list[int] = ffi.unpack(values, count)
        return found

    def write(self, space: Space, address: int, size: int, value: int) -> None:
        """Write a register, wrapped to its size. It may be posted: a later read comes after it."""
        lib.vmk_bus_write(self.handle, space, address, size, value & ((1 << size * 8) - 1))

    def write_rep(self, space: Space, address: int, size: int, values: Sequence[int]) -> None:
        """Write the same register, a FIFO, several times: these have to fit its size."""
        lib.vmk_bus_write_rep(self.handle, space, address, size, ffi.new("uint64_t[]", values), len(values))

    def service(self) -> bool:
        """Take in interrupts that have come, without waiting; False once the bus is gone."""
        return bool(lib.vmk_bus_service(self.handle) == 0)

    @property
    def fd(self) -> int:
        """A descriptor that becomes readable when there is something to ``service``; -1: never, or gone."""
        return int(lib.vmk_bus_fd(self.handle))

    @property
    def gone(self) -> bool:
        """Whether the other side has gone (or the bus is closed): reads give all ones from then on."""
        return self._handle is None or bool(lib.vmk_bus_gone(self._handle))

    def close(self) -> None:
        """Free it; no window may be open on it any more. May be called twice."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            lib.vmk_bus_close(handle)


class QtestBus(Bus):
    """A bus over a connected socket to QEMU's qtest server; it takes the socket over."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over the connection; the socket object is detached from it."""
        super().__init__(lib.vmk_bus_qtest(connection.detach()))

    def command(self, line: str, timeout: float = 10.0) -> str:
        """Send one qtest command, wait ``timeout`` seconds at most, return what stands behind its "OK".

        Raises UsageError when QEMU refuses it, TimedOut, DeviceGone; VmkError for a reply above 64 KiB.
        """
        out = ffi.new("char[]", _REPLY_SIZE)
        length = lib.vmk_qtest_command(self.handle, line.encode(), out, _REPLY_SIZE, int(timeout * 1e9))
        if length < 0:
            kind, text = _COMMAND_ERRORS[-length]
            raise kind(text, where=f"qtest command {line!r}")
        word, _, rest = bytes(ffi.buffer(out, length)).decode("ascii", "replace").partition(" ")
        if word != "OK":
            raise UsageError(f"QEMU refuses it: {word} {rest}", where=f"qtest command {line!r}")
        return rest


_COMMAND_ERRORS: dict[int, tuple[type[VmkError], str]] = {
    errno.EINVAL: (UsageError, "a qtest command is one line that is not empty"),
    errno.ENODEV: (DeviceGone, "QEMU has gone"),
    errno.ENOSPC: (VmkError, "QEMU's reply is too long"),
    errno.ETIMEDOUT: (TimedOut, "QEMU did not reply in time"),
}


class PythonBus(Bus):
    """A bus of models that live in this process: a subclass gives the registers their meaning.

    The two methods are called from whatever thread accesses a register, so a model that is not only used
    by one world takes its own lock. A method that raises is logged, and the read gives all ones.
    """

    def __init__(self) -> None:
        """Make the C core's side of it."""
        self._self = ffi.new_handle(self)
        super().__init__(lib.vmk_bus_python(self._self))

    def register_read(self, space: Space, address: int, size: int) -> int:
        """The value of the register; it is wrapped to ``size`` bytes."""
        raise NotImplementedError

    def register_write(self, space: Space, address: int, size: int, value: int) -> None:
        """Take in a value written to a register."""
        raise NotImplementedError


@ffi.def_extern()  # type: ignore[untyped-decorator]  # cffi has no types for its decorators
def vmk_python_bus_read(handle: Any, space: int, address: int, size: int) -> int:
    """The C core's call into a model; core.h describes it."""
    ones = (1 << size * 8) - 1
    try:
        model: PythonBus = ffi.from_handle(handle)
        return model.register_read(Space(space), address, size) & ones
    except Exception:
        _log.exception("model failed at a read of %d bytes at %s %#x", size, Space(space).name, address)
        return ones


@ffi.def_extern()  # type: ignore[untyped-decorator]  # cffi has no types for its decorators
def vmk_python_bus_write(handle: Any, space: int, address: int, size: int, value: int) -> None:
    """The C core's call into a model; core.h describes it."""
    try:
        model: PythonBus = ffi.from_handle(handle)
        model.register_write(Space(space), address, size, value)
    except Exception:
        _log.exception("model failed at a write of %d bytes at %s %#x", size, Space(space).name, address)
