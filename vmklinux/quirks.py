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
#: Vendor and device, and what a command may have at most, by fields of Scsi_Host that its driver sets too high:
#: - The frames that megaraid_sas.ko makes for MFI controllers have room for 60 entries of a scatter list
#:   (megasas_create_frame_pool), and QEMU's controllers say that they take 80: more would run into the next frame.
#: - QEMU's am53c974 says "DMA done" before its interrupt comes, when data goes on in another of its buffers of 128 KiB
#:   (mended in QEMU 9.0); am53c974.ko, which looks in between, then takes for an interrupt what is none.
COMMAND_MOST = {
    (0x1000, 0x0060): {"sg_tablesize": 60},
    (0x1000, 0x0079): {"sg_tablesize": 60},
    (0x1022, 0x2020): {"max_sectors": 128},
}


def command_bytes(linux: Linux, address: int) -> int:
    """How many bytes of registers from a bus address on take commands."""
    for device in linux.state(PciCore).devices.values():
        bars = COMMAND_BARS.get((device.function.vendor, device.function.device), {})
        for bar in device.function.bars:
            if bar.index in bars and bar.address <= address < bar.address + bar.size:
                end = bar.address + (bars[bar.index] or bar.size)
                return max(end - address, 0)
    return 0


def command_most(linux: Linux, dev: Obj) -> dict[str, int]:
    """What a command for a device may have at most, where its driver allows too much: fields of Scsi_Host."""
    for device in linux.state(PciCore).devices.values():
        if device.obj.dev == dev:
            return COMMAND_MOST.get((device.function.vendor, device.function.device), {})
    return {}
