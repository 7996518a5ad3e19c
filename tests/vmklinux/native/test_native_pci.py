"""What a driver in Python takes of its device: registers, DMA, interrupts, time and work.

Independent of us: QEMU's edu device (docs/specs/edu.txt of QEMU), which computes, copies and interrupts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.interrupt import Handler
from vmklinux.errors import DriverStopped
from vmklinux.native.device import baton
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.irq import (
    PCI_IRQ_INTX,
    PCI_IRQ_MSI,
    PCI_IRQ_MSIX,
    pci_alloc_irq_vectors,
    pci_free_irq_vectors,
    pci_irq_vector,
    request_irq,
)
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
    for offset, size in ((registers.length - 2, 4), (-4, 4), (registers.length, 1)):
        with pytest.raises(UsageError, match="not in a BAR of 0x100000"):
            registers.read(offset, size)
        with pytest.raises(UsageError, match="not in a BAR"):
            registers.write(offset, size, 0)


def test_a_device_that_has_gone_reads_as_ones(pdev: PciDev, registers: Window) -> None:
    command = pci_read_config(pdev, 4, 2)
    pdev.gone = True
    assert registers.gone
    assert registers.read(IDENTIFICATION, 4) == 0xFFFF_FFFF
    assert pci_read_config(pdev, 0, 4) == 0xFFFF_FFFF
    pci_write_config(pdev, 4, 2, 0)  # another device may have its place
    pdev.gone = False
    assert pci_read_config(pdev, 4, 2) == command


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
    registers.write(RAISE, 4, 1)
    registers.read(STATUS_OF_INTERRUPTS, 4)
    assert not level(pdev), "it keeps a line asserted that others may have, too"
    with pytest.raises(DriverStopped), pdev.calling():
        pytest.fail("a driver that was stopped was called")


def level(pdev: PciDev) -> bool:
    """Whether its pin's line is asserted."""
    stats = ffi.new("struct vmk_irq_stats *")
    assert pdev.platform.bus.service()
    assert lib.vmk_irq_stats(pdev.function.line, stats) == 0
    return bool(stats.level)


def test_the_device_interrupts_by_message(pdev: PciDev, registers: Window) -> None:
    """edu has MSI, one vector: with it the pin stays quiet; without it the pin works again."""
    pci_set_master(pdev)
    for least, most, flags in ((2, 2, PCI_IRQ_MSI), (1, 4, PCI_IRQ_MSIX)):
        with pytest.raises(NotSupported, match=f"no {least} interrupt vectors"):
            pci_alloc_irq_vectors(pdev, least, most, flags)
    with pytest.raises(UsageError, match="2 to 1 vectors"):
        pci_alloc_irq_vectors(pdev, 2, 1)
    asked, told = list[int](), WaitQueue()

    def handler() -> bool:
        cause = registers.read(STATUS_OF_INTERRUPTS, 4)
        registers.write(ACKNOWLEDGE, 4, cause)
        if cause:  # the level of a pin may be seen once more
            asked.append(cause)
            told.wake_up()
        return True

    def arrives(cause: int) -> bool:
        return wait_event_timeout(told, lambda: asked[-1:] == [cause], LIMIT)

    with baton():
        assert pci_alloc_irq_vectors(pdev, 1, 8) == 1
        line = pci_irq_vector(pdev, 0)
        assert line != pdev.function.line
        with pytest.raises(UsageError, match="no interrupt vector 1"):
            pci_irq_vector(pdev, 1)
        with pytest.raises(UsageError, match="cannot be given"):
            pci_alloc_irq_vectors(pdev, 1, 1)
        irq = request_irq(pdev, handler, line)
        for cause in (1, 2, 4):
            registers.write(RAISE, 4, cause)
            assert arrives(cause)
            assert not level(pdev)
        pci_save_state(pdev)
        at = pci_find_capability(pdev, 5)
        pci_write_config(pdev, at + 2, 2, 0)
        pci_restore_state(pdev)
        registers.write(RAISE, 4, 8)
        assert arrives(8), "sleep has taken its messages"
        irq.now()
        pci_free_irq_vectors(pdev)
        pci_free_irq_vectors(pdev)
        assert pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_INTX) == 1
        assert pci_irq_vector(pdev, 0) == pdev.function.line
        request_irq(pdev, handler)
        registers.write(RAISE, 4, 16)
        assert wait_event_timeout(told, lambda: asked[-1:] == [16], LIMIT)


