"""The PCI core as drivers see it (Linux drivers/pci): pci_dev objects on the functions that the scan found."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.memory import store
from vmkernel_core.pci import BarKind
from vmklinux.api import linux_api, no_op
from vmklinux.device import list_init
from vmklinux.ioremap import Windows
from vmklinux.kobject import Obj, addressof

if TYPE_CHECKING:
    from vmkernel_core.pci import PciFunction
    from vmkernel_core.platform.base import Platform
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

# include/linux/ioport.h
IORESOURCE_IO, IORESOURCE_MEM, IORESOURCE_PREFETCH, IORESOURCE_MEM_64 = 0x100, 0x200, 0x2000, 0x100000
# include/uapi/linux/pci_regs.h
PCI_COMMAND = 4
PCI_COMMAND_IO, PCI_COMMAND_MEMORY, PCI_COMMAND_MASTER, PCI_COMMAND_INVALIDATE = 1, 2, 4, 16
PCI_CAP_ID_PM, PCI_CAP_ID_MSI, PCI_CAP_ID_PCIX, PCI_CAP_ID_EXP, PCI_CAP_ID_MSIX = 1, 5, 7, 0x10, 0x11
PCI_X_CMD, PCI_X_CMD_MAX_READ = 2, 0x000C
PCI_ANY_ID = 0xFFFF_FFFF
PCIBIOS_SUCCESSFUL, PCIBIOS_BAD_REGISTER_NUMBER = 0, 0x87
#: Bytes of configuration space that are saved by pci_save_state: the standard header.
HEADER = 64


@dataclass
class PciDevice:
    """A pci_dev and what stands behind it. ``regions`` are the BARs that its driver asked for."""

    obj: Obj
    function: PciFunction
    platform: Platform
    owned: list[int]
    driver: Obj | None = None
    enabled: int = 0
    regions: set[int] = field(default_factory=set)
    saved: bytes = b""

    def read(self, offset: int, size: int) -> int:
        """Read configuration space."""
        return self.platform.config_read(self.function.address, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write configuration space."""
        self.platform.config_write(self.function.address, offset, size, value)

    def command(self, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear bits of the command register."""
        self.write(PCI_COMMAND, 2, self.read(PCI_COMMAND, 2) & ~clear | set)


class PciCore:
    """The devices by address of their pci_dev, and the drivers that registered."""

    def __init__(self, linux: Linux) -> None:
        """Neither is there yet."""
        self.linux = linux
        self.devices: dict[int, PciDevice] = {}
        self.drivers: list[Obj] = []

    def add(self, function: PciFunction, platform: Platform) -> PciDevice:
        """Make the pci_dev of a function that was found."""
        linux = self.linux
        obj, bus = linux.new("pci_dev"), linux.new("pci_bus")
        name = linux.new_string(str(function.address))
        device = PciDevice(obj, function, platform, [int(obj), int(bus), name])
        linux.state(Windows).bus = platform.bus.handle
        bus.number = function.address.bus
        obj.bus, obj.devfn = bus, function.address.devfn
        obj.vendor, obj.device = function.vendor, function.device
        obj.subsystem_vendor, obj.subsystem_device = function.subsystem_vendor, function.subsystem_device
        setattr(obj, "class", function.class_code)
        obj.revision, obj.hdr_type, obj.pin = function.revision, function.header_type, function.interrupt_pin
        if function.interrupt_pin:
            obj.irq = platform.interrupt_line(function.address, function.interrupt_pin)
        obj.cfg_size = 4096 if function.capability(PCI_CAP_ID_EXP) else 256
        for capability, member in (
            (PCI_CAP_ID_PM, "pm_cap"), (PCI_CAP_ID_MSI, "msi_cap"), (PCI_CAP_ID_MSIX, "msix_cap"),
            (PCI_CAP_ID_EXP, "pcie_cap"),
        ):  # fmt: skip
            if found := function.capability(capability):
                setattr(obj, member, found.offset)
        for bar in function.bars:
            resource = obj.resource[bar.index]
            resource.start, resource.end, resource.name = bar.address, bar.address + bar.size - 1, name
            resource.flags = (
                (IORESOURCE_IO if bar.kind is BarKind.IO else IORESOURCE_MEM)
                | (IORESOURCE_MEM_64 if bar.kind is BarKind.MEMORY64 else 0)
                | (IORESOURCE_PREFETCH if bar.prefetchable else 0)
            )
        obj.error_state = linux.types.enumerator("pci_channel_io_normal")
        obj.dma_mask = 0xFFFF_FFFF
        obj.dev.dma_mask = addressof(obj, "dma_mask")
        obj.dev.coherent_dma_mask = 0xFFFF_FFFF
        obj.dev.kobj.name = name
        list_init(linux, addressof(obj, "dev.devres_head"))
        self.devices[int(obj)] = device
        return device

    def remove(self, device: PciDevice) -> int:
        """Free the pci_dev, which its driver must have let go of; how many DMA mappings the driver left open."""
        del self.devices[int(device.obj)]
        mappings: int = lib.linux_dma_end(addressof(device.obj, "dev"))
        for address in device.owned:
            self.linux.free(address)
        return mappings

    def abandon(self, low: int, high: int) -> None:
        """Cut devices off whose driver lies in [low, high) and forget the drivers: their code does not run again."""
        for device in self.devices.values():
            if device.driver is not None and low <= int(device.driver) < high:
                device.command(clear=PCI_COMMAND_MASTER)
                device.driver = None
        self.drivers = [driver for driver in self.drivers if not low <= int(driver) < high]

    def match(self, driver: Obj, device: PciDevice) -> int:
        """The address of the driver's first pci_device_id that fits the device; 0 when none does."""
        entry = Obj(self.linux.types, "pci_device_id", driver.id_table) if driver.id_table else None
        number = 0
        while entry:
            row = entry[number]
            if not (row.vendor or row.subvendor or row.class_mask):
                break
            if _fits(row, device.function):
                return int(row)
            number += 1
        return 0

    def bind(self, driver: Obj, device: PciDevice, id_entry: int) -> int:
        """Probe: the driver's return value; 0 when it took the device."""
        device.obj.dev.driver = addressof(driver, "driver")
        device.obj.driver = driver
        error = self.linux.call_int(driver.probe, device.obj, id_entry)
        if error:
            device.obj.dev.driver = 0
            device.obj.driver = 0
        else:
            device.driver = driver
        return error

    def unbind(self, device: PciDevice) -> None:
        """Remove: the driver lets go of the device."""
        driver, device.driver = device.driver, None
        if driver is not None and driver.remove:
            self.linux.call(driver.remove, device.obj)
        device.obj.dev.driver = 0
        device.obj.driver = 0
        device.command(clear=PCI_COMMAND_MASTER)


def _fits(row: Obj, function: PciFunction) -> bool:
    wanted = (
        (row.vendor, function.vendor),
        (row.device, function.device),
        (row.subvendor, function.subsystem_vendor),
        (row.subdevice, function.subsystem_device),
    )
    same = all(value in (PCI_ANY_ID, have) for value, have in wanted)
    return same and not (getattr(row, "class") ^ function.class_code) & row.class_mask


def _device(linux: Linux, pdev: Obj) -> PciDevice:
    return linux.state(PciCore).devices[int(pdev)]


@linux_api()
def __pci_register_driver(linux: Linux, drv: Obj, owner: Obj, mod_name: int) -> int:
    """Note a driver; the vmkernel binds it to the devices that the HCL gives to its module."""
    drv.driver.name = drv.name
    linux.state(PciCore).drivers.append(drv)
    return 0


@linux_api()
def pci_unregister_driver(linux: Linux, drv: Obj) -> None:
    """Unbind a driver from its devices and forget it."""
    core = linux.state(PciCore)
    for device in core.devices.values():
        if device.driver == drv:
            core.unbind(device)
    core.drivers.remove(drv)


@linux_api(
    "pci_enable_device_mem", "pci_enable_device_io", note="Whatever is asked, both kinds of decoding go on."
)
def pci_enable_device(linux: Linux, dev: Obj) -> int:
    """Let the device decode its BARs."""
    device = _device(linux, dev)
    device.enabled += 1
    kinds = {bar.kind is BarKind.IO for bar in device.function.bars}
    device.command(
        set=(PCI_COMMAND_IO if True in kinds else 0) | (PCI_COMMAND_MEMORY if False in kinds else 0)
    )
    return 0


@linux_api()
def pci_disable_device(linux: Linux, dev: Obj) -> None:
    """End bus mastering when the last user lets go."""
    device = _device(linux, dev)
    device.enabled -= 1
    if not device.enabled:
        device.command(clear=PCI_COMMAND_MASTER)


@linux_api()
def pci_set_master(linux: Linux, dev: Obj) -> None:
    """Let the device do DMA."""
    _device(linux, dev).command(set=PCI_COMMAND_MASTER)


@linux_api()
def pci_clear_master(linux: Linux, dev: Obj) -> None:
    """End the device's DMA."""
    _device(linux, dev).command(clear=PCI_COMMAND_MASTER)


@linux_api("pci_try_set_mwi")
def pci_set_mwi(linux: Linux, dev: Obj) -> int:
    """Allow memory-write-invalidate."""
    _device(linux, dev).command(set=PCI_COMMAND_INVALIDATE)
    return 0


@linux_api()
def pci_clear_mwi(linux: Linux, dev: Obj) -> None:
    """Forbid memory-write-invalidate."""
    _device(linux, dev).command(clear=PCI_COMMAND_INVALIDATE)


@linux_api()
def pci_select_bars(linux: Linux, dev: Obj, flags: int) -> int:
    """A mask of the BARs of a kind."""
    return sum(1 << number for number in range(6) if dev.resource[number].flags & flags)


@linux_api("pci_request_selected_regions_exclusive")
def pci_request_selected_regions(linux: Linux, pdev: Obj, bars: int, name: int) -> int:
    """Reserve BARs; -EBUSY when the driver has one of them already."""
    device = _device(linux, pdev)
    wanted = {number for number in range(6) if bars >> number & 1 and device.function.bar(number)}
    if wanted & device.regions:
        return -errno.EBUSY
    device.regions |= wanted
    return 0


@linux_api()
def pci_release_selected_regions(linux: Linux, pdev: Obj, bars: int) -> None:
    """Give BARs back."""
    _device(linux, pdev).regions -= {number for number in range(6) if bars >> number & 1}


@linux_api()
def pci_request_regions(linux: Linux, pdev: Obj, name: int) -> int:
    """Reserve every BAR."""
    return pci_request_selected_regions(linux, pdev, 0x3F, name)


@linux_api()
def pci_release_regions(linux: Linux, pdev: Obj) -> None:
    """Give every BAR back."""
    pci_release_selected_regions(linux, pdev, 0x3F)


@linux_api()
def pci_ioremap_bar(linux: Linux, pdev: Obj, bar: int) -> int:
    """Open a window on a whole BAR."""
    found = _device(linux, pdev).function.bar(bar)
    return linux.state(Windows).map(found.address, found.size) if found else 0


def _config_reader(name: str, size: int) -> None:
    def read(linux: Linux, dev: Obj, where: int, val: int) -> int:
        if where % size or where >= 4096:
            return PCIBIOS_BAD_REGISTER_NUMBER
        store(val, size, _device(linux, dev).read(where, size))
        return PCIBIOS_SUCCESSFUL

    read.__name__, read.__doc__ = name, f"Read {size} bytes of configuration space."
    linux_api()(read)


def _config_writer(name: str, size: int) -> None:
    def write(linux: Linux, dev: Obj, where: int, val: int) -> int:
        if where % size or where >= 4096:
            return PCIBIOS_BAD_REGISTER_NUMBER
        _device(linux, dev).write(where, size, val)
        return PCIBIOS_SUCCESSFUL

    write.__name__, write.__doc__ = name, f"Write {size} bytes of configuration space."
    linux_api()(write)


for _word, _size in (("byte", 1), ("word", 2), ("dword", 4)):
    _config_reader(f"pci_read_config_{_word}", _size)
    _config_writer(f"pci_write_config_{_word}", _size)


@linux_api()
def pci_find_capability(linux: Linux, dev: Obj, cap: int) -> int:
    """Offset of a capability in configuration space, or 0."""
    found = _device(linux, dev).function.capability(cap)
    return found.offset if found else 0


@linux_api()
def pci_save_state(linux: Linux, dev: Obj) -> int:
    """Keep the standard header of configuration space."""
    device = _device(linux, dev)
    words = (device.read(offset, 4).to_bytes(4, "little") for offset in range(0, HEADER, 4))
    device.saved = b"".join(words)
    dev.state_saved = 1
    return 0


@linux_api()
def pci_restore_state(linux: Linux, dev: Obj) -> None:
    """Write back what pci_save_state kept, the command register last."""
    device = _device(linux, dev)
    for offset in reversed(range(0, len(device.saved), 4)):
        device.write(offset, 4, int.from_bytes(device.saved[offset : offset + 4], "little"))
    dev.state_saved = 0


@linux_api()
def pcix_get_mmrbc(linux: Linux, dev: Obj) -> int:
    """Maximum memory read byte count of a PCI-X function, in bytes (PCI-X 2.0, 7.2.3)."""
    device = _device(linux, dev)
    found = device.function.capability(PCI_CAP_ID_PCIX)
    if not found:
        return -errno.EINVAL
    return 512 << ((device.read(found.offset + PCI_X_CMD, 2) & PCI_X_CMD_MAX_READ) >> 2)


@linux_api()
def pcix_set_mmrbc(linux: Linux, dev: Obj, mmrbc: int) -> int:
    """Set the maximum memory read byte count: 512, 1024, 2048 or 4096."""
    device = _device(linux, dev)
    found = device.function.capability(PCI_CAP_ID_PCIX)
    if not found or mmrbc not in (512, 1024, 2048, 4096):
        return -errno.EINVAL
    command = device.read(found.offset + PCI_X_CMD, 2) & ~PCI_X_CMD_MAX_READ
    device.write(found.offset + PCI_X_CMD, 2, command | (mmrbc.bit_length() - 10) << 2)
    return 0


no_op(
    "pci.py",
    "Devices stay in D0: the machine has no power states.",
    "pci_set_power_state", "pci_enable_wake", "pci_wake_from_d3", "pci_prepare_to_sleep", "pci_back_from_sleep",
    "pci_choose_state",
)  # fmt: skip
