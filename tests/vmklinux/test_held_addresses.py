"""The addresses below 2 GiB at which a kernel runs are kept free, whatever else the program maps.

Independent side: Linux, which lists the mappings of the process and places its heap (below, for Debian's python3).
"""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

from vmkernel_core._core import lib
from vmklinux.linux import MODULES_END, THUNKS

#: Beside what other tests map: the end of the place for modules.
PLACE = MODULES_END - 0x4000

GROW = """
import ctypes
from vmklinux.linux import MODULES_END, THUNKS
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
libc.sbrk.argtypes = [ctypes.c_ssize_t]
while libc.sbrk(1 << 20) != ctypes.c_void_p(-1).value:  # as the C library asks for more heap
    assert libc.sbrk(0) - 1 < THUNKS or libc.sbrk(0) > MODULES_END, "the heap is where a kernel belongs"
    if libc.sbrk(0) > MODULES_END:
        break
print("held")
"""


def mappings() -> list[tuple[int, int, str]]:
    """First address, end, and permissions of each mapping of this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    split = [(line.split()[0].split("-"), line.split()[1]) for line in lines]
    return [(int(start, 16), int(end, 16), what) for (start, end), what in split]


def test_the_addresses_are_held_without_a_gap() -> None:
    at = THUNKS
    for start, end, _ in mappings():
        if start <= at < end:
            at = end
    assert at >= MODULES_END


def test_a_place_is_taken_once_and_held_again_afterwards() -> None:
    assert lib.vmk_map(PLACE, 0x2000, 3, 0, -1, 0) == 0
    assert lib.vmk_map(PLACE + 0x1000, 0x2000, 3, 0, -1, 0) == -errno.EEXIST
    assert [what for start, end, what in mappings() if start <= PLACE < end] == ["rw-p"]
    assert lib.vmk_unmap(PLACE, 0x2000) == 0
    assert [what for start, end, what in mappings() if start <= PLACE < end] == ["---p"]
    assert lib.vmk_map(PLACE, 0x1000, 3, 0, -1, 0) == 0
    assert lib.vmk_unmap(PLACE, 0x1000) == 0


def test_a_range_is_held_once() -> None:
    assert lib.vmk_hold(THUNKS, 0x1000) == -errno.EBUSY


def test_a_heap_that_grows_stays_below() -> None:
    run = subprocess.run(
        [sys.executable, "-c", GROW], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("held\n", 0), run.stderr
