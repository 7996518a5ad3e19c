"""The far end of a wire, for tests that let frames pile up."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
import time

from tests.e2e.conftest import LIMIT


def wait_until_taken(wire: socket.socket) -> None:
    """Until QEMU has read all that was sent to it."""
    deadline = time.monotonic() + LIMIT
    while int.from_bytes(fcntl.ioctl(wire, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
        assert time.monotonic() < deadline, "QEMU does not read its wire"
        time.sleep(0.001)
