"""What a PCI function is to this layer: its place, ids, BARs, capabilities, and what lies behind a bridge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmkernel_core.platform.base import PciAddress

# Configuration space, PCI Local Bus Specification 3.0, chapter 6 and appendix D.
VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION_ID = 0x08
HEADER_TYPE = 0x0E
BASE_ADDRESS_0 = 0x10
SUBSYSTEM_VENDOR_ID = 0x2C
SUBSYSTEM_ID = 0x2E
CAPABILITIES_POINTER = 0x34
BRIDGE_HEADER = 1
PRIMARY_BUS = 0x18  # with the secondary and subordinate bus and a latency timer, 32 bits
INTERRUPT_PIN = 0x3D
EXTENDED_CONFIG = 0x100
CONFIG_END = 0x1000

COMMAND_IO = 0x1
COMMAND_MEMORY = 0x2
STATUS_CAPABILITIES = 0x10
MULTI_FUNCTION = 0x80
NO_VENDOR = (0x0000, 0xFFFF)

#: Capability ids (PCI Code and ID Assignment Specification) that this layer itself needs.
CAPABILITY_PCI_EXPRESS = 0x10
# Of the PCI Express capability (PCI Express Base 3.0, 7.8.2, 7.8.9): its flags, Slot Capabilities.
EXPRESS_FLAGS, SLOT_IMPLEMENTED = 0x02, 0x100
SLOT_CAPABILITIES, SLOT_HOT_PLUG = 0x14, 0x40

#: The expansion ROM's base address register of a device and of a PCI-to-PCI bridge; the bits that are no address.
ROM_ADDRESS = {0: 0x30, 1: 0x38}
ROM_MASK = 0x7FF
#: The number that stands for it among BARs.
ROM = 6


class PciError(VmkError):
    """The PCI bus cannot be set up."""


class BarKind(StrEnum):
    """What a base address register decodes."""

    IO = "io"
    MEMORY32 = "memory32"
    MEMORY64 = "memory64"


@dataclass(frozen=True, slots=True)
class Bar:
    """One base address register: ``index`` 0…5, ``ROM`` for the expansion ROM's; bus ``address`` and ``size`` in bytes
    (a power of two)."""

    index: int
    kind: BarKind
    prefetchable: bool
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability: its id, its offset in configuration space, whether it is an extended one."""

    id: int
    offset: int
    extended: bool


class Space(StrEnum):
    """The address spaces that a bridge passes on, each through a window of its own."""

    IO = "io"
    MEMORY = "memory"
    PREFETCHABLE = "prefetchable"


@dataclass(frozen=True, slots=True)
class Bridge:
    """What lies behind a bridge: buses ``secondary`` … ``subordinate``, and its windows.

    ``windows`` has (start, size) in bytes of each window that the bridge has, size 0 while it is closed.
    ``hotplug``: a device may come and go behind it (PCI Express Slot Capabilities, Hot-Plug Capable).
    """

    secondary: int
    subordinate: int
    windows: Mapping[Space, tuple[int, int]]
    hotplug: bool = False


@dataclass(frozen=True, slots=True)
class PciFunction:
    """What the scan learned about one function. ``class_code`` has 24 bits: class, subclass, interface.

    ``header_type`` is without the multi-function bit, ``interrupt_pin`` 0 for none, 1…4 for INTA…INTD.
    ``line`` is the interrupt line that the pin ends at, bridges passed (0 without a pin); ``bridge`` tells what lies
    behind a PCI-to-PCI bridge or a PCI Express port.
    """

    address: PciAddress
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    class_code: int
    revision: int
    header_type: int
    interrupt_pin: int
    bars: tuple[Bar, ...]
    capabilities: tuple[Capability, ...]
    multifunction: bool = False
    rom: Bar | None = None
    line: int = 0
    bridge: Bridge | None = None

    def __str__(self) -> str:
        """Address and ids, as ``0000:00:05.0 [8086:100e]``."""
        return f"{self.address} [{self.vendor:04x}:{self.device:04x}]"

    @property
    def all_bars(self) -> tuple[Bar, ...]:
        """The BARs, the expansion ROM's among them."""
        return (*self.bars, self.rom) if self.rom else self.bars

    def bar(self, index: int) -> Bar | None:
        """The BAR of that index, or None."""
        return next((bar for bar in self.bars if bar.index == index), None)

    def capability(self, id: int, *, extended: bool = False) -> Capability | None:
        """The first capability of that id, or None."""
        return next((c for c in self.capabilities if (c.id, c.extended) == (id, extended)), None)
