"""Who has which BAR (pci_request_region and its kin in Linux's drivers/pci/pci.c): a driver may ask for each once."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core.pci import BarKind
from vmklinux.api import linux_api
from vmklinux.pci import pci_device
from vmklinux.resource import IORESOURCE_IO, IORESOURCE_MEM, Resources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice

#: A mask of the BARs that a device can have.
ALL_BARS = 0x3F


def _numbers(mask: int) -> set[int]:
    return {number for number in range(6) if mask >> number & 1}


def release(linux: Linux, device: PciDevice, numbers: Iterable[int]) -> None:
    """Give back those of the BARs that are reserved."""
    for number in numbers:
        if region := device.regions.pop(number, None):
            linux.state(Resources).release(region)


@linux_api("pci_request_selected_regions_exclusive")
def pci_request_selected_regions(linux: Linux, pdev: Obj, bars: int, name: int) -> int:
    """Reserve BARs; -EBUSY when one of them is in use."""
    device = pci_device(linux, pdev)
    resources = linux.state(Resources)
    taken: set[int] = set()
    for number in _numbers(bars):
        if bar := device.function.bar(number):
            kind = IORESOURCE_IO if bar.kind is BarKind.IO else IORESOURCE_MEM
            region = resources.request(resources.root(kind), bar.address, bar.size, name, 0)
            if region is None:
                release(linux, device, taken)
                return -errno.EBUSY
            device.regions[number] = region
            taken.add(number)
    return 0


@linux_api()
def pci_release_selected_regions(linux: Linux, pdev: Obj, bars: int) -> None:
    """Give BARs back."""
    release(linux, pci_device(linux, pdev), _numbers(bars))


@linux_api("pci_request_regions_exclusive")
def pci_request_regions(linux: Linux, pdev: Obj, name: int) -> int:
    """Reserve every BAR."""
    return pci_request_selected_regions(linux, pdev, ALL_BARS, name)


@linux_api()
def pci_release_regions(linux: Linux, pdev: Obj) -> None:
    """Give every BAR back."""
    pci_release_selected_regions(linux, pdev, ALL_BARS)


@linux_api()
def pcibios_resource_to_bus(linux: Linux, bus: Obj, region: Obj, res: Obj) -> None:
    """What a device sees as the addresses of a resource: the same ones."""
    region.start, region.end = res.start, res.end


@linux_api("pcim_request_region", note="Whatever a driver reserved ends with its binding to the device.")
def pci_request_region(linux: Linux, pdev: Obj, bar: int, name: int) -> int:
    """Reserve one BAR."""
    return pci_request_selected_regions(linux, pdev, 1 << bar, name)


@linux_api("pcim_release_region")
def pci_release_region(linux: Linux, pdev: Obj, bar: int) -> None:
    """Give one BAR back."""
    pci_release_selected_regions(linux, pdev, 1 << bar)
