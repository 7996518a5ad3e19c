"""The SCSI mid-layer of drivers in Python: what becomes of commands, whatever their driver does with them.

Independent of us: the order of error handling and what is retried, which are Linux's (Documentation/scsi/scsi_eh.rst),
and SPC-4, by which the scripted disks answer. The driver is a script; there is no hardware and no kernel image.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.native.scripted_disks import BLOCKS, Rig, ScriptedDisks, rig, sense
from vmkernel_core.errors import NotSupported, TimedOut, UsageError
from vmkernel_core.storage.command import Command, Direction, HostStatus, Status
from vmkernel_core.storage.device import Request, StorageDevice
from vmkernel_core.storage.errors import CommandTimedOut, MediumError, PathLost
from vmkernel_core.storage.sg_array import SgArray
from vmklinux.errors import DriverRefused, DriverStopped
from vmklinux.native import scsi_error, scsi_host, scsi_lib
from vmklinux.native.device import baton
from vmklinux.native.scsi_cmnd import ScsiCmnd
from vmklinux.native.scsi_host import (
    scsi_block_requests,
    scsi_done,
    scsi_quiesce,
    scsi_remove_host,
    scsi_unblock_requests,
)
from vmklinux.native.scsi_scan import scsi_add_device, scsi_remove_device, scsi_rescan_device
from vmklinux.native.wait import WaitQueue, wait_event_timeout

LIMIT = 60.0
READ_10 = 0x28
#: Error handling, the mildest first.
LADDER = ("abort", "device_reset", "target_reset", "bus_reset", "host_reset")


@pytest.fixture
def one() -> Iterator[Rig]:
    """A host with one disk."""
    with rig({0: [0]}) as made:
        yield made


@pytest.fixture
def two() -> Iterator[Rig]:
    """A host with two disks."""
    with rig({0: [0], 1: [0]}) as made:
        yield made


def disks(made: Rig) -> list[StorageDevice]:
    """Its disks."""
    return list(made.inventory.devices.values())


def read_one(disk: StorageDevice, *, timeout: float = 30.0, retries: int = 0) -> Request:
    """Begin to read the first block."""
    cdb = bytes([READ_10, *bytes(6), 0, 1, 0])
    return disk.submit(cdb, Direction.FROM_DEVICE, 512, timeout=timeout, retries=retries)


def once(driver: ScriptedDisks, how: Callable[[ScsiCmnd], None], times: int = 1) -> None:
    """Have that done to the next reads instead of reading, so often."""
    left = [times]

    def script(cmnd: ScsiCmnd) -> Callable[[ScsiCmnd], None] | None:
        if cmnd.cdb[0] != READ_10 or not left[0]:
            return None
        left[0] -= 1
        return how

    driver.script = script


def always(driver: ScriptedDisks, how: Callable[[ScsiCmnd], None], *opcodes: int, target: int = 0) -> None:
    """Have that done to every command of those kinds for a target."""
    driver.script = lambda c: how if c.cdb[0] in opcodes and c.device.id == target else None


def test_disks_are_found_by_report_luns_and_named_by_themselves() -> None:
    with rig({0: [0, 3], 2: [0]}) as made:
        assert [d.path for d in disks(made)] == ["vmhba0:C0:T0:L0", "vmhba0:C0:T0:L3", "vmhba0:C0:T2:L0"]
        assert [d.name for d in disks(made)] == [
            "naa.5000000000000000", "naa.5000000000000003", "naa.5000000000000200",
        ]  # fmt: skip
        assert {d.blocks for d in disks(made)} == {BLOCKS}
        made.driver.units[1] = [0]
        del made.driver.units[2]
        made.inventory.adapters["vmhba0"].rescan()
        assert [d.path[7:] for d in disks(made)] == ["C0:T0:L0", "C0:T0:L3", "C0:T1:L0"]
        told = [(event.name, event.kind) for event in made.events]
        assert ("naa.5000000000000200", "removed") in told
        assert ("naa.5000000000000100", "appeared") in told


def test_a_unit_is_added_and_asked_again_by_its_driver(one: Rig) -> None:
    one.driver.units[3] = [0, 7]
    with baton():
        assert scsi_add_device(one.host, 0, 2, 0) is None
        added = scsi_add_device(one.host, 0, 3, 7)
        assert added is not None
        assert added.address() == (0, 3, 7)
        scsi_rescan_device(added)
    assert [(e.name, e.kind) for e in one.events if e.name == "naa.5000000000000307"] == [
        ("naa.5000000000000307", "appeared"), ("naa.5000000000000307", "changed"),
    ]  # fmt: skip


def test_blocks_come_back(one: Rig) -> None:
    [disk] = disks(one)
    disk.write(3, b"\x5a" * 1024)
    assert disk.read(2, 4) == bytes(512) + b"\x5a" * 1024 + bytes(512)
    disk.flush()
    assert one.driver.content[0, 0][1536:2560] == b"\x5a" * 1024
    stats = disk.stats()
    assert (stats.bytes_written, stats.errors, stats.in_flight) == (1024, 0, 0)


def test_data_in_pieces(one: Rig) -> None:
    [disk] = disks(one)
    buffer = disk.buffer(8192)
    at = buffer.machine_address
    pieces = SgArray(one.host.memory, [(at + 4096, 512), (at, 1024), (at + 1024, 512)])
    buffer.view[:] = bytes(n * 7 % 256 for n in range(8192))
    disk.write(0, pieces)
    raw = bytes(buffer.view)
    assert disk.read(0, 4) == raw[4096:4608] + raw[:1536]
    with pytest.raises(UsageError):  # more pieces than the host takes in one command
        disk.submit(
            bytes([READ_10, *bytes(6), 0, 200, 0]), Direction.FROM_DEVICE,
            SgArray(one.host.memory, [(at + n % 2 * 4096, 512) for n in range(200)]),
        )  # fmt: skip


def test_no_more_commands_than_device_and_host_take() -> None:
    with rig({0: [0], 1: [0]}, can_queue=6, depth=4) as made:
        first, second = disks(made)
        made.driver.script = lambda c: made.driver.lose if c.cdb[0] == READ_10 else None
        requests = [read_one(disk) for _ in range(5) for disk in (first, second)]
        assert len(made.driver.held) == 6
        assert sorted(c.tag for c in made.driver.held) == list(range(6))
        assert max(first.stats().in_flight, second.stats().in_flight) <= 4
        first.queue_depth = 1000
        assert first.queue_depth == 6
        made.driver.script = lambda _c: None
        with baton():
            scsi_done(list(made.driver.held))
        made.driver.held.clear()
        assert all(request.wait(LIMIT).good for request in requests)
        assert first.stats().in_flight_most <= 4


def test_more_commands_than_are_kept_wait_in_their_program(one: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scsi_lib, "QUEUE_MOST", 8)
    [disk] = disks(one)
    one.driver.room = 3
    requests = disk.start([c for n in range(BLOCKS) for c in disk.read_commands(n, 1, disk.buffer(512))])
    assert all(request.wait(LIMIT).good for request in requests)


def test_a_device_that_wants_all_tags_leaves_some_to_the_others() -> None:
    """The first device has as many commands as the host takes at once, and more whenever one of them ends."""
    with rig({0: [0], 1: [0]}, can_queue=4, depth=4) as made:
        greedy, other = disks(made)
        made.driver.script = lambda c: made.driver.lose if c.cdb[0] == READ_10 else None
        many = [read_one(greedy) for _ in range(64)]
        few = [read_one(other) for _ in range(4)]
        for _ in range(16):
            with baton():
                scsi_done([made.driver.held.pop(0)])
        assert all(request.wait(LIMIT).good for request in few)
        made.driver.script = lambda _c: None
        with baton():
            scsi_done([made.driver.held.pop(0) for _ in range(len(made.driver.held))])
        assert all(request.wait(LIMIT).good for request in many)


def test_commands_go_to_the_driver_in_batches(one: Rig) -> None:
    [disk] = disks(one)
    one.driver.batches.clear()
    for request in disk.start([c for n in range(16) for c in disk.read_commands(n, 1, disk.buffer(512))]):
        request.result(LIMIT)
    assert one.driver.batches == [16]


def test_a_driver_that_is_busy_gets_its_commands_again_in_their_order(one: Rig) -> None:
    [disk] = disks(one)
    one.driver.room = 1
    one.driver.seen.clear()
    buffer = disk.buffer(8 * 512)
    requests = disk.start([c for n in range(8) for c in disk.read_commands(n, 1, buffer, n * 512)])
    assert all(request.wait(LIMIT).good for request in requests)
    assert [int.from_bytes(cdb[2:6], "big") for _, cdb in one.driver.seen] == list(range(8))
    assert disk.stats().busy > 0


@pytest.mark.parametrize(
    "answer",
    [
        {"status": Status.BUSY},
        {"status": Status.TASK_SET_FULL},
        {"status": Status.TASK_ABORTED},
        {"status": Status.CHECK_CONDITION, "told": sense(6, 0x29)},  # unit attention: a reset
        {"status": Status.CHECK_CONDITION, "told": sense(0xB, 0)},  # aborted command
        {"status": Status.CHECK_CONDITION, "told": sense(2, 4, 1)},  # it becomes ready
        {"host": HostStatus.RESET},
        {"host": HostStatus.BUS_BUSY},
        {"host": HostStatus.REQUEUE},
        {"host": HostStatus.ERROR},
    ],
)
def test_what_passes_is_tried_again(one: Rig, answer: dict[str, int]) -> None:
    [disk] = disks(one)
    disk.write(0, b"\x33" * 512)
    once(one.driver, lambda c: one.driver.give_back(c, **answer), times=2)  # type: ignore[arg-type]  # mixed values
    assert disk.read(0, 1) == b"\x33" * 512
    stats = disk.stats()
    assert stats.errors == 0
    assert stats.queue_full == (2 if answer.get("status") == Status.TASK_SET_FULL else 0)


def test_what_does_not_pass_is_told(one: Rig) -> None:
    [disk] = disks(one)
    bad = sense(3, 0x11)
    always(one.driver, lambda c: one.driver.give_back(c, status=Status.CHECK_CONDITION, told=bad), READ_10)
    one.driver.seen.clear()
    with pytest.raises(MediumError):
        disk.read(0, 1)
    assert len(one.driver.seen) == 1  # an unrecovered read is not tried again
    always(one.driver, lambda c: one.driver.give_back(c, host=HostStatus.ERROR), READ_10)
    assert read_one(disk, retries=3).wait(LIMIT).host == HostStatus.ERROR
    assert len(one.driver.seen) == 1 + 4


def test_blocks_that_are_missing_are_asked_for_again(one: Rig) -> None:
    """A driver may call it good that less came than was asked for: INQUIRY is content with that, a disk is not."""
    [disk] = disks(one)
    disk.write(0, b"\x44" * 512)

    def short(cmnd: ScsiCmnd) -> None:
        cmnd.residual = 100
        scsi_done([cmnd])

    once(one.driver, short)
    assert disk.read(0, 1) == b"\x44" * 512
    assert disk.stats().retries == 1
    always(one.driver, short, READ_10)
    end = read_one(disk, retries=2).wait(LIMIT)
    assert (end.host, end.residual, end.retries) == (HostStatus.SOFT_ERROR, 100, 2)
    inquiry = disk.submit(bytes([0x12, 0, 0, 0, 96, 0]), Direction.FROM_DEVICE, 96).result(LIMIT)
    assert inquiry.residual == 60


def test_sense_data_that_the_driver_did_not_bring_is_fetched(one: Rig) -> None:
    [disk] = disks(one)

    def tell(cmnd: ScsiCmnd) -> None:
        one.driver.move(cmnd, sense(3, 0x11))
        scsi_done([cmnd])

    def script(cmnd: ScsiCmnd) -> Callable[[ScsiCmnd], None] | None:
        if cmnd.cdb[0] == 0x03:  # REQUEST SENSE
            return tell
        if cmnd.cdb[0] == READ_10:
            return lambda c: one.driver.give_back(c, status=Status.CHECK_CONDITION)
        return None

    one.driver.script = script
    with pytest.raises(MediumError):
        disk.read(0, 1)
    assert one.driver.called == []


def test_a_disk_that_waits_to_be_started_is_started(one: Rig) -> None:
    [disk], [device] = disks(one), one.host.devices
    device.allow_restart = True
    started = False

    def script(cmnd: ScsiCmnd) -> Callable[[ScsiCmnd], None] | None:
        nonlocal started
        if cmnd.cdb[0] == 0x1B:  # START STOP UNIT
            started = True
            return one.driver.give_back
        waits = sense(2, 4, 2)
        return (
            None if started else lambda c: one.driver.give_back(c, status=Status.CHECK_CONDITION, told=waits)
        )

    one.driver.script = script
    assert read_one(disk, retries=3).result(LIMIT).good
    assert started
    assert one.driver.called == []


def test_hardware_errors_are_tried_again_where_that_is_wanted(one: Rig) -> None:
    [disk], [device] = disks(one), one.host.devices
    broken = sense(4, 0x44)

    def fails(cmnd: ScsiCmnd) -> None:
        one.driver.give_back(cmnd, status=Status.CHECK_CONDITION, told=broken)

    once(one.driver, fails)
    assert not read_one(disk).wait(LIMIT).good
    device.retry_hwerror = True
    once(one.driver, fails, times=3)
    assert read_one(disk).wait(LIMIT).good


def test_each_step_is_taken_when_the_one_before_failed(one: Rig) -> None:
    [disk] = disks(one)
    for step, name in enumerate(LADDER):
        once(one.driver, one.driver.lose)
        one.driver.called.clear()
        one.driver.says = {name: True}
        with pytest.raises(CommandTimedOut):
            read_one(disk, timeout=0.1).result(LIMIT)
        assert one.driver.called == list(LADDER[: step + 1])
        assert (disk.state, disk.in_flight) == ("active", 0)
    assert disk.stats().timeouts == len(LADDER)


def test_aborts_are_given_up_after_one_that_failed(one: Rig) -> None:
    [disk] = disks(one)
    always(one.driver, one.driver.lose, READ_10)
    one.driver.says = {"device_reset": True}
    read = Command(
        bytes([READ_10, *bytes(6), 0, 1, 0]),
        Direction.FROM_DEVICE,
        disk.buffer(512),
        0,
        512,
        timeout=0.1,
        retries=0,
    )
    requests = disk.start([read] * 8)  # their time is up at the same moment
    assert {request.wait(LIMIT).host for request in requests} == {HostStatus.TIME_OUT}
    assert one.driver.called == ["abort", "device_reset"]
    assert disk.stats().timeouts == 8


def test_what_was_rescued_is_sent_again(one: Rig) -> None:
    [disk] = disks(one)
    disk.write(0, b"\x77" * 512)
    for name in LADDER:
        once(one.driver, one.driver.lose)
        one.driver.says = {name: True}
        request = read_one(disk, timeout=0.1, retries=100)
        assert request.result(LIMIT).retries == 1
        assert request.buffer is not None
        assert bytes(request.buffer.view) == b"\x77" * 512


def test_a_device_that_nothing_helps_goes_offline_and_can_be_brought_back(two: Rig) -> None:
    disk, other = disks(two)
    always(two.driver, two.driver.lose, READ_10)
    first, waits = read_one(disk, timeout=0.1), other.submit(bytes(6))
    assert first.wait(LIMIT).host == HostStatus.TIME_OUT
    assert two.driver.called == list(LADDER)
    assert waits.result(LIMIT).good
    assert (disk.state, other.state, disk.adapter.state) == ("dead", "active", "online")
    with pytest.raises(PathLost):
        disk.write(0, bytes(512))
    other.write(6, b"\xa5" * 512)
    two.driver.script = lambda _c: None
    disk.set_online(True)
    assert disk.read(0, 1) == bytes(512)
    assert [e.kind for e in two.events if e.name == disk.name] == ["appeared", "dead", "active"]


def test_a_device_that_never_answers_is_given_up(two: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resets succeed, but TEST UNIT READY after each is lost, too; the driver is made to forget that, each time."""
    monkeypatch.setattr(scsi_error, "EH_TIMEOUT", 0.1)
    disk, other = disks(two)
    always(two.driver, two.driver.lose, READ_10, 0x00)
    two.driver.says = dict.fromkeys(LADDER[1:], True)
    assert read_one(disk, timeout=0.1).wait(LIMIT).host == HostStatus.TIME_OUT
    lost = ["abort", "device_reset"]
    assert two.driver.called == [*lost, *(name for step in LADDER[2:] for name in (*lost, step)), *lost]
    assert (disk.state, other.state) == ("dead", "active")
    assert other.read(0, 1) == bytes(512)


