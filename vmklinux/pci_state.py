"""Keeping a device's configuration over sleep and reset (pci_save_state, pci_restore_state in Linux's pci.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.pci import PCI_COMMAND, pci_device
from vmklinux.pci_probe import PCI_CAP_ID_EXP, PCI_CAP_ID_PCIX

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice

#: Bytes of the standard header.
HEADER = 64
# PCI Express Base 3.0, 7.8: the control registers, at these offsets in the capability, all 16 bits: device, link,
# slot, root, device 2, link 2, slot 2. Those of slot and root exist in ports only.
_CONTROL, _CONTROL2 = (0x08, 0x10), (0x28, 0x30)
_SLOT, _SLOT2, _ROOT = 0x18, 0x38, 0x1C
_VERSION, _TYPE, _SLOT_IMPLEMENTED = 0x000F, 0x00F0, 0x0100
_ROOT_PORT = 0x40
#: PCI-X 2.0, 7.2.3: the command register of a device.
_PCIX_COMMAND = 2


def _kept(device: PciDevice) -> list[tuple[int, int]]:
    """Offset and size of the registers that are kept, in the order of restoring: the command register last."""
    registers: list[tuple[int, int]] = []
    if at := device.capability(PCI_CAP_ID_EXP):
        flags = device.obj.pcie_flags_reg
        offsets = list(_CONTROL)
        if flags & _SLOT_IMPLEMENTED:
            offsets.append(_SLOT)
        if flags & _TYPE == _ROOT_PORT:
            offsets.append(_ROOT)
        if flags & _VERSION > 1:
            offsets += [*_CONTROL2, *([_SLOT2] if flags & _SLOT_IMPLEMENTED else [])]
        registers += [(at + offset, 2) for offset in offsets]
    if at := device.capability(PCI_CAP_ID_PCIX):
        registers.append((at + _PCIX_COMMAND, 2))
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
        if (
            device.read(offset, size) != value
        ):  # the status register's bits are cleared by writing ones: not here
            device.write(offset, size, value & 0xFFFF if offset == PCI_COMMAND else value)
    if dev.msi_enabled or dev.msix_enabled:
        linux.call("pci_restore_msi_state", dev, owner=lib.vmk_owner())
    dev.state_saved = 0
