"""Message-signalled interrupts in the hardware: a device's vectors, in its MSI or MSI-X capability, for both engines.

PCI Local Bus Specification 3.0, section 6.8, says what the registers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from vmkernel_core.bus import Space
from vmklinux.pci_regs import (
    PCI_CAP_ID_MSI,
    PCI_CAP_ID_MSIX,
    PCI_COMMAND_INTX_DISABLE,
    PCI_MSI_ADDRESS_HI,
    PCI_MSI_ADDRESS_LO,
    PCI_MSI_FLAGS,
    PCI_MSI_FLAGS_64BIT,
    PCI_MSI_FLAGS_ENABLE,
    PCI_MSI_FLAGS_MASKBIT,
    PCI_MSI_FLAGS_QMASK,
    PCI_MSI_FLAGS_QSIZE,
    PCI_MSIX_ENTRY_CTRL_MASKBIT,
    PCI_MSIX_ENTRY_SIZE,
    PCI_MSIX_ENTRY_VECTOR_CTRL,
    PCI_MSIX_FLAGS,
    PCI_MSIX_FLAGS_ENABLE,
    PCI_MSIX_FLAGS_MASKALL,
    PCI_MSIX_FLAGS_QSIZE,
    PCI_MSIX_TABLE,
    PCI_MSIX_TABLE_BIR,
)

if TYPE_CHECKING:
    from vmkernel_core.pci_function import PciFunction
    from vmkernel_core.platform.base import Platform
    from vmkernel_core.platform.messages import MessageInterrupts

# Kinds of vectors (include/linux/pci.h).
PCI_IRQ_INTX, PCI_IRQ_MSI, PCI_IRQ_MSIX = 1, 2, 4


class MessageDevice(Protocol):
    """A device of either engine's, with its configuration space."""

    @property
    def function(self) -> PciFunction:
        """What the scan found."""

    @property
    def platform(self) -> Platform:
        """Whose device it is."""

    def read(self, offset: int, size: int) -> int:
        """Read configuration space."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Write configuration space."""

    def command(self, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear bits of the command register."""

    def capability(self, id: int) -> int:
        """Offset of a capability, or 0."""


class Msi:
    """The vectors of a device's MSI capability."""

    kind = "msi"

    def __init__(
        self, device: MessageDevice, source: MessageInterrupts, lines: list[int], *, spread: bool
    ) -> None:
        self.device = device
        self.lines = dict(enumerate(lines))
        self.spread = spread
        self._message = source.message(lines[0])
        self._masked = (1 << len(lines)) - 1
        self._at = device.capability(PCI_CAP_ID_MSI)
        flags = self._flags()
        self._data = self._at + (12 if flags & PCI_MSI_FLAGS_64BIT else 8)
        self._mask_at = self._data + 4 if flags & PCI_MSI_FLAGS_MASKBIT else 0

    def _flags(self) -> int:
        return self.device.read(self._at + PCI_MSI_FLAGS, 2)

    def _write_masks(self) -> None:
        if self._mask_at:
            self.device.write(self._mask_at, 4, self._masked)

    def mask(self, line: int) -> None:
        """Let the device hold the line's message back."""
        self._masked |= 1 << line - self.lines[0]
        self._write_masks()

    def unmask(self, line: int) -> None:
        """Let the device send the line's message."""
        self._masked &= ~(1 << line - self.lines[0])
        self._write_masks()

    def enable(self) -> None:
        """Write messages, masks and control to the device: at first, and after it lost them."""
        device, flags = self.device, self._flags() & ~(PCI_MSI_FLAGS_QSIZE | PCI_MSI_FLAGS_ENABLE)
        device.write(self._at + PCI_MSI_FLAGS, 2, flags)
        self._write_masks()
        device.write(self._at + PCI_MSI_ADDRESS_LO, 4, self._message.address & 0xFFFF_FFFF)
        if flags & PCI_MSI_FLAGS_64BIT:
            device.write(self._at + PCI_MSI_ADDRESS_HI, 4, self._message.address >> 32)
        device.write(self._data, 2, self._message.data)
        device.command(set=PCI_COMMAND_INTX_DISABLE)
        size = len(self.lines).bit_length() - 1
        device.write(self._at + PCI_MSI_FLAGS, 2, flags | size << 4 | PCI_MSI_FLAGS_ENABLE)

    def disable(self) -> None:
        """Let the device use its pin again."""
        self.device.write(self._at + PCI_MSI_FLAGS, 2, self._flags() & ~PCI_MSI_FLAGS_ENABLE)
        self._masked = 0
        self._write_masks()
        self.device.command(clear=PCI_COMMAND_INTX_DISABLE)


class MsiX:
    """The vectors of a device's MSI-X capability; ``entries`` are their places in its table."""

    kind = "msi-x"

    def __init__(
        self,
        device: MessageDevice,
        source: MessageInterrupts,
        lines: list[int],
        entries: list[int],
        *,
        spread: bool,
    ) -> None:
        self.device = device
        self.lines = dict(enumerate(lines))
        self.spread = spread
        self._source = source
        self._entries = dict(zip(lines, entries, strict=True))
        self._masked = set(lines)
        self._at = device.capability(PCI_CAP_ID_MSIX)
        table = device.read(self._at + PCI_MSIX_TABLE, 4)
        bar = device.function.bar(table & PCI_MSIX_TABLE_BIR)
        if bar is None:
            raise ValueError(f"the MSI-X table of {device.function} is in a BAR that there is not")
        self._table = bar.address + (table & ~PCI_MSIX_TABLE_BIR)

    def _write(self, entry: int, offset: int, value: int) -> None:
        address = self._table + entry * PCI_MSIX_ENTRY_SIZE + offset
        self.device.platform.bus.write(Space.MEMORY, address, 4, value)

    def _write_entry(self, line: int) -> None:
        entry, message = self._entries[line], self._source.message(line)
        for offset, value in enumerate((message.address & 0xFFFF_FFFF, message.address >> 32, message.data)):
            self._write(entry, 4 * offset, value)
        self._write(entry, PCI_MSIX_ENTRY_VECTOR_CTRL, int(line in self._masked))

    def mask(self, line: int) -> None:
        """Let the device hold the line's message back."""
        self._masked.add(line)
        self._write(self._entries[line], PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT)

    def unmask(self, line: int) -> None:
        """Let the device send the line's message."""
        self._masked.discard(line)
        self._write(self._entries[line], PCI_MSIX_ENTRY_VECTOR_CTRL, 0)

    def add(self, entry: int, line: int) -> None:
        """One vector more, while the others work; its number is its place in the table."""
        self.lines[entry] = line
        self._entries[line] = entry
        self._masked.add(line)
        self._write_entry(line)

    def drop(self, number: int) -> int:
        """One vector fewer; its line."""
        line = self.lines.pop(number)
        self.mask(line)
        self._masked.discard(line)
        del self._entries[line]
        return line

    def enable(self) -> None:
        """Write messages, masks and control to the device: at first, and after it lost them."""
        device = self.device
        flags = device.read(self._at + PCI_MSIX_FLAGS, 2)
        device.write(self._at + PCI_MSIX_FLAGS, 2, flags | PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)
        used = set(self._entries.values())
        for entry in range((flags & PCI_MSIX_FLAGS_QSIZE) + 1):
            if entry not in used:
                self._write(entry, PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT)
        for line in self._entries:
            self._write_entry(line)
        device.command(set=PCI_COMMAND_INTX_DISABLE)
        device.write(self._at + PCI_MSIX_FLAGS, 2, flags & ~PCI_MSIX_FLAGS_MASKALL | PCI_MSIX_FLAGS_ENABLE)

    def disable(self) -> None:
        """Let the device use its pin again."""
        for entry in self._entries.values():
            self._write(entry, PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT)
        device = self.device
        flags = device.read(self._at + PCI_MSIX_FLAGS, 2)
        device.write(self._at + PCI_MSIX_FLAGS, 2, flags & ~PCI_MSIX_FLAGS_ENABLE)
        device.command(clear=PCI_COMMAND_INTX_DISABLE)


Vectors: TypeAlias = Msi | MsiX


def msi_count(device: MessageDevice) -> int:
    """How many vectors the device's MSI capability can have; 0 without one."""
    at = device.capability(PCI_CAP_ID_MSI)
    return 1 << ((device.read(at + PCI_MSI_FLAGS, 2) & PCI_MSI_FLAGS_QMASK) >> 1) if at else 0


def msix_count(device: MessageDevice) -> int:
    """How many entries the device's MSI-X table has; 0 without one."""
    at = device.capability(PCI_CAP_ID_MSIX)
    return (device.read(at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1 if at else 0
