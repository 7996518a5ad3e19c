"""Frames in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import RDT
from native_drivers.net.e1000.rings import RX_LAYOUT, tell_rx
from vmklinux.native.ring import RxRing

if TYPE_CHECKING:
    from vmklinux.native.netdevice import NetDevice
    from vmklinux.native.register import Registers


class Receiver:
    """The receive ring of a chip that is open."""

    def __init__(self, dev: NetDevice, registers: Registers, slots: int) -> None:
        """All its buffers are for the chip. OutOfMachineMemory."""
        self._dev = dev
        self._registers = registers
        self.ring = RxRing(dev.pdev, RX_LAYOUT, slots)
        self._tail = 0

    def prepare(self) -> None:
        """The chip was reset: begin anew."""
        self.ring.reset()
        tell_rx(self._registers, self.ring)
        self._tail = 0

    def give(self) -> None:
        """Let the chip have the buffers that are free; reception is on."""
        tail = self.ring.tail
        if tail != self._tail:
            self._tail = tail
            self._registers.window.write(RDT.offset, 4, tail)

    def harvest(self, budget: int) -> int:
        """Hand up at most that many frames; how many there were."""
        frames = self.ring.harvest(self._dev, budget)
        self.give()
        return frames
