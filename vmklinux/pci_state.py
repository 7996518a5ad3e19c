"""Keeping a device's configuration over sleep and reset (pci_save_state, pci_restore_state in Linux's pci.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.pci import pci_device
from vmklinux.pci_regs import (
    PCI_CAP_ID_EXP,
    PCI_CAP_ID_PCIX,
    PCI_COMMAND,
    PCI_EXP_DEVCTL,
    PCI_EXP_DEVCTL2,
    PCI_EXP_FLAGS_SLOT,
    PCI_EXP_FLAGS_TYPE,
    PCI_EXP_FLAGS_VERS,
    PCI_EXP_LNKCTL,
    PCI_EXP_LNKCTL2,
    PCI_EXP_RTCTL,
    PCI_EXP_SLTCTL,
    PCI_EXP_SLTCTL2,
    PCI_EXP_TYPE_ROOT_PORT,
    PCI_X_CMD,
)

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice

#: Bytes of the standard header.
HEADER = 64
#: Control registers of PCI Express, all 16 bits: of every device, and with version 2 of the capability. Those of slot
#: and root exist in ports only.
_CONTROL, _CONTROL2 = (PCI_EXP_DEVCTL, PCI_EXP_LNKCTL), (PCI_EXP_DEVCTL2, PCI_EXP_LNKCTL2)
_ROOT_PORT = PCI_EXP_TYPE_ROOT_PORT << 4


def _kept(device: PciDevice) -> list[tuple[int, int]]:
    """Offset and size of the registers that are kept, in the order of restoring: the command register last."""
    registers: list[tuple[int, int]] = []
    if at := device.capability(PCI_CAP_ID_EXP):
        flags = device.obj.pcie_flags_reg
        offsets = list(_CONTROL)
        if flags & PCI_EXP_FLAGS_SLOT:
            offsets.append(PCI_EXP_SLTCTL)
        if flags & PCI_EXP_FLAGS_TYPE == _ROOT_PORT:
            offsets.append(PCI_EXP_RTCTL)
        if flags & PCI_EXP_FLAGS_VERS > 1:
            offsets += [*_CONTROL2, *([PCI_EXP_SLTCTL2] if flags & PCI_EXP_FLAGS_SLOT else [])]
        registers += [(at + offset, 2) for offset in offsets]
    if at := device.capability(PCI_CAP_ID_PCIX):
        registers.append((at + PCI_X_CMD, 2))
    return registers + [(offset, 4) for offset in reversed(range(PCI_COMMAND, HEADER, 4))]


@linux_api(note="Kept are the header and the control registers of PCI Express and PCI-X.")
def pci_save_state(linux: Linux, dev: Obj) -> int:
    """Keep what of configuration space a reset would lose."""
    device = pci_device(linux, dev)
    device.saved = {(offset, size): device.read(offset, size) for offset, size in _kept(device)}
    dev.state_saved = 1
    return 0


@linux_api()
def pci_restore_state(linux: Linux, dev: Obj) -> None:
    """Write back what pci_save_state kept and set message interrupts up again."""
    if not dev.state_saved:
        return
    device = pci_device(linux, dev)
    for (offset, size), value in device.saved.items():
        if device.read(offset, size) != value:
            # The upper half of it is the status register, whose bits are cleared by writing ones.
            device.write(offset, size, value & 0xFFFF if offset == PCI_COMMAND else value)
    if dev.msi_enabled or dev.msix_enabled:
        linux.call("pci_restore_msi_state", dev, owner=lib.vmk_owner())
    dev.state_saved = 0
