"""Random numbers (Linux drivers/char/random.c): from the host's generator."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vmkernel_core.memory import store_bytes
from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@linux_api()
def get_random_bytes(linux: Linux, buf: int, len: int) -> None:
    """Fill a buffer with random bytes."""
    store_bytes(buf, os.urandom(len))


@linux_api()
def get_random_u8(linux: Linux) -> int:
    """Give a random number of 8 bits."""
    return os.urandom(1)[0]


@linux_api()
def get_random_u16(linux: Linux) -> int:
    """Give a random number of 16 bits."""
    return int.from_bytes(os.urandom(2), "little")


@linux_api()
def get_random_u32(linux: Linux) -> int:
    """Give a random number of 32 bits."""
    return int.from_bytes(os.urandom(4), "little")


@linux_api()
def get_random_u64(linux: Linux) -> int:
    """Give a random number of 64 bits."""
    return int.from_bytes(os.urandom(8), "little")


@linux_api()
def __get_random_u32_below(linux: Linux, ceil: int) -> int:
    """Give a random number below a limit; any number when the limit is 0."""
    return int.from_bytes(os.urandom(8), "little") % (ceil or 1 << 32)