def test_a_driver_that_is_busy_has_not_answered(one: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reset succeeds, but then the driver takes no TEST UNIT READY."""
    monkeypatch.setattr(scsi_error, "EH_TIMEOUT", 0.1)
    [disk] = disks(one)

    def lose(cmnd: ScsiCmnd) -> None:
        one.driver.lose(cmnd)
        one.driver.room = 0

    always(one.driver, lose, READ_10)
    one.driver.says = dict.fromkeys(LADDER[1:], True)
    assert read_one(disk, timeout=0.1).wait(LIMIT).host == HostStatus.TIME_OUT
    assert one.driver.called == list(LADDER)
    assert (disk.state, sorted(one.host.tags)) == ("dead", list(range(16)))


def test_a_tag_is_not_used_again_before_the_driver_lets_go_of_it(two: Rig) -> None:
    """Nothing helped, so the hardware may still have the command."""
    disk, other = disks(two)
    always(two.driver, two.driver.lose, READ_10)
    assert read_one(disk, timeout=0.1).wait(LIMIT).host == HostStatus.TIME_OUT
    [lost] = two.driver.held
    assert two.host.in_flight == {lost.tag: lost}
    assert lost.tag not in two.host.tags
    assert (disk.in_flight, other.read(0, 1)) == (0, bytes(512))
    with baton():
        scsi_done([two.driver.held.pop()])
    assert lost.tag in two.host.tags


def test_a_host_whose_tags_are_all_lost_is_reset() -> None:
    with rig({0: [0]}, can_queue=1) as made:
        [disk] = disks(made)
        once(made.driver, made.driver.lose)
        assert read_one(disk, timeout=0.1).wait(LIMIT).host == HostStatus.TIME_OUT
        assert made.host.tags == []
        disk.set_online(True)
        assert read_one(disk).wait(LIMIT).host == HostStatus.NO_CONNECT  # it cannot be reset
        made.driver.says = {"host_reset": True}
        assert disk.read(0, 1) == bytes(512)
        made.driver.held.clear()


def test_a_device_may_go_while_error_handling_has_its_command(
    two: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Error handling begins when nothing is in flight any more; it has nothing to do then."""
    monkeypatch.setattr(scsi_lib, "DRAIN", 0.1)
    disk, other = disks(two)
    first, second = two.host.devices
    two.driver.script = lambda c: two.driver.lose if c.cdb[0] == READ_10 else None
    failed, flies = read_one(disk, timeout=0.1), read_one(other)
    until("its time is up", lambda: two.host.recovers, LIMIT)
    with baton():
        scsi_remove_device(first)
    assert failed.wait(LIMIT).host == HostStatus.NO_CONNECT
    two.driver.script = lambda _c: None
    with baton():
        scsi_done([c for c in two.driver.held if c.device is second])
    assert flies.wait(LIMIT).good
    assert other.read(0, 1) == bytes(512)
    assert (two.host.failed, other.adapter.state) == ([], "online")


def test_a_late_answer_changes_nothing(one: Rig) -> None:
    [disk] = disks(one)
    once(one.driver, one.driver.lose)
    one.driver.says = {"host_reset": True}
    request = read_one(disk, timeout=0.1)
    assert request.wait(LIMIT).host == HostStatus.TIME_OUT
    [late], before = one.driver.held, disk.stats()
    with baton():
        scsi_done([late])
    assert (disk.in_flight, disk.stats()) == (0, before)
    assert [disk.read(n, 1) for n in range(BLOCKS)] == [bytes(512)] * BLOCKS


def test_a_reset_on_demand_sends_what_is_in_flight_again(one: Rig) -> None:
    [disk] = disks(one)
    adapter = disk.adapter
    once(one.driver, one.driver.lose)
    request = read_one(disk, retries=5)
    one.driver.says = {"host_reset": True}
    adapter.reset()
    assert request.result(LIMIT).retries == 1
    one.driver.says = {}
    with pytest.raises(DriverRefused):
        adapter.reset()
    one.driver.eh_host_reset = super(ScriptedDisks, one.driver).eh_host_reset  # type: ignore[method-assign]  # as if it had none
    with pytest.raises(NotSupported):
        adapter.reset()
    assert adapter.state == "online"


def test_all_commands_end_at_once_when_the_hardware_goes(two: Rig) -> None:
    disk, other = disks(two)
    always(two.driver, two.driver.lose, READ_10)
    requests = [read_one(disk) for _ in range(40)]
    done = threading.Thread(target=lambda: [request.wait(LIMIT) for request in requests])
    done.start()
    two.host.parent.gone = True
    two.disks.gone(two.host.parent)
    done.join(LIMIT)
    assert {request.wait(0).host for request in requests} == {HostStatus.NO_CONNECT}
    assert (disk.state, other.adapter.state) == ("dead", "dead")
    with baton():
        scsi_done(list(two.driver.held))  # the driver lets go of them late
    assert two.host.in_flight == {}
    assert {e.kind for e in two.events if e.name in (disk.name, other.name)} == {"appeared", "dead"}


def test_a_driver_that_fails_is_stopped_and_its_commands_end(one: Rig) -> None:
    [disk] = disks(one)
    once(one.driver, one.driver.lose)
    lost = read_one(disk)

    def fail(_cmnd: ScsiCmnd) -> None:
        raise ZeroDivisionError

    once(one.driver, fail)
    failed = read_one(disk)
    assert lost.wait(LIMIT).host == failed.wait(LIMIT).host == HostStatus.NO_CONNECT
    assert isinstance(one.host.parent.stopped, DriverStopped)
    assert disk.error is one.host.parent.stopped
    with pytest.raises(DriverStopped):
        disk.read(0, 1)


def test_a_disk_goes_and_the_others_stay(two: Rig) -> None:
    disk, other = disks(two)
    [device] = (d for d in two.host.devices if d.id == 0)
    with baton():
        scsi_remove_device(device)
    assert disks(two) == [other]
    assert other.read(0, 1) == bytes(512)
    assert disk.state == "dead"


def test_a_command_that_its_device_did_not_wait_for_keeps_its_tag_until_a_reset(
    two: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scsi_lib, "DRAIN", 0.1)
    disk, other = disks(two)
    always(two.driver, two.driver.lose, READ_10)
    request = read_one(disk)
    with baton():
        scsi_remove_device(next(d for d in two.host.devices if d.id == 0))
    assert request.completion is None
    assert request.wait(LIMIT).host == HostStatus.NO_CONNECT
    assert len(two.host.tags) == two.host.can_queue - 1
    two.driver.says = {"host_reset": True}
    other.adapter.reset()
    assert len(two.host.tags) == two.host.can_queue
    with baton():
        scsi_done(list(two.driver.held))  # too late: it is nobody's any more
    assert sorted(two.host.tags) == list(range(two.host.can_queue))


def test_a_host_that_goes_ends_a_scan_that_waits(one: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scsi_host, "REMOVE_PATIENCE", 0.2)
    [disk] = disks(one)
    one.driver.units[1] = [0]
    always(one.driver, one.driver.lose, 0x12, target=1)
    scan = threading.Thread(target=one.scan)
    scan.start()
    with baton():
        for _ in range(1000):  # nobody wakes it: it looks again and again
            if wait_event_timeout(WaitQueue(), lambda: bool(one.driver.held), 0.05):
                break
        assert one.driver.held
        scsi_remove_host(one.host)
    scan.join(LIMIT)
    assert not scan.is_alive()
    assert disk.state == "dead"


def test_a_driver_holds_its_commands_back(one: Rig) -> None:
    [disk] = disks(one)
    with baton():
        scsi_block_requests(one.host)
    request = disk.submit(bytes(6))
    with pytest.raises(TimedOut):
        request.wait(0.2)
    with baton():
        scsi_unblock_requests(one.host)
    assert request.wait(LIMIT).good


def test_a_host_becomes_quiet_when_all_that_was_begun_has_ended(one: Rig) -> None:
    [disk] = disks(one)
    once(one.driver, one.driver.lose)
    one.driver.says = {"device_reset": True}
    request = read_one(disk, timeout=0.1, retries=100)
    with baton():
        assert not scsi_quiesce(one.host, 0.01)
        assert scsi_quiesce(one.host, LIMIT)
        assert (one.host.busy, one.host.recovers) == (0, False)
    with pytest.raises(UsageError, match="sleeps"):
        disk.adapter.reset()
    with pytest.raises(UsageError, match="sleeps"):
        disk.adapter.rescan()
    assert request.completion is None  # error handling has rescued it: it waits to be sent again
    with baton():
        scsi_unblock_requests(one.host)
    assert request.wait(LIMIT).good
    disk.adapter.rescan()


def test_threads_share_a_disk(one: Rig) -> None:
    [disk] = disks(one)
    failures: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for turn in range(50):
                disk.write(mine, bytes([turn]) * 512)
                assert disk.read(mine, 1) == bytes([turn]) * 512
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert failures == []
    assert disk.in_flight == 0
