"""Managed PCI resources (Linux drivers/pci/devres.c): pcim_* functions undo themselves when the driver lets go."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import load, store
from vmklinux.api import linux_api
from vmklinux.devres import Devres
from vmklinux.ioremap import Windows
from vmklinux.pci import (
    pci_clear_mwi,
    pci_device,
    pci_disable_device,
    pci_enable_device,
    pci_intx,
    pci_set_mwi,
)
from vmklinux.pci_regions import ALL_BARS, pci_release_selected_regions, pci_request_selected_regions
from vmklinux.pci_regs import PCI_COMMAND, PCI_COMMAND_INTX_DISABLE

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice

#: Slots of the table of mappings: one a BAR (PCI_STD_NUM_BARS), of pointers.
SLOTS = 6


@linux_api()
def pcim_enable_device(linux: Linux, pdev: Obj) -> int:
    """Enable the device until the driver lets go."""
    error = pci_enable_device(linux, pdev)
    if not error and not pdev.is_managed:
        pdev.is_managed = 1
        linux.state(Devres).action(pdev.dev, partial(_end, linux, pdev))
    return error


@linux_api()
def pcim_pin_device(linux: Linux, pdev: Obj) -> None:
    """Leave the device enabled when the driver lets go."""
    pci_device(linux, pdev).pinned = True


def _end(linux: Linux, pdev: Obj) -> None:
    pdev.is_managed = 0
    if pdev.enable_cnt.counter and not pci_device(linux, pdev).pinned:
        pci_disable_device(linux, pdev)


@linux_api()
def pcim_set_mwi(linux: Linux, dev: Obj) -> int:
    """Allow memory-write-invalidate until the driver lets go."""
    linux.state(Devres).action(dev.dev, partial(pci_clear_mwi, linux, dev))
    return pci_set_mwi(linux, dev)


@linux_api()
def pcim_intx(linux: Linux, pdev: Obj, enable: int) -> int:
    """Allow or forbid the interrupt pin; how it was comes back when the driver lets go."""
    device = pci_device(linux, pdev)
    allowed = not device.read(PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE
    linux.state(Devres).action(pdev.dev, partial(pci_intx, linux, pdev, allowed))
    pci_intx(linux, pdev, enable)
    return 0


def _table(linux: Linux, device: PciDevice) -> int:
    if not device.table:
        device.table = linux.allocate(8 * SLOTS)
        linux.state(Devres).action(device.obj.dev, partial(_close_all, linux, device))
    return device.table


def _close_all(linux: Linux, device: PciDevice) -> None:
    for number in range(SLOTS):
        _close(linux, device, number)
    linux.free(device.table)
    device.table = 0


def _close(linux: Linux, device: PciDevice, number: int) -> None:
    at = device.table + 8 * number
    linux.state(Windows).unmap(load(at, 8))  # the cookie of a port is no window
    store(at, 8, 0)


@linux_api()
def pcim_iomap_table(linux: Linux, pdev: Obj) -> int:
    """The table of the mappings that pcim_iomap made, by BAR."""
    return _table(linux, pci_device(linux, pdev))


@linux_api()
def pcim_iomap(linux: Linux, pdev: Obj, bar: int, maxlen: int) -> int:
    """Make a BAR reachable until the driver lets go; null when it cannot be, or is already."""
    if not 0 <= bar < SLOTS:
        return 0
    at = _table(linux, pci_device(linux, pdev)) + 8 * bar
    if load(at, 8):
        return 0
    mapped = linux.call("pci_iomap", pdev, bar, maxlen, owner=lib.vmk_owner())
    store(at, 8, mapped)
    return mapped


@linux_api()
def pcim_iounmap(linux: Linux, pdev: Obj, addr: int) -> None:
    """End what pcim_iomap made."""
    device = pci_device(linux, pdev)
    for number in range(SLOTS) if device.table else ():
        if load(device.table + 8 * number, 8) == addr:
            _close(linux, device, number)


@linux_api()
def pcim_iomap_regions(linux: Linux, pdev: Obj, mask: int, name: int) -> int:
    """Reserve BARs and make them reachable until the driver lets go."""
    return _iomap_regions(linux, pdev, mask, mask, name)


@linux_api()
def pcim_iomap_regions_request_all(linux: Linux, pdev: Obj, mask: int, name: int) -> int:
    """Reserve every BAR, and make some reachable until the driver lets go."""
    return _iomap_regions(linux, pdev, mask, ALL_BARS, name)


def _iomap_regions(linux: Linux, pdev: Obj, mask: int, reserve: int, name: int) -> int:
    error = pci_request_selected_regions(linux, pdev, reserve, name)
    if error:
        return error
    done = 0
    for bar in range(SLOTS):
        if mask >> bar & 1:
            if not pdev.resource[bar].flags:
                error = -errno.EINVAL
            elif not pcim_iomap(linux, pdev, bar, 0):
                error = -errno.ENOMEM
            if error:
                pcim_iounmap_regions(linux, pdev, done)
                pci_release_selected_regions(linux, pdev, reserve)
                return error
            done |= 1 << bar
    return 0


@linux_api()
def pcim_iounmap_regions(linux: Linux, pdev: Obj, mask: int) -> None:
    """End mappings and give their BARs back."""
    device = pci_device(linux, pdev)
    for bar in range(SLOTS) if device.table else ():
        if mask >> bar & 1:
            _close(linux, device, bar)
    pci_release_selected_regions(linux, pdev, mask)


@linux_api()
def pcim_iomap_region(linux: Linux, pdev: Obj, bar: int, name: int) -> int:
    """Reserve one BAR and make it reachable until the driver lets go; an error pointer when it cannot be."""
    error = pcim_iomap_regions(linux, pdev, 1 << bar, name)
    return error if error else load(pci_device(linux, pdev).table + 8 * bar, 8)
