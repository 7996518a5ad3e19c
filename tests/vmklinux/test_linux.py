"""The booted kernel image and the emulated API under it. Independent side: Debian's own kernel image, whose code
runs here unchanged and whose results are compared with Python's; callbacks are a few bytes of machine code."""

from __future__ import annotations

import threading
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.vmkernel_core.hardware import LIMIT, until
from tests.vmklinux.conftest import CODE, call_with_seven, code, objects
from vmkernel_core._core import ffi, lib
from vmkernel_core.memory import load, load_bytes, load_string, store, store_bytes
from vmklinux import kernels
from vmklinux.api import emulated
from vmklinux.errors import DriverStopped
from vmklinux.linux import PERCPU, Linux
from vmklinux.timer import Timers
from vmklinux.workqueue import Workqueues

if TYPE_CHECKING:
    from pathlib import Path


def test_the_image_formats_as_python_does(linux: Linux, scratch: int) -> None:
    store_bytes(scratch + 256, b"%d %#x %pM %s\0")
    store_bytes(scratch + 300, bytes.fromhex("525400123456"))
    store_bytes(scratch + 320, b"text\0")
    length = linux.call("snprintf", scratch, 128, scratch + 256, -7 & (1 << 64) - 1, 255, scratch + 300)
    assert load_string(scratch).startswith("-7 0xff 52:54:00:12:34:56 ")
    assert length >= len("-7 0xff 52:54:00:12:34:56 ")


@pytest.mark.parametrize("size", [0, 1, 7, 64, 255])
def test_the_image_sums_as_zlib_does(linux: Linux, scratch: int, size: int) -> None:
    data = bytes(range(256))[:size]
    store_bytes(scratch, data)
    assert linux.call("crc32_le", 0xFFFF_FFFF, scratch, size) ^ 0xFFFF_FFFF == zlib.crc32(data)


def test_a_tick_is_what_the_kernel_was_built_with(linux: Linux) -> None:
    before, began = linux.call("jiffies_to_msecs", lib.linux_jiffies()), time.monotonic()
    linux.call(linux.entry("msleep"), 50)
    passed = linux.call("jiffies_to_msecs", lib.linux_jiffies()) - before
    assert 40 <= passed <= (time.monotonic() - began) * 1000 + 20


def test_kmalloc_gives_owned_cleared_aligned_memory(linux: Linux) -> None:
    name = "__kmalloc" if "__kmalloc" in linux.symbols else "__kmalloc_noprof"
    for size in (1, 8, 100, 256, 4096, 8193, 100_000):
        address = linux.call(linux.entry(name), size, 0x100)
        assert load_bytes(address, size) == bytes(size)
        assert address % (size & -size if size & (size - 1) == 0 else 8) == 0
        assert linux.call(linux.entry("ksize"), address) >= size
        linux.call(linux.entry("kfree"), address)
        assert lib.vmk_alloc_size(address) == 0


def test_a_per_cpu_variable_is_reached_through_gs(linux: Linux) -> None:
    name = "__alloc_percpu" if "__alloc_percpu" in linux.symbols else "pcpu_alloc_noprof"
    place = linux.call(linux.entry(name), 24, 8)
    read = code(b"\x65\x48\x8b\x07")  # mov %gs:(%rdi),%rax
    assert linux.call(read, place) == 0
    store(PERCPU + place & (1 << 64) - 1, 8, 0x1234)
    assert linux.call(read, place) == 0x1234
    before = objects()
    linux.call(linux.entry("free_percpu"), place)
    assert objects() == before - 1


def test_a_double_free_stops_the_driver_by_name(linux: Linux, scratch: int) -> None:
    address = linux.allocate(64)
    linux.call(linux.entry("kfree"), address)
    with pytest.raises(DriverStopped, match="misused") as stopped:
        linux.call(linux.entry("kfree"), address)
    assert stopped.value.reason == "panic"
    assert linux.call("crc32_le", 0, scratch, 0) == 0, "the kernel is still usable"


def test_a_wild_access_stops_the_driver_with_its_address(linux: Linux) -> None:
    with pytest.raises(DriverStopped, match="0xdead0000") as stopped:
        linux.call(code(b"\x48\x8b\x07"), 0xDEAD_0000)  # mov (%rdi),%rax
    assert stopped.value.reason == "fault"


