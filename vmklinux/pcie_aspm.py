"""Active-state power management of links (Linux drivers/pci/pcie/aspm.c): nothing here switches it on."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api
from vmklinux.pci import pci_device
from vmklinux.pci_regs import PCI_EXP_LNKCTL, PCI_EXP_LNKCTL_ASPMC

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api(
    "pci_disable_link_state_locked", partial="L1 substates, which nothing here switches on, are not touched."
)
def pci_disable_link_state(linux: Linux, pdev: Obj, state: int) -> int:
    """Keep the link to the device out of L0s or L1: both of its ends forget them, the device first."""
    bridge = pdev.bus.self
    if not pdev.pcie_cap or not bridge or not bridge.pcie_cap:
        return -errno.EINVAL
    for end in (pdev, bridge):
        device = pci_device(linux, end)
        at = end.pcie_cap + PCI_EXP_LNKCTL
        # PCIE_LINK_STATE_L0S and _L1 are the bits of the register.
        device.write(at, 2, device.read(at, 2) & ~(state & PCI_EXP_LNKCTL_ASPMC))
    return 0
