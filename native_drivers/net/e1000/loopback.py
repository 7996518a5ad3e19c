"""Frames that the chip sends to itself through its PHY (SDM 8.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.controller import transmit_control
from native_drivers.net.e1000.descriptors import RDESC, TDESC
from native_drivers.net.e1000.modes import SPEED_CODES
from native_drivers.net.e1000.registers import (
    CTRL,
    RCTL,
    RDBAH,
    RDBAL,
    RDH,
    RDLEN,
    RDT,
    TDBAH,
    TDBAL,
    TDH,
    TDLEN,
    TDT,
)
from vmkernel_core._core import lib
from vmklinux.native.descriptor import Table
from vmklinux.native.dma import dma_alloc_coherent, dma_free_coherent
from vmklinux.native.mii import BMCR
from vmklinux.native.timer import msleep

if TYPE_CHECKING:
    from native_drivers.net.e1000.controls import Controls
    from vmklinux.native.dma import DmaMemory

#: Frames and bytes in one, and the slots of both rings; a slot's buffer for either ring lies behind the descriptors.
_FRAMES, _LENGTH, _SLOTS, _BUFFER, _BUFFERS = 8, 1000, 16, 2048, 4096
#: Seconds that a frame has; milliseconds until it is sent once more: QEMU's chips drop what comes within a second of a
#: write to RCTL.
_LIMIT, _RETRY = 3.0, 20


def run(driver: Controls) -> int:
    """How many frames did not come back as they were. The chip is reset before and afterwards."""
    memory = dma_alloc_coherent(driver.pdev, _BUFFERS + 2 * _SLOTS * _BUFFER)
    loop = _Loop(driver, memory)
    try:
        loop.close()
        return sum(not loop.carries(bytes([number]) * _LENGTH) for number in range(_FRAMES))
    finally:
        driver.controller.reset()
        dma_free_coherent(memory)


class _Loop:
    def __init__(self, driver: Controls, memory: DmaMemory) -> None:
        self._driver = driver
        self._registers = driver.registers
        self._memory = memory
        self._rx = Table(RDESC, memory, _SLOTS)
        self._tx = Table(TDESC, memory, _SLOTS, offset=_BUFFERS // 2)
        self._sent = self._received = 0

    def close(self) -> None:
        """PHY and MAC run at 1000 Mb/s, with no wire between them."""
        registers, base = self._registers, self._memory.dma
        self._driver.controller.set_up(_LENGTH)
        registers.modify(CTRL, SLU=1, FRCSPD=1, FRCDPX=1, SPEED=SPEED_CODES[1000], FD=1)
        self._driver.phy.power(True)
        self._driver.phy.modify(BMCR, ANENABLE=0, SPEED1000=1, SPEED100=0, FULLDPLX=1, LOOPBACK=1)
        for slot in range(_SLOTS):
            self._rx[slot].buffer = base + self._buffer(slot)
        for low, high, length, head, tail, table in (
            (RDBAL, RDBAH, RDLEN, RDH, RDT, self._rx),
            (TDBAL, TDBAH, TDLEN, TDH, TDT, self._tx),
        ):
            registers.store(low, table.dma(0) & 0xFFFF_FFFF)
            registers.store(high, table.dma(0) >> 32)
            registers.store(length, _SLOTS * table.stride)
            registers.store(head, 0)
            registers.store(tail, 0)
        registers.write(transmit_control())
        registers.write(RCTL(EN=1, UPE=1, MPE=1, BAM=1, SECRC=1))
        registers.write(RDT(_SLOTS - 1))

    def carries(self, frame: bytes) -> bool:
        """Whether the frame comes back."""
        deadline, buffer = lib.vmk_now() + int(_LIMIT * 1e9), self._buffer(self._received)
        arrived = self._rx[self._received]
        while not arrived.DD and lib.vmk_now() < deadline:
            if not self._sent or self._tx[self._sent - 1].DD:
                self._send(frame)
            msleep(_RETRY)
        came = bool(arrived.DD) and self._memory.view[buffer : buffer + arrived.length] == frame
        self._received += bool(arrived.DD)
        return came

    def _send(self, frame: bytes) -> None:
        buffer, descriptor = self._buffer(_SLOTS + self._sent % _SLOTS), self._tx[self._sent]
        self._memory.view[buffer : buffer + len(frame)] = frame
        descriptor.set(buffer=self._memory.dma + buffer, length=len(frame), EOP=1, IFCS=1, RS=1, DD=0)
        self._sent += 1
        self._registers.write(TDT(self._sent % _SLOTS))

    @staticmethod
    def _buffer(number: int) -> int:
        return _BUFFERS + number * _BUFFER
