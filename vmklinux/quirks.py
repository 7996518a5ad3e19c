"""What drivers rely on beyond the rules, device by device (the place of Linux's drivers/pci/quirks.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.pci import PciCore

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: Vendor and device, and the BARs that begin with registers that take commands, with how many bytes of them (None: all
#: are): a hypervisor carries a command out before the guest goes on. So vmxnet3.ko reads the counters, or frees the
#: filter table, that the command before names, and vmw_pvscsi.ko makes new rings while it has just ordered a reset:
#: what that cancels is told in the rings that were.
COMMAND_BARS: dict[tuple[int, int], dict[int, int | None]] = {
    (0x15AD, 0x07B0): {1: None},
    (0x15AD, 0x07C0): {0: 0xC},
}
#: Vendor and device, and the entries that a scatter list may have: the frames that megaraid_sas.ko makes for MFI
#: controllers have room for 60 (megasas_create_frame_pool), and QEMU's controllers say that they take 80. More would
#: run into the next command's frame.
SG_MOST = {(0x1000, 0x0060): 60, (0x1000, 0x0079): 60}


def command_bytes(linux: Linux, address: int) -> int:
    """How many bytes of registers from a bus address on take commands."""
    for device in linux.state(PciCore).devices.values():
        bars = COMMAND_BARS.get((device.function.vendor, device.function.device), {})
        for bar in device.function.bars:
            if bar.index in bars and bar.address <= address < bar.address + bar.size:
                end = bar.address + (bars[bar.index] or bar.size)
                return max(end - address, 0)
    return 0


def sg_most(linux: Linux, dev: Obj) -> int | None:
    """How many entries a scatter list for a device may have, where its driver allows too many."""
    for device in linux.state(PciCore).devices.values():
        if device.obj.dev == dev:
            return SG_MOST.get((device.function.vendor, device.function.device))
    return None
