"""Pages made contiguous (Linux mm/vmalloc.c): a second mapping of machine memory, page by page."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import VmkError
from vmkernel_core.memory import load
from vmklinux.api import linux_api
from vmklinux.linux import VMEMMAP

if TYPE_CHECKING:
    from vmklinux.linux import Linux

PAGE = 4096
#: Where such mappings lie: between the per-CPU area and the register windows.
FIRST = 0x1300_0000_0000
_RW = 3


class PageMappings:
    """The mappings: address to length. An address is not used twice."""

    def __init__(self, linux: Linux) -> None:
        """There is none."""
        self.linux = linux
        self._next = FIRST
        self._open: dict[int, int] = {}

    def map(self, pages: list[int]) -> int:
        """Map pages, told by their struct page, one behind the other; the address, 0 when the host refuses."""
        start, size = self._next, self.linux.types.sizeof("page")
        self._next += (len(pages) + 1) * PAGE
        for number, page in enumerate(pages):
            offset = (page - VMEMMAP) // size * PAGE
            error = lib.vmk_map(start + number * PAGE, PAGE, _RW, 1, self.linux.memory.fd, offset)
            if error:
                lib.vmk_unmap(start, number * PAGE)
                if error == -errno.ENOMEM:
                    return 0
                raise VmkError(f"cannot map a page: {os.strerror(-error)}", where=f"address {start:#x}")
        self._open[start] = len(pages) * PAGE
        return start

    def unmap(self, address: int) -> None:
        """Undo a mapping; KeyError for anything else."""
        lib.vmk_unmap(address, self._open.pop(address))


@linux_api(note="Such memory cannot be given to a device: only the pages themselves have DMA addresses.")
def vmap(linux: Linux, pages: int, count: int, flags: int, prot: int) -> int:
    """Map pages so that they follow one another."""
    return linux.state(PageMappings).map([load(pages + 8 * number, 8) for number in range(count)])


@linux_api()
def vunmap(linux: Linux, addr: int) -> None:
    """Undo such a mapping."""
    if addr:
        linux.state(PageMappings).unmap(addr)
