"""Finding devices (Linux drivers/pci/search.c). A device that is returned is held: pci_dev_put gives it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.platform.base import PciAddress
from vmklinux.api import linux_api
from vmklinux.kobject import Obj
from vmklinux.pci import PCI_ANY_ID, PciCore
from vmklinux.pci_access import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice


def _held(linux: Linux, found: PciDevice | None) -> Obj | None:
    if found is None:
        return None
    linux.call("pci_dev_get", found.obj, owner=lib.vmk_owner())
    return found.obj


def _next(linux: Linux, after: Obj, fits: Callable[[PciDevice], bool]) -> Obj | None:
    """The first device behind ``after`` (all, when that is null) that fits; ``after`` is given back."""
    devices = list(linux.state(PciCore).devices.values())
    begin = next((n + 1 for n, device in enumerate(devices) if device.obj == after), 0) if after else 0
    found = _held(linux, next((device for device in devices[begin:] if fits(device)), None))
    if after:
        linux.call("pci_dev_put", after, owner=lib.vmk_owner())
    return found


def _at(linux: Linux, address: PciAddress) -> Obj | None:
    return _held(linux, linux.state(PciCore).at(address))


@linux_api()
def pci_get_device(linux: Linux, vendor: int, device: int, from_: Obj) -> Obj | None:
    """The next device of those ids, PCI_ANY_ID for any."""
    return pci_get_subsys(linux, vendor, device, PCI_ANY_ID, PCI_ANY_ID, from_)


@linux_api()
def pci_get_subsys(
    linux: Linux, vendor: int, device: int, ss_vendor: int, ss_device: int, from_: Obj
) -> Obj | None:
    """The next device of those ids and subsystem ids, PCI_ANY_ID for any."""

    def fits(found: PciDevice) -> bool:
        function = found.function
        return all(
            wanted in (PCI_ANY_ID, have)
            for wanted, have in (
                (vendor, function.vendor),
                (device, function.device),
                (ss_vendor, function.subsystem_vendor),
                (ss_device, function.subsystem_device),
            )
        )

    return _next(linux, from_, fits)


@linux_api()
def pci_get_class(linux: Linux, class_: int, from_: Obj) -> Obj | None:
    """The next device of that class code, all 24 bits of it."""
    return _next(linux, from_, lambda found: found.function.class_code == class_)


@linux_api()
def pci_get_slot(linux: Linux, bus: Obj, devfn: int) -> Obj | None:
    """The device at a place of a bus."""
    return _at(linux, address_of(linux, bus, devfn))


@linux_api()
def pci_get_domain_bus_and_slot(linux: Linux, domain: int, bus: int, devfn: int) -> Obj | None:
    """The device at a place."""
    return _at(linux, PciAddress(domain, bus, devfn >> 3 & 31, devfn & 7))


@linux_api()
def pci_dev_present(linux: Linux, ids: Obj) -> bool:
    """Whether a device is there that a table of ids names."""
    core = linux.state(PciCore)
    owner = lib.vmk_owner()
    return any(linux.call("pci_match_id", ids, found.obj, owner=owner) for found in core.devices.values())
