"""Resetting a device (pci_reset_function and pci_reset_bus in Linux's drivers/pci/pci.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.pci import PCI_D0, PCI_D3HOT, PciCore, pci_device
from vmklinux.pci_regs import (
    PCI_COMMAND,
    PCI_COMMAND_INTX_DISABLE,
    PCI_PM_CTRL,
    PCI_PM_CTRL_NO_SOFT_RESET,
)
from vmklinux.pci_state import pci_restore_state, pci_save_state

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


def _call(linux: Linux, function: str, *arguments: int | Obj) -> int:
    return linux.call_int(function, *arguments, owner=lib.vmk_owner())


def _reset_secondary(linux: Linux, bridge: Obj) -> int:
    """Reset the bus behind a bridge; 6.12 warns of a reset while others may ask for the bridge's registers."""
    _call(linux, "pci_cfg_access_lock", bridge)
    try:
        return _call(linux, "pci_bridge_secondary_bus_reset", bridge)
    finally:
        _call(linux, "pci_cfg_access_unlock", bridge)


@linux_api()
def __pci_reset_function_locked(linux: Linux, dev: Obj) -> int:
    """Reset one function: by FLR, by D3hot and back, or by its bus where it is alone there. -ENOTTY: by none."""
    if not _call(linux, "pcie_reset_flr", dev, 0):
        return 0
    device = pci_device(linux, dev)
    if dev.pm_cap and not device.read(dev.pm_cap + PCI_PM_CTRL, 2) & PCI_PM_CTRL_NO_SOFT_RESET:
        for state in (PCI_D3HOT, PCI_D0):
            _call(linux, "pci_set_power_state", dev, state)
        return 0
    if dev.bus.self and len(_beside(linux, dev)) == 1:
        return _reset_secondary(linux, dev.bus.self)
    return -errno.ENOTTY


def _beside(linux: Linux, dev: Obj) -> list[Obj]:
    """The devices on the device's bus, itself among them."""
    return [device.obj for device in linux.state(PciCore).devices.values() if device.obj.bus == dev.bus]


def _prepare(linux: Linux, dev: Obj) -> None:
    _tell(linux, dev, "reset_prepare")
    _call(linux, "pci_set_power_state", dev, PCI_D0)
    pci_save_state(linux, dev)
    pci_device(linux, dev).write(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE)


def _finish(linux: Linux, dev: Obj) -> None:
    pci_restore_state(linux, dev)
    _tell(linux, dev, "reset_done")


def _tell(linux: Linux, dev: Obj, which: str) -> None:
    """Tell the device's driver, if it wants to know."""
    handlers = dev.driver.err_handler if dev.driver else None
    if handlers and (function := getattr(handlers, which)):
        linux.call(function, dev)


@linux_api("pci_reset_function_locked", "pci_try_reset_function")
def pci_reset_function(linux: Linux, dev: Obj) -> int:
    """Reset one function and give it its configuration back; its driver is told before and after."""
    _prepare(linux, dev)
    error = __pci_reset_function_locked(linux, dev)
    _finish(linux, dev)
    return error


@linux_api()
def pci_reset_bus(linux: Linux, pdev: Obj) -> int:
    """Reset all devices of a bus through the bridge above it; -ENOTTY on a root bus."""
    if not pdev.bus.self:
        return -errno.ENOTTY
    devices = _beside(linux, pdev)
    for dev in devices:
        _prepare(linux, dev)
    error = _reset_secondary(linux, pdev.bus.self)
    for dev in devices:
        _finish(linux, dev)
    return error
