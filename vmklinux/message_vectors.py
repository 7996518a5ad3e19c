"""Message-signalled interrupts in the hardware: a device's vectors, in its MSI or MSI-X capability.

PCI Local Bus Specification 3.0, section 6.8, says what the registers do.
msi.py has the functions that drivers call.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from vmkernel_core.bus import Space
from vmklinux.devres import Devres
from vmklinux.irq import Interrupts
from vmklinux.pci_regs import (
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
    from vmkernel_core.platform.messages import MessageInterrupts
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice


class Msi:
    """The vectors of a device's MSI capability."""

    kind = "msi"

    def __init__(
        self, device: PciDevice, source: MessageInterrupts, lines: list[int], *, spread: bool
    ) -> None:
        self.device = device
        self.lines = dict(enumerate(lines))
        self.spread = spread
        self._message = source.message(lines[0])
        self._masked = (1 << len(lines)) - 1
        self._at = device.obj.msi_cap
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
        device: PciDevice,
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
        self._at = device.obj.msix_cap
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


def msi_count(device: PciDevice) -> int:
    """How many vectors the device's MSI capability can have; 0 without one."""
    at = device.obj.msi_cap
    return 1 << ((device.read(at + PCI_MSI_FLAGS, 2) & PCI_MSI_FLAGS_QMASK) >> 1) if at else 0


def msix_count(device: PciDevice) -> int:
    """How many entries the device's MSI-X table has; 0 without one."""
    at = device.obj.msix_cap
    return (device.read(at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1 if at else 0


class MessageVectors:
    """The devices that were given vectors, by address of their pci_dev."""

    def __init__(self, linux: Linux) -> None:
        """None was."""
        self.linux = linux
        self.devices: dict[int, Vectors] = {}
        self._pins: dict[int, int] = {}

    def give_msi(self, device: PciDevice, least: int, most: int, *, spread: bool = False) -> int:
        """Give a device ``least`` to ``most`` vectors of MSI; how many, or a negative error number.

        ``spread``: the vectors are to be spread over the CPUs.
        """
        source, room = device.platform.messages, msi_count(device)
        if error := self._refused(device, source, least, most, room):
            return error
        assert source is not None  # _refused looked
        block = 1 << (min(most, room) - 1).bit_length()  # QSIZE tells powers of two
        lines = source.allocate(block, aligned=True)
        if len(lines) < least:
            return self._too_few(source, lines)
        self._pins[int(device.obj)] = device.obj.irq
        self._begin(device, Msi(device, source, lines, spread=spread))
        device.obj.irq = lines[0]
        device.obj.msi_enabled = 1
        return min(len(lines), most)

    def give_msix(
        self,
        device: PciDevice,
        least: int,
        most: int,
        entries: list[int] | None = None,
        *,
        spread: bool = False,
    ) -> int:
        """Give a device ``least`` to ``most`` vectors of MSI-X; how many, or a negative error number.

        ``entries`` are their places in the table, 0, 1, 2 ... without.
        """
        source, room = device.platform.messages, msix_count(device)
        if error := self._refused(device, source, least, most, room):
            return error
        assert source is not None  # _refused looked
        places = list(range(room)) if entries is None else entries
        if len(set(places)) < len(places) or not set(places) <= set(range(room)):
            return -errno.EINVAL
        lines = source.allocate(min(most, room))
        if len(lines) < least:
            return self._too_few(source, lines)
        self._begin(device, MsiX(device, source, lines, places[: len(lines)], spread=spread))
        device.obj.msix_enabled = 1
        return len(lines)

    def _refused(
        self, device: PciDevice, source: MessageInterrupts | None, least: int, most: int, room: int
    ) -> int:
        if least > most:
            return -errno.ERANGE
        if source is None or not room or least < 1 or int(device.obj) in self.devices:
            return -errno.EINVAL
        return -errno.ENOSPC if room < least else 0

    @staticmethod
    def _too_few(source: MessageInterrupts, lines: list[int]) -> int:
        for line in lines:
            source.release(line)
        return -errno.ENOSPC

    def _begin(self, device: PciDevice, vectors: Vectors) -> None:
        self.devices[int(device.obj)] = vectors
        if device.obj.is_managed:
            self.linux.state(Devres).action(device.obj.dev, partial(self.release, device))
        for line in vectors.lines.values():
            self.linux.state(Interrupts).chips[line] = vectors
        vectors.enable()

    def add(self, device: PciDevice, entry: int | None) -> tuple[int, int]:
        """Give a device that uses MSI-X one vector more: entry of the table (None: any) and line.

        Instead of the entry a negative error number.
        """
        vectors, source = self.devices.get(int(device.obj)), device.platform.messages
        if not isinstance(vectors, MsiX) or source is None:
            return -errno.ENXIO, 0
        free = [place for place in range(msix_count(device)) if place not in vectors.lines]
        place = entry if entry is not None else next(iter(free), -1)
        if place not in free:
            return (-errno.EBUSY if entry is not None else -errno.ENOSPC), 0
        lines = source.allocate(1)
        if not lines:
            return -errno.ENOSPC, 0
        vectors.add(place, lines[0])
        self.linux.state(Interrupts).chips[lines[0]] = vectors
        return place, lines[0]

    def drop(self, device: PciDevice, number: int) -> None:
        """Take one vector of MSI-X back."""
        vectors = self.devices.get(int(device.obj))
        if isinstance(vectors, MsiX) and number in vectors.lines:
            self._free(device, vectors.drop(number))

    def _free(self, device: PciDevice, line: int) -> None:
        interrupts = self.linux.state(Interrupts)
        for action in interrupts.on(line):
            interrupts.remove(action, cut=True)
        del interrupts.chips[line]
        interrupts.affinities.pop(line, None)
        if device.platform.messages is not None:
            device.platform.messages.release(line)

    def release(self, device: PciDevice) -> int:
        """Take all of a device's vectors back, with handlers that are still on them: the pin works again.

        How many there were.
        """
        vectors = self.devices.pop(int(device.obj), None)
        if vectors is None:
            return 0
        vectors.disable()
        for line in vectors.lines.values():
            self._free(device, line)
        device.obj.msi_enabled = device.obj.msix_enabled = 0
        if (pin := self._pins.pop(int(device.obj), None)) is not None:
            device.obj.irq = pin
        return len(vectors.lines)

    def restore(self, device: PciDevice) -> None:
        """Write a device's vectors again, after it lost them in a reset or without power."""
        if vectors := self.devices.get(int(device.obj)):
            vectors.enable()
