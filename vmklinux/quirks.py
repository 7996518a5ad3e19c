"""What drivers rely on beyond the rules, device by device (the place of Linux's drivers/pci/quirks.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.pci import PciCore

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: Vendor and device, and the BARs whose registers take commands: a hypervisor carries one out before the guest goes on,
#: so vmxnet3.ko reads the counters, or frees the filter table, that the command before names.
COMMAND_BARS = {(0x15AD, 0x07B0): frozenset({1})}
#: Vendor and device, and the entries that a scatter list may have: the frames that megaraid_sas.ko makes for MFI
#: controllers have room for 60 (megasas_create_frame_pool), and QEMU's controllers say that they take 80. More would
#: run into the next command's frame.
SG_MOST = {(0x1000, 0x0060): 60, (0x1000, 0x0079): 60}


def takes_commands(linux: Linux, address: int) -> bool:
    """Whether registers at a bus address are such."""
    return any(
        bar.index in COMMAND_BARS.get((device.function.vendor, device.function.device), ())
        and bar.address <= address < bar.address + bar.size
        for device in linux.state(PciCore).devices.values()
        for bar in device.function.bars
    )


def sg_most(linux: Linux, dev: Obj) -> int | None:
    """How many entries a scatter list for a device may have, where its driver allows too many."""
    for device in linux.state(PciCore).devices.values():
        if device.obj.dev == dev:
            return SG_MOST.get((device.function.vendor, device.function.device))
    return None
