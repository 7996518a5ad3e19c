"""The objects of the PCI bus that drivers look into (Linux drivers/pci/probe.c): pci_dev, pci_bus, host bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core import pci_ide
from vmkernel_core.pci import BarKind
from vmklinux.device import NUMA_NO_NODE
from vmklinux.kobject import Obj, addressof, cast
from vmklinux.list import list_add_tail, list_init
from vmklinux.pci_access import ConfigSpace
from vmklinux.pci_regs import (
    PCI_CAP_ID_EXP,
    PCI_CAP_ID_MSI,
    PCI_CAP_ID_MSIX,
    PCI_CAP_ID_PM,
    PCI_CAP_ID_VPD,
    PCI_EXP_DEVCAP,
    PCI_EXP_FLAGS,
    PCI_EXP_FLAGS_VERS,
    PCI_EXP_LNKCAP,
    PCI_EXP_LNKCAP2,
    PCI_EXP_LNKCAP_DLLLARC,
    PCI_EXP_LNKCAP_SLS,
    PCI_EXT_CAP_ID_ERR,
    PCI_HEADER_TYPE_BRIDGE,
    PCI_PM_CAP_D1,
    PCI_PM_CAP_D2,
    PCI_PM_CAP_PME_SHIFT,
    PCI_PM_CTRL,
    PCI_PM_CTRL_STATE_MASK,
    PCI_PM_PMC,
    PCI_ROM_ADDRESS,
    PCI_ROM_ADDRESS1,
)
from vmklinux.resource import IORESOURCE_IO, IORESOURCE_MEM

if TYPE_CHECKING:
    from vmkernel_core.pci import Bar, Bridge, PciFunction
    from vmkernel_core.platform.base import Platform
    from vmklinux.linux import Linux

# include/linux/ioport.h; the low four bits of a resource's flags are those of the BAR.
IORESOURCE_PREFETCH, IORESOURCE_SIZEALIGN, IORESOURCE_MEM_64 = 0x2000, 0x40000, 0x100000
IORESOURCE_PCI_FIXED = 0x10
BAR_IO, BAR_MEM_64, BAR_PREFETCH = 1, 4, 8
#: Milliseconds that a device gets from D3hot and from D3cold to D0 (PCI PM 1.2, 5.6.1; Linux's pci_pm_init).
D3HOT_DELAY, D3COLD_DELAY = 10, 100
#: What a device that knows nothing else may be told of a segment: 64 KiB (pci_device_add).
SEGMENT, SEGMENT_BOUNDARY = 1 << 16, 0xFFFF_FFFF


class Buses:
    """The pci_bus objects by domain and number, each with its host bridge or the bridge above it."""

    def __init__(self, linux: Linux) -> None:
        """None is there."""
        self._linux = linux
        self._buses: dict[tuple[int, int], Obj] = {}
        self._operations: Obj | None = None

    def at(self, domain: int, number: int) -> Obj:
        """The bus of that number; a root bus comes with its host bridge."""
        found = self._buses.get((domain, number))
        return found if found is not None else self._root(domain, number)

    def _root(self, domain: int, number: int) -> Obj:
        linux = self._linux
        host, system = linux.new("pci_host_bridge"), linux.new("pci_sysdata")
        bus = self._new(domain, number)
        system.domain, system.node = domain, NUMA_NO_NODE
        linux.call("device_initialize", addressof(host, "dev"))
        host.dev.kobj.name = linux.new_string(f"pci{domain:04x}:{number:02x}")
        host.bus, host.busnr, host.domain_nr, host.sysdata = bus, number, domain, system
        list_init(linux, addressof(host, "windows"))
        list_init(linux, addressof(host, "dma_ranges"))
        bus.sysdata, bus.bridge, host.ops = system, addressof(host, "dev"), bus.ops
        return bus

    def behind(self, bridge: Obj, what: Bridge) -> Obj:
        """Make the bus behind a bridge."""
        parent = bridge.bus
        domain = cast(self._linux.types, "pci_sysdata", parent.sysdata).domain
        bus = self._new(domain, what.secondary)
        bus.busn_res.end = what.subordinate
        bus.parent, bus.self, bus.primary = parent, bridge, parent.number
        bus.sysdata, bus.bridge = parent.sysdata, addressof(bridge, "dev")
        list_add_tail(self._linux, addressof(bus, "node"), addressof(parent, "children"))
        bridge.subordinate = bus
        return bus

    def forget(self, bus: Obj) -> None:
        """Take a bus out, whose devices have gone."""
        domain = cast(self._linux.types, "pci_sysdata", bus.sysdata).domain
        del self._buses[domain, bus.number]
        self._linux.free(bus)

    def _new(self, domain: int, number: int) -> Obj:
        linux = self._linux
        if self._operations is None:
            self._operations = linux.new("pci_ops")
            self._operations.read = linux.entry("pci_generic_config_read")
            self._operations.write = linux.entry("pci_generic_config_write")
        bus = self._buses[domain, number] = linux.new("pci_bus")
        bus.number, bus.ops = number, self._operations
        bus.busn_res.start = bus.busn_res.end = number
        for member in ("node", "children", "devices", "slots", "resources"):
            list_init(linux, addressof(bus, member))
        return bus


def setup_device(linux: Linux, function: PciFunction, platform: Platform, name: int) -> Obj:
    """Make the pci_dev of a function that was found, and the bus behind it where it is a bridge."""
    linux.state(ConfigSpace).platform = platform
    address = function.address
    obj, bus = linux.new("pci_dev"), linux.state(Buses).at(address.domain, address.bus)
    linux.call("device_initialize", addressof(obj, "dev"))
    obj.bus, obj.sysdata, obj.devfn = bus, bus.sysdata, address.devfn
    list_add_tail(linux, addressof(obj, "bus_list"), addressof(bus, "devices"))
    obj.vendor, obj.device = function.vendor, function.device
    obj.subsystem_vendor, obj.subsystem_device = function.subsystem_vendor, function.subsystem_device
    setattr(obj, "class", function.class_code)
    obj.revision, obj.hdr_type = function.revision, function.header_type
    obj.multifunction = function.multifunction
    obj.rom_base_reg = PCI_ROM_ADDRESS1 if function.header_type == PCI_HEADER_TYPE_BRIDGE else PCI_ROM_ADDRESS
    obj.pin = function.interrupt_pin
    obj.irq = function.line
    obj.error_state = linux.types.enumerator("pci_channel_io_normal")
    for bar in function.all_bars:
        _resource(obj.resource[bar.index], bar, name)
    for index, start, size in pci_ide.legacy_ports(function):
        ports = obj.resource[index]
        ports.start, ports.end, ports.name = start, start + size - 1, name
        ports.flags = IORESOURCE_IO | IORESOURCE_PCI_FIXED
    pci_ide.set_up(platform, function)
    _dma(obj)
    _capabilities(obj, function, platform)
    obj.dev.parent, obj.dev.bus = bus.bridge, linux.symbols["pci_bus_type"]
    obj.dev.kobj.name = name
    if function.bridge:
        linux.state(Buses).behind(obj, function.bridge)
    return obj


def _resource(resource: Obj, bar: Bar, name: int) -> None:
    resource.start, resource.end, resource.name = bar.address, bar.address + bar.size - 1, name
    if bar.kind is BarKind.IO:
        flags = IORESOURCE_IO | BAR_IO
    else:
        flags = IORESOURCE_MEM | (IORESOURCE_PREFETCH | BAR_PREFETCH if bar.prefetchable else 0)
    if bar.kind is BarKind.MEMORY64:
        flags |= IORESOURCE_MEM_64 | BAR_MEM_64
    resource.flags = flags | IORESOURCE_SIZEALIGN


def _dma(obj: Obj) -> None:
    obj.dma_mask = obj.dev.coherent_dma_mask = 0xFFFF_FFFF
    obj.dev.dma_mask = addressof(obj, "dma_mask")
    obj.dev.dma_parms = addressof(obj, "dma_parms")
    obj.dma_parms.max_segment_size, obj.dma_parms.segment_boundary_mask = SEGMENT, SEGMENT_BOUNDARY


def _capabilities(obj: Obj, function: PciFunction, platform: Platform) -> None:
    def read(offset: int, size: int) -> int:
        return platform.config_read(function.address, offset, size)

    obj.cfg_size = 4096 if function.capability(PCI_CAP_ID_EXP) else 256
    for capability, member in ((PCI_CAP_ID_MSI, "msi_cap"), (PCI_CAP_ID_MSIX, "msix_cap")):
        if found := function.capability(capability):
            setattr(obj, member, found.offset)
    if found := function.capability(PCI_CAP_ID_VPD):
        obj.vpd.cap = found.offset
    if found := function.capability(PCI_CAP_ID_EXP):
        obj.pcie_cap, obj.pcie_flags_reg = found.offset, read(found.offset + PCI_EXP_FLAGS, 2)
        obj.devcap = read(found.offset + PCI_EXP_DEVCAP, 4)
        obj.pcie_mpss = obj.devcap & 7
        link = read(found.offset + PCI_EXP_LNKCAP, 4)
        obj.link_active_reporting = bool(link & PCI_EXP_LNKCAP_DLLLARC)
        if "supported_speeds" in dir(obj):
            # A vector like Link Capabilities 2's: bit n for the n-th speed; older devices tell the highest only.
            newer = obj.pcie_flags_reg & PCI_EXP_FLAGS_VERS > 1
            second = read(found.offset + PCI_EXP_LNKCAP2, 4) & 0xFE if newer else 0
            obj.supported_speeds = (second or 0xFE) & ((2 << (link & PCI_EXP_LNKCAP_SLS)) - 2)
    if found := function.capability(PCI_EXT_CAP_ID_ERR, extended=True):
        obj.aer_cap = found.offset
    obj.d3hot_delay, obj.d3cold_delay = D3HOT_DELAY, D3COLD_DELAY
    if found := function.capability(PCI_CAP_ID_PM):
        able = read(found.offset + PCI_PM_PMC, 2)
        obj.pm_cap, obj.pme_support = found.offset, able >> PCI_PM_CAP_PME_SHIFT
        obj.d1_support, obj.d2_support = bool(able & PCI_PM_CAP_D1), bool(able & PCI_PM_CAP_D2)
        obj.current_state = read(found.offset + PCI_PM_CTRL, 2) & PCI_PM_CTRL_STATE_MASK
        obj.dev.power.can_wakeup = obj.pme_support != 0
