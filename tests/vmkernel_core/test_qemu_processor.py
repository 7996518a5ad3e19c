"""Register accesses that come in bursts are done by QEMU's own processor. Independent: QEMU, its processor and e1000.

How many accesses went through the mailbox is read from machine memory, where the processor counts them (mailbox.h).
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from vmkernel_core._core import lib
from vmkernel_core.bus import Space
from vmkernel_core.memory import MachineMemory, load_bytes
from vmkernel_core.pci import COMMAND, scan
from vmkernel_core.platform.qemu import QemuPlatform

MAILBOX = 0x80000
#: Registers of the 8254x (Intel 317453, 13.4): device status, and the rings' base addresses, which keep what is written.
STATUS, RDBAL, TDBAL = 0x8, 0x2800, 0x3800
BURST = 400


class Lab:
    def __init__(self, memory: MachineMemory) -> None:
        self.memory = memory
        self.platform = QemuPlatform(["e1000,netdev=wire0,addr=5"], processor=True)
        self.platform.start(memory)
        card = next(f for f in scan(self.platform) if f.device == 0x100E)
        self.platform.config_write(card.address, COMMAND, 2, 7)
        self.registers = card.bars[0].address

    def read(self, register: int, size: int = 4) -> int:
        return self.platform.bus.read(Space.MEMORY, self.registers + register, size)

    def write(self, register: int, value: int) -> None:
        self.platform.bus.write(Space.MEMORY, self.registers + register, 4, value)

    @property
    def done(self) -> int:
        """Accesses that the processor has done."""
        return int(struct.unpack("<I", load_bytes(self.memory.base + MAILBOX + 64, 4))[0])

    @property
    def asleep(self) -> bool:
        return load_bytes(self.memory.base + MAILBOX + 68, 1) != b"\0"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with MachineMemory(64 << 20) as memory:
        lab = Lab(memory)
        try:
            yield lab
        finally:
            lab.platform.stop()


def burst(lab: Lab) -> None:
    """Accesses until the processor does them; it is given a while, since the machine may be busy."""
    deadline, before = time.monotonic() + LIMIT, lab.done
    while lab.done < before + 16:
        assert time.monotonic() < deadline, "the processor never took an access"
        lab.read(STATUS)


def test_writes_and_reads_keep_their_order_across_both_ways(lab: Lab) -> None:
    for number in range(BURST):
        lab.write(TDBAL, number * 16)
        lab.write(RDBAL, number << 8)
        assert (lab.read(TDBAL), lab.read(RDBAL)) == (number * 16, number << 8)
        assert lab.platform.bus.read_rep(Space.MEMORY, lab.registers + RDBAL, 4, 3) == [number << 8] * 3
    assert lab.done > BURST, "most of it went by text"


def test_sizes_and_ports(lab: Lab) -> None:
    burst(lab)
    bus, before = lab.platform.bus, lab.done
    for number in range(BURST):
        lab.write(TDBAL, number * 0x10010)
        assert [lab.read(TDBAL, size) for size in (2, 4)] == [number * 0x10 & 0xFFF0, number * 0x10010]
        # Configuration mechanism #1: the host bridge's ids, by address and data port (PCI 3.0, 3.2.2.3.2).
        bus.write(Space.IO, 0xCF8, 4, 1 << 31)
        assert [bus.read(Space.IO, 0xCFC, size) for size in (1, 2, 4)] == [0x86, 0x8086, 0x29C08086]
        bus.write(Space.IO, 0xCF8, 4, 1 << 31 | 5 << 11)
        assert bus.read(Space.IO, 0xCFE, 2) == 0x100E
    assert lab.done > before + BURST


def test_after_a_pause_it_is_woken_again(lab: Lab) -> None:
    for _ in range(3):
        burst(lab)
        until("the processor halts", lambda: lab.asleep)
        assert lab.read(STATUS) & 0x2
        lab.write(TDBAL, 0x1234)
        assert lab.read(TDBAL) == 0x1234


def test_posted_writes_are_flushed(lab: Lab) -> None:
    burst(lab)
    for number in range(5 * BURST):
        lab.write(TDBAL, number & 0xFFFF)
    lib.vmk_bus_flush(lab.platform.bus.handle)
    assert lab.read(TDBAL) == (5 * BURST - 1) & 0xFFFF


def test_a_dead_qemu_gives_all_ones(lab: Lab) -> None:
    burst(lab)
    os.kill(lab.platform.pid, signal.SIGKILL)
    until("reads give all ones", lambda: lab.read(STATUS) == 0xFFFF_FFFF)
    lab.write(TDBAL, 1)
    assert lab.platform.bus.gone


def test_it_can_be_left_asleep(lab: Lab) -> None:
    lab.platform.use_processor(lab.memory, False)
    before = lab.done
    for number in range(BURST):
        lab.write(TDBAL, number)
        assert lab.read(TDBAL) == number
    assert lab.done == before
