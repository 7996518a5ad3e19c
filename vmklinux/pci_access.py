"""Configuration space as drivers and the image reach it (Linux drivers/pci/access.c).

The image's own PCI functions end here too: its accessors by device and by bus are replaced, and every pci_bus
has these functions as its pci_ops. So what of drivers/pci only reads and writes configuration space runs as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.memory import store
from vmkernel_core.platform.base import PciAddress
from vmklinux.api import linux_api
from vmklinux.kobject import Obj, cast

if TYPE_CHECKING:
    from vmkernel_core.platform.base import Platform
    from vmklinux.linux import Linux

# include/linux/pci.h
PCIBIOS_SUCCESSFUL, PCIBIOS_DEVICE_NOT_FOUND, PCIBIOS_BAD_REGISTER_NUMBER = 0, 0x86, 0x87
#: Bytes of configuration space at most: PCI Express's.
MOST_CONFIG = 4096


class ConfigSpace:
    """The way to configuration space: the platform's."""

    platform: Platform

    def __init__(self, linux: Linux) -> None:
        """No device has been added yet; the first one tells the platform."""
        self._broken = linux.types.enumerator("pci_channel_io_perm_failure")

    def read(self, address: PciAddress, where: int, size: int, val: int) -> int:
        """Read into memory at ``val``; a PCIBIOS code."""
        if where % size or not 0 <= where < MOST_CONFIG:
            return PCIBIOS_BAD_REGISTER_NUMBER
        store(val, size, self.platform.config_read(address, where, size))
        return PCIBIOS_SUCCESSFUL

    def write(self, address: PciAddress, where: int, size: int, val: int) -> int:
        """Write; a PCIBIOS code."""
        if where % size or not 0 <= where < MOST_CONFIG:
            return PCIBIOS_BAD_REGISTER_NUMBER
        self.platform.config_write(address, where, size, val)
        return PCIBIOS_SUCCESSFUL

    def gone(self, dev: Obj) -> bool:
        """Whether the device was taken away: its registers are not asked any more."""
        return bool(dev.error_state == self._broken)


def address_of(linux: Linux, bus: Obj, devfn: int) -> PciAddress:
    """The address of a slot and function on a bus."""
    domain = cast(linux.types, "pci_sysdata", bus.sysdata).domain
    return PciAddress(domain, bus.number, devfn >> 3 & 31, devfn & 7)


@linux_api()
def pci_generic_config_read(linux: Linux, bus: Obj, devfn: int, where: int, size: int, val: int) -> int:
    """Read configuration space; the pci_ops of every bus. ``val`` is a u32."""
    store(val, 4, 0xFFFF_FFFF)
    return linux.state(ConfigSpace).read(address_of(linux, bus, devfn), where, size, val)


@linux_api()
def pci_generic_config_write(linux: Linux, bus: Obj, devfn: int, where: int, size: int, val: int) -> int:
    """Write configuration space; the pci_ops of every bus."""
    return linux.state(ConfigSpace).write(address_of(linux, bus, devfn), where, size, val)


def _accessors(word: str, size: int) -> None:
    def read(linux: Linux, dev: Obj, where: int, val: int) -> int:
        space = linux.state(ConfigSpace)
        if space.gone(dev):
            store(val, size, (1 << 8 * size) - 1)
            return PCIBIOS_DEVICE_NOT_FOUND
        return space.read(address_of(linux, dev.bus, dev.devfn), where, size, val)

    def write(linux: Linux, dev: Obj, where: int, val: int) -> int:
        space = linux.state(ConfigSpace)
        if space.gone(dev):
            return PCIBIOS_DEVICE_NOT_FOUND
        return space.write(address_of(linux, dev.bus, dev.devfn), where, size, val)

    def bus_read(linux: Linux, bus: Obj, devfn: int, pos: int, value: int) -> int:
        return linux.state(ConfigSpace).read(address_of(linux, bus, devfn), pos, size, value)

    def bus_write(linux: Linux, bus: Obj, devfn: int, pos: int, value: int) -> int:
        return linux.state(ConfigSpace).write(address_of(linux, bus, devfn), pos, size, value)

    for function, name, summary in (
        (read, f"pci_read_config_{word}", f"Read {size} bytes of a device's configuration space."),
        (write, f"pci_write_config_{word}", f"Write {size} bytes of a device's configuration space."),
        (bus_read, f"pci_bus_read_config_{word}", f"Read {size} bytes of configuration space by place."),
        (bus_write, f"pci_bus_write_config_{word}", f"Write {size} bytes of configuration space by place."),
    ):
        function.__name__, function.__doc__ = name, summary
        linux_api()(function)


for _word, _size in (("byte", 1), ("word", 2), ("dword", 4)):
    _accessors(_word, _size)
