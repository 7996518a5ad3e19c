"""PCI functions that a driver would find or remove (Linux drivers/pci/probe.c, setup-bus.c, remove.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op
from vmklinux.pci import PciCore

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api(partial="The device stays known, without a driver: the hypervisor's own hot-plug removes it.")
def pci_stop_and_remove_bus_device_locked(linux: Linux, dev: Obj) -> None:
    """Take a device that is dead away from its driver."""
    core = linux.state(PciCore)
    if (device := core.of(dev.dev)) is not None and device.driver is not None:
        core.unbind(device)


no_op(
    "pci_hotplug.py",
    "Functions come and go by the hypervisor's own scan. Drivers of slots and CardBus sockets, which call these, have"
    " none here: no slot of theirs ever tells of a card.",
    "pci_scan_slot", "pci_scan_bridge", "pci_bus_size_bridges", "pci_bus_assign_resources", "pci_bus_add_devices",
    "pci_fixup_cardbus", "pci_stop_and_remove_bus_device", "pci_lock_rescan_remove", "pci_unlock_rescan_remove",
)  # fmt: skip