def test_vectors_go_back_by_themselves(pdev: PciDev, registers: Window) -> None:
    pci_set_master(pdev)
    at = pci_find_capability(pdev, 5)
    lines = set[int]()
    for _ in range(2):
        with baton():
            assert pci_alloc_irq_vectors(pdev, 1, 1) == 1
            lines.add(pci_irq_vector(pdev, 0))
            request_irq(pdev, lambda: True)
            assert pci_read_config(pdev, at + 2, 2) & 1
            pdev.devres.release_all()
            assert not pci_read_config(pdev, at + 2, 2) & 1
            assert pdev.vectors is None
    assert len(lines) == 1


def test_a_handler_may_take_out_the_next_one_of_its_line(pdev: PciDev, registers: Window) -> None:
    ran, told = list[str](), WaitQueue()

    def first() -> bool:
        ran.append("first")
        registers.write(ACKNOWLEDGE, 4, 1)
        second.remove()
        told.wake_up()
        return True

    def unserved(name: str) -> Callable[[], bool]:
        def note() -> bool:
            ran.append(name)
            return False

        return note

    with baton():
        request_irq(pdev, first)
        second = Handler(pdev.function.line, unserved("second"))
        third = Handler(pdev.function.line, unserved("third"))
        registers.write(RAISE, 4, 1)
        assert wait_event_timeout(told, lambda: "third" in ran, LIMIT)
        third.remove()
    assert ran[:2] == ["first", "third"]
    assert "second" not in ran


def test_memory_goes_back_when_the_device_reaches_it_no_more(pdev: PciDev) -> None:
    """Also that which was taken after DMA was allowed."""
    order = list[str]()
    pci_enable_device(pdev)
    pci_set_master(pdev)
    memory = dma_alloc_coherent(pdev, 4096)
    pdev.devres.add(lambda: order.append(f"master {pci_read_config(pdev, 4, 2) >> 2 & 1}"), late=True)
    pdev.devres.add(lambda: order.append(f"memory {len(memory.view)}"))
    with baton():
        pdev.devres.release_all()
    assert order == ["memory 4096", "master 0"]
    with pytest.raises(ValueError, match="released"):
        len(memory.view)


def test_what_sleeps_in_a_handler_is_told(
    pdev: PciDev, registers: Window, caplog: pytest.LogCaptureFixture
) -> None:
    ran, told = list[int](), WaitQueue()

    def handler() -> bool:
        registers.write(ACKNOWLEDGE, 4, 1)
        msleep(1)
        ran.append(1)
        told.wake_up()
        return True

    with baton():
        msleep(1)
        assert not caplog.records
        request_irq(pdev, handler)
        registers.write(RAISE, 4, 1)
        assert wait_event_timeout(told, lambda: bool(ran), LIMIT)
    assert "a driver sleeps where it must not" in caplog.text
    assert any("in handler" in (record.stack_info or "") for record in caplog.records)


def test_nothing_runs_after_the_driver_let_go(pdev: PciDev) -> None:
    """Whatever of it is still there and sets timers and queues work."""
    ran, begun = list[str](), WaitQueue()
    work, timer = Workqueue(pdev), Timer(pdev, lambda: ran.append("timer"))

    def again() -> None:
        begun.wake_up()
        ran.append("begun")
        msleep(50)
        assert not work.schedule_work(again)
        assert not mod_timer(timer, 0)
        ran.append("ended")

    with baton():
        work.schedule_work(again)
        assert wait_event_timeout(begun, lambda: bool(ran), LIMIT)
        pdev.devres.release_all()
        assert ran == ["begun", "ended"], "the item that ran was not waited for"
        assert not work.schedule_work(again)
        msleep(50)
    assert ran == ["begun", "ended"]


def test_a_work_item_that_does_not_end_is_cut_short(
    pdev: PciDev, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Workqueue.flush, "__defaults__", (0.05,))
    ran, begun = list[str](), WaitQueue()
    work = Workqueue(pdev)

    def slow() -> None:
        ran.append("begun")
        begun.wake_up()
        msleep(600_000)
        ran.append("ended")

    with baton():
        work.schedule_work(slow)
        assert wait_event_timeout(begun, lambda: bool(ran), LIMIT)
        pdev.devres.release_all()
    assert ran == ["begun", "ended"]
    assert "could not be given back" not in caplog.text


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
