"""What drivers rely on beyond PCI's rules, device by device (the place of Linux's drivers/pci/quirks.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.pci import PciCore

if TYPE_CHECKING:
    from vmklinux.linux import Linux

#: Vendor and device, and the BARs whose registers take commands: a hypervisor carries one out before the guest goes on,
#: so vmxnet3.ko reads the counters, or frees the filter table, that the command before names.
COMMAND_BARS = {(0x15AD, 0x07B0): frozenset({1})}


def takes_commands(linux: Linux, address: int) -> bool:
    """Whether registers at a bus address are such."""
    return any(
        bar.index in COMMAND_BARS.get((device.function.vendor, device.function.device), ())
        and bar.address <= address < bar.address + bar.size
        for device in linux.state(PciCore).devices.values()
        for bar in device.function.bars
    )
