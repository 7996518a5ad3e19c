"""The far end of a wire, for tests that let frames pile up."""

from __future__ import annotations

import fcntl
import sys
import termios
import time

from tests.e2e.conftest import LIMIT
from tests.native_drivers.one_nic import OneNic


def wait_until_taken(card: OneNic) -> None:
    """Until the card has all that was sent to it, and QEMU is done with that."""
    wire, deadline = card.peer.socket, time.monotonic() + LIMIT
    while int.from_bytes(fcntl.ioctl(wire, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
        assert time.monotonic() < deadline, "QEMU does not read its wire"
        time.sleep(0.001)
    # QEMU has read the last frame, and answers this when it is through with it.
    card.platform.config_read(card.driver.pdev.function.address, 0, 2)
