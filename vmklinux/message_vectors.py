"""The vectors of message-signalled interrupts that Linux's modules have, and their lines.

msi_registers.py has what is in the hardware, msi.py the functions that drivers call.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from vmklinux.devres import Devres
from vmklinux.irq import Interrupts
from vmklinux.msi_registers import Msi, MsiX, msi_count, msix_count

if TYPE_CHECKING:
    from vmkernel_core.platform.messages import MessageInterrupts
    from vmklinux.linux import Linux
    from vmklinux.msi_registers import Vectors
    from vmklinux.pci import PciDevice


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
