"""What a driver in Python takes of its device: registers, DMA, interrupts, time and work.

Independent of us: QEMU's edu device (docs/specs/edu.txt of QEMU), which computes, copies and interrupts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from vmkernel_core.errors import UsageError
from vmklinux.errors import DriverStopped
from vmklinux.native.device import baton
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.irq import request_irq
from vmklinux.native.pci import (
    PciDev,
    Window,
    pci_enable_device,
    pci_find_capability,
    pci_iomap,
    pci_read_config,
    pci_restore_state,
    pci_save_state,
    pci_set_master,
    pci_write_config,
)
from vmklinux.native.timer import Timer, mod_timer, msleep, timer_delete
from vmklinux.native.wait import WaitQueue, wait_event_timeout
from vmklinux.native.workqueue import Workqueue

IDENTIFICATION, LIVENESS, FACTORIAL, STATUS, RAISE, ACKNOWLEDGE = 0x00, 0x04, 0x08, 0x20, 0x60, 0x64
STATUS_OF_INTERRUPTS, DMA_SOURCE, DMA_TARGET, DMA_COUNT, DMA_COMMAND = 0x24, 0x80, 0x88, 0x90, 0x98
DMA_START, DMA_TO_MEMORY, DMA_INTERRUPT = 1, 2, 4
DEVICE_BUFFER, LENGTH = 0x40000, 2048  # of its 4096 bytes QEMU takes one less
LIMIT = 10.0


@pytest.fixture
def pdev(plug: Callable[[str, tuple[int, int]], PciDev]) -> PciDev:
    return plug("edu,dma_mask=0xffffffff", (0x1234, 0x11E8))


@pytest.fixture
def registers(pdev: PciDev) -> Window:
    pci_enable_device(pdev)
    return pci_iomap(pdev, 0)


def test_registers_are_read_and_written(pdev: PciDev, registers: Window) -> None:
    assert registers.read(IDENTIFICATION, 4) & 0xFF == 0xED
    registers.write(LIVENESS, 4, 0x1234_5678)
    assert registers.read(LIVENESS, 4) == ~0x1234_5678 & 0xFFFF_FFFF
    with pytest.raises(UsageError, match="no BAR 3"):
        pci_iomap(pdev, 3)


def test_a_device_that_has_gone_reads_as_ones(pdev: PciDev, registers: Window) -> None:
    pdev.gone = True
    assert registers.gone
    assert registers.read(IDENTIFICATION, 4) == 0xFFFF_FFFF


def test_what_was_enabled_is_disabled_again(pdev: PciDev) -> None:
    before = pci_read_config(pdev, 4, 2)
    pci_enable_device(pdev)
    pci_set_master(pdev)
    assert pci_read_config(pdev, 4, 2) == before | 0x6
    with baton():
        pdev.devres.release_all()
    assert pci_read_config(pdev, 4, 2) == before & ~0x6


def test_configuration_space_is_saved_and_restored(pdev: PciDev) -> None:
    pci_enable_device(pdev)
    pci_save_state(pdev)
    bar = pci_read_config(pdev, 0x10, 4)
    pci_write_config(pdev, 0x10, 4, 0)
    pci_write_config(pdev, 4, 2, 0)
    pci_restore_state(pdev)
    assert pci_read_config(pdev, 0x10, 4) == bar
    assert pci_read_config(pdev, 4, 2) & 2
    assert pci_find_capability(pdev, 0x05)  # MSI, which edu has
    assert pci_find_capability(pdev, 0x10) == 0


def test_the_device_reaches_memory_and_interrupts(pdev: PciDev, registers: Window) -> None:
    """A copy to the device and back; the waiting world is woken by the interrupt."""
    pci_set_master(pdev)
    source, target = dma_alloc_coherent(pdev, LENGTH), dma_alloc_coherent(pdev, LENGTH)
    assert bytes(target.view) == bytes(LENGTH)
    source.view[:] = bytes(range(256)) * (LENGTH // 256)
    finished, causes = WaitQueue(), list[int]()

    def handler() -> bool:
        cause = registers.read(STATUS_OF_INTERRUPTS, 4)
        if cause:
            registers.write(ACKNOWLEDGE, 4, cause)
            causes.append(cause)
            finished.wake_up()
        return bool(cause)

    irq = request_irq(pdev, handler)
    with baton():
        for number, (start, end, way) in enumerate(
            [(source.dma, DEVICE_BUFFER, 0), (DEVICE_BUFFER, target.dma, DMA_TO_MEMORY)], 1
        ):
            registers.write(DMA_SOURCE, 4, start)
            registers.write(DMA_TARGET, 4, end)
            registers.write(DMA_COUNT, 4, LENGTH)
            registers.write(DMA_COMMAND, 4, DMA_START | way | DMA_INTERRUPT)
            assert wait_event_timeout(finished, lambda: len(causes) == number, LIMIT)  # noqa: B023  # called here only
    assert causes == [0x100, 0x100]
    assert bytes(target.view) == bytes(source.view)
    with baton():
        irq.now()
        registers.write(RAISE, 4, 1)
        assert not wait_event_timeout(finished, lambda: len(causes) > 2, 0.1)
        registers.write(ACKNOWLEDGE, 4, 1)


def test_a_handler_that_fails_stops_its_driver_only(pdev: PciDev, registers: Window) -> None:
    pci_set_master(pdev)
    told, seen = WaitQueue(), list[DriverStopped]()

    def stopped(error: DriverStopped) -> None:
        seen.append(error)
        told.wake_up()

    def handler() -> bool:
        registers.write(ACKNOWLEDGE, 4, 1)
        raise ZeroDivisionError("a mistake")

    pdev.on_stopped = stopped
    request_irq(pdev, handler)
    with baton():
        registers.write(RAISE, 4, 1)
        assert wait_event_timeout(told, lambda: bool(seen), LIMIT)
    assert "ZeroDivisionError: a mistake" in str(seen[0])
    assert "test_native_pci.py" in seen[0].site
    assert pci_read_config(pdev, 4, 2) & 4 == 0, "it may still use DMA"
    with pytest.raises(DriverStopped), pdev.calling():
        pytest.fail("a driver that was stopped was called")


def test_timers_and_work(pdev: PciDev) -> None:
    """A timer calls once, one that was deleted does not; work runs in another thread, in order, and may sleep."""
    ran, done = list[str](), WaitQueue()
    kept, dropped = Timer(pdev, lambda: work.schedule_work(slow)), Timer(pdev, lambda: ran.append("dropped"))
    work = Workqueue(pdev)

    def slow() -> None:
        msleep(20)
        ran.append(threading.current_thread().name)
        done.wake_up()

    with baton():
        assert not mod_timer(dropped, 0.001)
        assert timer_delete(dropped)
        assert not mod_timer(kept, 5)
        assert mod_timer(kept, 0.001)
        assert wait_event_timeout(done, lambda: bool(ran), LIMIT)
        assert not timer_delete(kept)
        assert work.schedule_work(slow)
        assert not work.schedule_work(slow)
        assert wait_event_timeout(done, lambda: len(ran) == 2, LIMIT)
        assert work.schedule_work(slow)
        work.cancel_work_sync(slow)
    assert ran == [f"vmk-work {pdev.name}"] * 2


def test_what_was_taken_goes_back_in_reverse_order(pdev: PciDev, caplog: pytest.LogCaptureFixture) -> None:
    order: list[int] = []

    def fails() -> None:
        order.append(2)
        raise OSError("cannot")

    pdev.devres.add(lambda: order.append(1))
    pdev.devres.add(fails)
    early = pdev.devres.add(lambda: order.append(3))
    pdev.devres.add(lambda: order.append(4))
    early.now()
    early.now()
    pdev.devres.release_all()
    assert order == [3, 4, 2, 1]
    assert "could not be given back" in caplog.text
