"""A card's expansion ROM (Linux drivers/pci/rom.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.bus import Space
from vmkernel_core.memory import store
from vmklinux.api import linux_api, no_op
from vmklinux.ioremap import Windows
from vmklinux.pci import pci_device
from vmklinux.pci_regs import PCI_ROM_ADDRESS_ENABLE

if TYPE_CHECKING:
    from vmkernel_core.pci import Bar
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice

# PCI 3.0, 6.3.1: an image's header, and where in it the data structure "PCIR" is; in that, its length in units
# of 512 bytes, and the bit that marks the last image.
_SIGNATURE, _DATA_POINTER, _UNIT = 0xAA55, 0x18, 512
_DATA_SIGNATURE, _LENGTH, _INDICATOR, _LAST = 0x5249_4350, 0x10, 0x15, 0x80


def _decode(device: PciDevice, rom: Bar, *, on: bool) -> None:
    device.write(device.obj.rom_base_reg, 4, rom.address | (PCI_ROM_ADDRESS_ENABLE if on else 0))


def _images(device: PciDevice, rom: Bar) -> int:
    """Bytes that the images in the ROM take; all of it when they make no sense."""

    def read(offset: int, size: int) -> int:
        return (
            device.platform.bus.read(Space.MEMORY, rom.address + offset, size)
            if offset + size <= rom.size
            else 0
        )

    at = 0
    while read(at, 2) == _SIGNATURE:
        data = at + read(at + _DATA_POINTER, 2)
        length = read(data + _LENGTH, 2) * _UNIT
        if read(data, 4) != _DATA_SIGNATURE or not length:
            break
        at += length
        if read(data + _INDICATOR, 1) & _LAST:
            break
    return min(at, rom.size) or rom.size


@linux_api()
def pci_map_rom(linux: Linux, pdev: Obj, size: int) -> int:
    """Make the expansion ROM reachable and tell the size of its images; null when there is none."""
    device = pci_device(linux, pdev)
    rom = device.function.rom
    if rom is None:
        return 0
    _decode(device, rom, on=True)
    length = _images(device, rom)
    virt = linux.state(Windows).map(rom.address, length)
    if not virt:
        _decode(device, rom, on=False)
        return 0
    store(size, 8, length)
    return virt


@linux_api()
def pci_unmap_rom(linux: Linux, pdev: Obj, rom: int) -> None:
    """End what pci_map_rom began."""
    device = pci_device(linux, pdev)
    linux.state(Windows).unmap(rom)
    if device.function.rom:
        _decode(device, device.function.rom, on=False)


no_op(
    "pci_rom.py",
    "No BIOS runs that would have left a copy of an adapter's ROM in memory: there is none.",
    "pci_map_biosrom", "pci_unmap_biosrom", "pci_biosrom_size",
)  # fmt: skip
