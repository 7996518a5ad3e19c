"""Message interrupts from a device to a handler, through the functions that drivers call.

Independent: QEMU's edu (MSI) and e1000e (MSI-X), which send the messages as their capabilities say; Debian's kernel
image, whose structs the functions fill. The handlers are a few bytes of machine code. Registers of edu are in QEMU's
docs/specs/edu.txt, those of the 82574L in Intel's datasheet 317694, chapter 10.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import LIMIT
from tests.e2e.interrupt_bench import EDU_ACKNOWLEDGE, EDU_RAISE, EDU_STATUS, Bench, counts_to
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.memory import load
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.irq import LineInfo
from vmklinux.kernels import Kernel
from vmklinux.pci import PciDevice

# 82574L: cause set, mask set, auto clear, the causes' vectors; causes "receive queue 0" and "other".
ICR, ICS, IMS, EIAC, IVAR = 0xC0, 0xC8, 0xD0, 0xDC, 0xE4
RXQ0, OTHER = 1 << 20, 1 << 24
INTX_DISABLE = 0x400
PCI_IRQ_INTX, PCI_IRQ_MSI, PCI_IRQ_MSIX = 1, 2, 4


@pytest.fixture
def bench(kernel: Kernel) -> Iterator[Bench]:
    devices = ["edu,addr=5", "e1000e,netdev=wire0,addr=6"]
    with VMkernel(QemuPlatform(devices), kernel=kernel.release, modules={"8086:10d3": "none"}) as host:
        yield Bench(host)


@pytest.fixture
def edu(bench: Bench) -> Iterator[PciDevice]:
    device = bench.device(0x11E8)
    bench.enable(device)
    yield device
    bench.call("pci_free_irq_vectors", device.obj)
    bench.write(device, EDU_ACKNOWLEDGE, 0xFFFF_FFFF)


@pytest.fixture
def nic(bench: Bench) -> Iterator[PciDevice]:
    device = bench.device(0x10D3)
    bench.enable(device)
    yield device
    bench.call("pci_free_irq_vectors", device.obj)


def test_msi(bench: Bench, edu: PciDevice) -> None:
    pin = edu.obj.irq
    assert bench.call("pci_msi_vec_count", edu.obj) == 1
    assert bench.call("pci_enable_msi", edu.obj) == 0
    irq = edu.obj.irq
    assert irq != pin
    assert edu.obj.msi_enabled
    assert edu.read(4, 2) & INTX_DISABLE
    counter = bench.listen(irq)
    for number in range(1, 4):
        bench.write(edu, EDU_RAISE, 1)
        counts_to(counter, number)
    assert bench.lines()[irq] == LineInfo(irq, "msi", ("bench",), 3, 0, False, 0)
    bench.unlisten(irq, counter)
    bench.call("pci_disable_msi", edu.obj)
    assert edu.obj.irq == pin
    assert not edu.obj.msi_enabled
    assert not edu.read(4, 2) & INTX_DISABLE
    assert irq not in bench.lines()


def test_a_message_that_finds_its_line_disabled_waits(bench: Bench, edu: PciDevice) -> None:
    assert bench.call("pci_enable_msi", edu.obj) == 0
    irq = edu.obj.irq
    counter = bench.listen(irq)
    bench.call("disable_irq", irq)
    bench.call("disable_irq", irq)
    bench.write(edu, EDU_RAISE, 1)
    bench.write(edu, EDU_RAISE, 1)
    bench.call("enable_irq", irq)
    assert bench.read(edu, EDU_STATUS) == 1, "both messages have been sent"
    assert bench.lines()[irq].disabled
    assert load(counter, 4) == 0
    bench.call("enable_irq", irq)
    counts_to(counter, 1)
    bench.unlisten(irq, counter)


def test_msix_vectors_each_have_their_line(bench: Bench, nic: PciDevice) -> None:
    most = bench.call("pci_msix_vec_count", nic.obj)
    assert most == 5, "the 82574L's five vectors"
    assert bench.call("pci_alloc_irq_vectors_affinity", nic.obj, 2, 2, PCI_IRQ_MSIX, 0) == 2
    lines = [bench.call("pci_irq_vector", nic.obj, number) for number in range(3)]
    assert lines[2] == -22
    assert nic.obj.msix_enabled
    counters = [bench.listen(line) for line in lines[:2]]
    bench.write(nic, IVAR, 0x8 << 0 | 0x9 << 16)  # receive queue 0: vector 0; other causes: vector 1
    bench.write(nic, EIAC, RXQ0 | OTHER)
    bench.write(nic, IMS, RXQ0 | OTHER)
    bench.write(nic, ICS, RXQ0)
    counts_to(counters[0], 1)
    assert load(counters[1], 4) == 0
    bench.write(nic, ICS, OTHER)
    counts_to(counters[1], 1)
    assert load(counters[0], 4) == 1
    assert [bench.lines()[line].kind for line in lines[:2]] == ["msi-x", "msi-x"]
    for line, counter in zip(lines, counters, strict=False):
        bench.unlisten(line, counter)


def table_control(bench: Bench, nic: PciDevice, entry: int) -> int:
    """The vector control word of an entry of the MSI-X table, which the 82574L has in BAR 3."""
    bar = nic.function.bar(3)
    assert bar is not None
    return bench.host.platform.bus.read(Space.MEMORY, bar.address + 16 * entry + 12, 4)


def test_a_vector_without_handler_is_masked_in_the_device(bench: Bench, nic: PciDevice) -> None:
    assert bench.call("pci_alloc_irq_vectors_affinity", nic.obj, 1, 2, PCI_IRQ_MSIX, 0) == 2
    line = bench.call("pci_irq_vector", nic.obj, 0)
    assert [table_control(bench, nic, entry) for entry in range(5)] == [1] * 5
    counter = bench.listen(line)
    assert [table_control(bench, nic, entry) for entry in range(5)] == [0, 1, 1, 1, 1]
    bench.unlisten(line, counter)
    assert table_control(bench, nic, 0) == 1


def test_vectors_are_restored_after_a_reset(bench: Bench, nic: PciDevice) -> None:
    assert bench.call("pci_alloc_irq_vectors_affinity", nic.obj, 1, 1, PCI_IRQ_MSIX, 0) == 1
    line = bench.call("pci_irq_vector", nic.obj, 0)
    counter = bench.listen(line)
    bar = nic.function.bar(3)
    assert bar is not None
    for offset in range(0, 16, 4):
        bench.host.platform.bus.write(Space.MEMORY, bar.address + offset, 4, 0xFFFF_FFFF)
    nic.write(nic.obj.msix_cap + 2, 2, 0)
    bench.call("pci_restore_msi_state", nic.obj)
    bench.write(nic, IVAR, 0x8)
    bench.write(nic, EIAC, RXQ0)
    bench.write(nic, IMS, RXQ0)
    bench.write(nic, ICS, RXQ0)
    counts_to(counter, 1)
    bench.unlisten(line, counter)


def test_a_device_takes_what_it_can_have(bench: Bench, edu: PciDevice, nic: PciDevice) -> None:
    """edu has no MSI-X; the least wanted vectors may be more than there are; the pin is the last resort."""
    kinds = PCI_IRQ_INTX | PCI_IRQ_MSI | PCI_IRQ_MSIX
    assert bench.call("pci_alloc_irq_vectors_affinity", edu.obj, 2, 4, kinds, 0) == -28
    assert bench.call("pci_alloc_irq_vectors_affinity", edu.obj, 1, 4, PCI_IRQ_MSIX | PCI_IRQ_INTX, 0) == 1
    assert bench.call("pci_irq_vector", edu.obj, 0) == edu.obj.irq < 64
    assert bench.call("pci_alloc_irq_vectors_affinity", edu.obj, 1, 4, kinds, 0) == 1
    assert bench.call("pci_irq_vector", edu.obj, 0) >= 64
    assert bench.call("pci_alloc_irq_vectors_affinity", nic.obj, 1, 99, kinds, 0) == 5


def test_a_platform_without_messages_leaves_the_pin(kernel: Kernel) -> None:
    with VMkernel(
        ModelPlatform([E1000Model(bytes(6))]), kernel=kernel.release, modules={"8086:100e": "none"}
    ) as host:
        bench = Bench(host)
        device = bench.device(0x100E)
        bench.enable(device)
        assert bench.call("pci_enable_msi", device.obj) == -22
        assert bench.call("pci_msi_enabled") == 0
        every = PCI_IRQ_INTX | PCI_IRQ_MSI | PCI_IRQ_MSIX
        assert bench.call("pci_alloc_irq_vectors_affinity", device.obj, 1, 4, every, 0) == 1
        assert bench.call("pci_irq_vector", device.obj, 0) == device.obj.irq


def test_of_a_storm_of_messages_the_last_arrives(bench: Bench, edu: PciDevice) -> None:
    """Messages faster than handlers: each write may find the one before pending, the last is never lost."""
    assert bench.call("pci_enable_msi", edu.obj) == 0
    irq = edu.obj.irq
    counter = bench.listen(irq)
    for _ in range(2000):
        bench.write(edu, EDU_RAISE, 1)
    bench.read(edu, EDU_STATUS)
    seen, deadline = 0, time.monotonic() + LIMIT
    while load(counter, 4) != seen or not seen:
        seen = load(counter, 4)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    bench.write(edu, EDU_RAISE, 1)
    counts_to(counter, seen + 1)
    bench.unlisten(irq, counter)
