"""Register windows (Linux arch/x86/mm/ioremap.c): a trapped window on the bus of the machine's platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmklinux.api import linux_api
from vmklinux.devres import Devres
from vmklinux.quirks import command_bytes

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


class Windows:
    """The windows that are open: virtual address to owner (a code address of the module)."""

    def __init__(self, linux: Linux) -> None:
        """None is open, and nobody has said on which bus."""
        self.linux = linux
        self.bus = ffi.NULL
        self.open: dict[int, int] = {}

    def map(self, address: int, length: int) -> int:
        """Open a window on a bus address; 0 when it cannot be."""
        virt: int = lib.vmk_window_open(self.bus, address, length) if self.bus != ffi.NULL else 0
        if virt:
            self.open[virt] = lib.vmk_owner()
            lib.vmk_window_commands(virt, command_bytes(self.linux, address))
        return virt

    def unmap(self, virt: int) -> None:
        """Close a window."""
        if self.open.pop(virt, None) is not None:
            lib.vmk_window_close(virt)

    def owned(self, low: int, high: int) -> list[int]:
        """The windows that code in [low, high) opened."""
        return [virt for virt, owner in self.open.items() if low <= owner < high]


@linux_api("ioremap_wc", "ioremap_cache", "ioremap_uc")
def ioremap(linux: Linux, phys_addr: int, size: int) -> int:
    """Make registers at a bus address reachable."""
    return linux.state(Windows).map(phys_addr, size)


@linux_api()
def iounmap(linux: Linux, addr: int) -> None:
    """Close what ioremap opened."""
    linux.state(Windows).unmap(addr)


@linux_api("devm_ioremap_wc", "devm_ioremap_uc")
def devm_ioremap(linux: Linux, dev: Obj, offset: int, size: int) -> int:
    """Make registers reachable until the driver lets go of the device."""
    windows = linux.state(Windows)
    if virt := windows.map(offset, size):
        linux.state(Devres).action(dev, lambda: windows.unmap(virt))
    return virt