def test_bug_stops_and_warn_goes_on(linux: Linux, caplog: pytest.LogCaptureFixture) -> None:
    ud2 = b"\x0f\x0b"
    lib.vmk_bugs_add(ffi.new("struct vmk_bug[]", [(CODE, 1)]), 1)
    try:
        function = code(ud2, b"\xb8\x07\x00\x00\x00")  # WARN; mov $7,%eax
        assert linux.call(function) == 7
        until("the WARN was not reported", lambda: "WARNING at" in caplog.text)
        lib.vmk_bugs_remove(CODE, CODE + 1)
        lib.vmk_bugs_add(ffi.new("struct vmk_bug[]", [(CODE, 0)]), 1)
        with pytest.raises(DriverStopped) as stopped:
            linux.call(function)
        assert stopped.value.reason == "bug"
    finally:
        lib.vmk_bugs_remove(CODE, CODE + 1)


def test_an_exception_of_an_emulated_function_reaches_the_caller(linux: Linux) -> None:
    with pytest.raises(DriverStopped) as stopped:
        linux.call(linux.entry("pci_set_master"), 0x1234_5000)
    assert stopped.value.reason == "python"
    assert isinstance(stopped.value.__cause__, KeyError)


def test_interrupt_flag_of_the_image_is_ours(linux: Linux, scratch: int) -> None:
    saved = linux.call("_raw_spin_lock_irqsave", scratch)
    assert saved & 0x200
    linux.call("_raw_spin_unlock_irqrestore", scratch, saved)
    assert linux.call("_raw_spin_lock_irqsave", scratch) & 0x200
    linux.call("_raw_spin_unlock_irqrestore", scratch, 0x200)
    assert load(scratch, 4) == 0


def test_a_completion_sleeps_and_wakes(linux: Linux) -> None:
    done = linux.new("completion")
    hurry = threading.Timer(0.05, linux.call, ("complete", done))
    hurry.start()
    left = linux.call("wait_for_completion_timeout", done, linux.hz * 5)
    hurry.join()
    assert 0 < left <= linux.hz * 5
    assert linux.call("wait_for_completion_timeout", done, 2) == 0, "nobody completed it again"
    linux.free(done)


def test_the_images_wait_queue_sleeps_and_wakes(linux: Linux) -> None:
    head, entry = linux.new("wait_queue_head"), linux.new("wait_queue_entry")
    linux.call("__init_waitqueue_head", head, 0, 0)
    linux.call("init_wait_entry", entry, 0)
    with linux.baton():
        linux.call("prepare_to_wait", head, entry, 2)
        hurry = threading.Timer(0.05, linux.call, ("__wake_up", head, 3, 1, 0))
        hurry.start()
        left = linux.call(linux.entry("schedule_timeout"), linux.hz * 5)
        linux.call("finish_wait", head, entry)
    hurry.join()
    assert 0 < left < linux.hz * 5, "woken before the time was up"
    linux.free(head)
    linux.free(entry)


def test_a_semaphore_counts_and_times_out(linux: Linux) -> None:
    semaphore = linux.new("semaphore")
    semaphore.count = 1
    assert linux.call_int(linux.entry("down_trylock"), semaphore) == 0
    assert linux.call_int(linux.entry("down_timeout"), semaphore, 2) == -62
    hurry = threading.Timer(0.05, linux.call, (linux.entry("up"), semaphore))
    hurry.start()
    assert linux.call_int(linux.entry("down_timeout"), semaphore, linux.hz * 5) == 0
    hurry.join()
    linux.free(semaphore)


def test_a_contended_mutex_is_handed_over(linux: Linux) -> None:
    mutex = linux.new("mutex")
    order: list[str] = []
    linux.call(linux.entry("mutex_lock"), mutex)

    def second() -> None:
        linux.call(linux.entry("mutex_lock"), mutex)
        order.append("second")
        linux.call(linux.entry("mutex_unlock"), mutex)

    thread = threading.Thread(target=second)
    thread.start()
    linux.call(linux.entry("msleep"), 20)
    order.append("first")
    linux.call(linux.entry("mutex_unlock"), mutex)
    thread.join(LIMIT)
    assert order == ["first", "second"]
    linux.free(mutex)


