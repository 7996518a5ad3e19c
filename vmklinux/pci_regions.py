"""Who has which BAR (pci_request_region and its kin in Linux's drivers/pci/pci.c): a driver may ask for each once."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api
from vmklinux.pci import pci_device

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: A mask of the BARs that a device can have.
ALL_BARS = 0x3F


def _numbers(mask: int) -> set[int]:
    return {number for number in range(6) if mask >> number & 1}


@linux_api("pci_request_selected_regions_exclusive")
def pci_request_selected_regions(linux: Linux, pdev: Obj, bars: int, name: int) -> int:
    """Reserve BARs; -EBUSY when the driver has one of them already."""
    device = pci_device(linux, pdev)
    wanted = {number for number in _numbers(bars) if device.function.bar(number)}
    if wanted & device.regions:
        return -errno.EBUSY
    device.regions |= wanted
    return 0


@linux_api()
def pci_release_selected_regions(linux: Linux, pdev: Obj, bars: int) -> None:
    """Give BARs back."""
    pci_device(linux, pdev).regions -= _numbers(bars)


@linux_api("pci_request_regions_exclusive")
def pci_request_regions(linux: Linux, pdev: Obj, name: int) -> int:
    """Reserve every BAR."""
    return pci_request_selected_regions(linux, pdev, ALL_BARS, name)


@linux_api()
def pci_release_regions(linux: Linux, pdev: Obj) -> None:
    """Give every BAR back."""
    pci_release_selected_regions(linux, pdev, ALL_BARS)


@linux_api("pcim_request_region", note="Whatever a driver reserved ends with its binding to the device.")
def pci_request_region(linux: Linux, pdev: Obj, bar: int, name: int) -> int:
    """Reserve one BAR."""
    return pci_request_selected_regions(linux, pdev, 1 << bar, name)


@linux_api("pcim_release_region")
def pci_release_region(linux: Linux, pdev: Obj, bar: int) -> None:
    """Give one BAR back."""
    pci_release_selected_regions(linux, pdev, 1 << bar)
