"""Putting a device to sleep and waking it up (Linux drivers/pci/pci-driver.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.errors import NotSupported
from vmklinux.native.pci import pci_restore_state, pci_save_state, pci_set_power_state

if TYPE_CHECKING:
    from vmklinux.native.pci import PciDev, PciDriver


def _driver(pdev: PciDev) -> PciDriver:
    if pdev.driver is None:
        raise NotSupported("only a PCI device with a driver can be put to sleep", where=pdev.name)
    return pdev.driver


def suspend(pdev: PciDev) -> None:
    """Its driver gets ready, then the device goes to D3hot. NotSupported, and what the driver raises: it is awake."""
    _driver(pdev).suspend()
    pci_save_state(pdev)
    pci_set_power_state(pdev, "D3hot")


def power_up(pdev: PciDev) -> None:
    """The device gets power and its configuration; its driver is not told."""
    pci_set_power_state(pdev, "D0")
    pci_restore_state(pdev)


def resume(pdev: PciDev) -> None:
    """The device gets power and its configuration, then its driver goes on."""
    power_up(pdev)
    _driver(pdev).resume()