def test_words_are_copied_one_by_one(linux: Linux, scratch: int) -> None:
    store_bytes(scratch, bytes(range(32)))
    linux.call(linux.entry("__iowrite32_copy"), scratch + 64, scratch, 3)
    assert load_bytes(scratch + 64, 16) == bytes(range(12)) + bytes(4)


def test_an_array_whose_size_overflows_is_refused(linux: Linux) -> None:
    allocate = linux.entry("vmalloc_array")
    assert linux.call(allocate, 1 << 40, 1 << 40) == 0
    array = linux.call(allocate, 100, 100)
    assert lib.vmk_alloc_size(array) >= 10_000
    linux.call(linux.entry("vfree"), array)


def test_a_timer_fires_once_and_not_before_its_time(linux: Linux) -> None:
    timer, began = linux.new("timer_list"), time.monotonic()
    flag = int(timer) + linux.types.sizeof("timer_list") - 8
    function = code(b"\x48\xff\x87", (flag - int(timer)).to_bytes(4, "little"))  # incq offset(%rdi)
    before = load(flag, 8)
    linux.call(linux.entry("init_timer_key"), timer, function, 0, 0, 0)
    assert linux.call(linux.entry("mod_timer"), timer, lib.linux_jiffies() + linux.hz // 10) == 0
    assert linux.state(Timers).owned(CODE, CODE + 1) == [int(timer)]
    until("the timer did not fire", lambda: load(flag, 8) != before)
    assert time.monotonic() - began >= 0.09
    assert load(flag, 8) == before + 1
    assert linux.state(Timers).owned(CODE, CODE + 1) == []
    linux.free(timer)


def test_a_cancelled_timer_does_not_fire(linux: Linux) -> None:
    timer = linux.new("timer_list")
    linux.call(linux.entry("init_timer_key"), timer, code(b"\xcc"), 0, 0, 0)
    linux.call(linux.entry("mod_timer"), timer, lib.linux_jiffies() + linux.hz * 100)
    assert linux.call(linux.entry("del_timer_sync"), timer) == 1
    assert linux.call(linux.entry("del_timer_sync"), timer) == 0
    linux.free(timer)


@pytest.mark.parametrize("shutdown", ["timer_shutdown", "timer_shutdown_sync"])
def test_a_timer_that_was_shut_down_stays_so(linux: Linux, shutdown: str) -> None:
    if shutdown in linux.symbols:
        timer = linux.new("timer_list")
        linux.call(linux.entry("init_timer_key"), timer, code(b"\xcc"), 0, 0, 0)
        linux.call(linux.entry("mod_timer"), timer, lib.linux_jiffies() + linux.hz * 100)
        assert linux.call(linux.entry(shutdown), timer) == 1
        assert linux.call(linux.entry("mod_timer"), timer, lib.linux_jiffies()) == 0
        assert not timer.entry.pprev, "it is not pending"
        assert linux.call(linux.entry(shutdown), timer) == 0
        linux.free(timer)


def test_work_runs_in_another_world_and_only_once_while_queued(linux: Linux) -> None:
    work, counter = linux.new("work_struct"), linux.allocate(8)
    work.func = code(b"\x48\xb8", counter.to_bytes(8, "little"), b"\x48\xff\x00")  # movabs; incq (%rax)
    with linux.baton():
        assert linux.call(linux.entry("queue_work_on"), 0, 0, work) == 1
        assert linux.call(linux.entry("queue_work_on"), 0, 0, work) == 0
        assert load(counter, 8) == 0
    linux.call(linux.entry("flush_work"), work)
    assert load(counter, 8) == 1
    linux.free(work)
    linux.free(counter)


def test_delayed_work_can_be_withdrawn(linux: Linux) -> None:
    delayed = linux.new("delayed_work")
    delayed.work.func = code(b"\xcc")
    assert linux.call(linux.entry("queue_delayed_work_on"), 0, 0, delayed, linux.hz * 100) == 1
    assert linux.state(Workqueues).owned(CODE, CODE + 1) == [int(delayed)]
    assert linux.call(linux.entry("cancel_delayed_work_sync"), delayed) == 1
    assert linux.state(Workqueues).owned(CODE, CODE + 1) == []
    linux.free(delayed)


def test_firmware_is_found_copied_and_freed(
    linux: Linux, scratch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "chip.bin").write_bytes(b"microcode")
    monkeypatch.setenv("VMK_FIRMWARE", str(tmp_path))
    store_bytes(scratch + 64, b"vendor/chip.bin\0")
    before = objects()
    assert linux.call_int(linux.entry("request_firmware"), scratch, scratch + 64, 0) == 0
    firmware = load(scratch, 8)
    assert load(firmware, 8) == len(b"microcode")
    linux.call(linux.entry("release_firmware"), firmware)
    assert objects() == before
    store_bytes(scratch + 64, b"../../etc/passwd\0")
    assert linux.call_int(linux.entry("request_firmware"), scratch, scratch + 64, 0) == -2


@pytest.mark.parametrize("content", [b"microcode", None])
def test_firmware_may_come_later(
    linux: Linux, scratch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Its module and device are kept until the driver was told, with a null where there is no such file."""
    if content:
        (tmp_path / "chip.bin").write_bytes(content)
    monkeypatch.setenv("VMK_FIRMWARE", str(tmp_path))
    store_bytes(scratch, b"chip.bin\0")
    store_bytes(scratch + 64, bytes(16))
    module, device = linux.new("module"), linux.new("device")
    linux.call(linux.entry("device_initialize"), device)
    before = objects()
    # mov %rdi,(%rsi); movl $1,8(%rsi)
    told = code(b"\x48\x89\x3e\xc7\x46\x08\x01\x00\x00\x00")
    ask = linux.entry("request_firmware_nowait")
    with linux.baton():
        assert (
            call_with_seven(linux, ask, module, 1, scratch, device, 0, scratch + 64, told) & 0xFFFF_FFFF == 0
        )
        assert (module.refcnt.counter, device.kobj.kref.refcount.refs.counter) == (1, 2)
        assert load(scratch + 72, 4) == 0, "not at once"
    until("the driver is told", lambda: load(scratch + 72, 4))
    until("the module may go", lambda: module.refcnt.counter == 0)
    assert device.kobj.kref.refcount.refs.counter == 1
    firmware = load(scratch + 64, 8)
    assert bool(firmware) == (content is not None)
    if content:
        assert load_bytes(load(firmware + 8, 8), load(firmware, 8)) == content
        linux.call(linux.entry("release_firmware"), firmware)
    assert objects() == before
    for ours in (module, device):
        linux.free(ours)


def test_a_bad_address_from_a_caller_stops_the_driver_not_the_process(linux: Linux, scratch: int) -> None:
    store_bytes(scratch, b"settings")
    assert linux.call(linux.entry("_copy_from_user"), scratch + 64, scratch, 8) == 0
    assert load(scratch + 64, 8) == load(scratch, 8)
    with pytest.raises(DriverStopped):
        linux.call(linux.entry("_copy_to_user"), 0xDEAD_0000, scratch, 8)


def test_messages_reach_logging_with_their_level(
    linux: Linux, scratch: int, caplog: pytest.LogCaptureFixture
) -> None:
    store_bytes(scratch, b"\x013number %d of %s\n\0")
    store_bytes(scratch + 64, b"many\0")
    linux.call(linux.entry("_printk"), scratch, 5, scratch + 64)
    record = caplog.records[-1]
    assert (record.name, record.levelname, record.getMessage()) == ("linux", "ERROR", "number 5 of many")


def test_a_second_kernel_in_the_process_is_refused(linux: Linux) -> None:
    from vmkernel_core.errors import VmkError

    with pytest.raises(VmkError, match="only one Linux kernel"):
        Linux(linux.kernel, linux.memory, linux.idle, kernels.image_dir())
    assert linux.call("crc32_le", 0, 0, 0) == 0


def test_every_emulated_function_in_python_has_a_prototype_where_the_kernel_exports_it(linux: Linux) -> None:
    served = [entry for entry in emulated().values() if entry.handler and entry.name in linux.symbols]
    assert len(served) > 50
    for entry in served:
        linux._prototype(entry)


def test_memory_that_was_stored_is_loaded(linux: Linux, scratch: int) -> None:
    for size in (1, 2, 4, 8):
        store(scratch, size, 0x0123_4567_89AB_CDEF)
        assert load(scratch, size) == 0x0123_4567_89AB_CDEF & ((1 << size * 8) - 1)
