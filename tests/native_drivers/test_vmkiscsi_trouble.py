"""Connections that break, targets that come back or do not, commands that take too long. Independent of us: tgt.

A write that was acknowledged is in the backing file, whatever happened meanwhile, and every command ends once.
"""

from __future__ import annotations

import gc
import logging
import os
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest

from native_drivers.scsi.vmkiscsi.session import Session
from tests.native_drivers.iscsi import (
    BLOCK,
    LIMIT,
    MIB,
    NAME,
    disk,
    host_with,
    image,
    naa,
    on_disk,
    the_iscsi,
    wait_for,
)
from tests.native_drivers.relay import Relay
from tests.native_drivers.tgt import Target, Tgt
from vmkernel_core._core import ffi, lib
from vmkernel_core.storage.command import Direction
from vmkernel_core.storage.device import Request, StorageDevice
from vmkernel_core.storage.errors import CommandTimedOut, IllegalRequest, PathLost
from vmkernel_core.storage.events import StorageEvent
from vmklinux.errors import DriverStopped


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """A unit's backing file."""
    return image(tmp_path / "trouble", 32 * MIB)


@pytest.fixture
def tgt(backing: Path) -> Iterator[Tgt]:
    """One target."""
    with Tgt(Target(NAME.format("trouble"), {1: backing, 2: image(backing.with_name("second"))})) as running:
        yield running


def timed_out_since(device: StorageDevice, before: int) -> bool:
    """Whether a command of a device has timed out since there were so many."""
    return device.stats().timeouts > before


class Writer:
    """Writes many pieces at a time, each with its own noise, and knows what was acknowledged."""

    def __init__(self, device: StorageDevice, seed: int) -> None:
        self._device, self._chance = device, Random(seed)
        self._pieces: list[tuple[int, bytes, list[Request]]] = []

    def start(self, count: int, blocks: int) -> None:
        """Begin so many writes, one behind the other and behind those that were begun."""
        lba = sum(len(data) for _, data, _ in self._pieces) // BLOCK
        for at in range(lba, lba + count * blocks, blocks):
            data = self._chance.randbytes(blocks * BLOCK)
            self._pieces.append((at, data, self._device.start_write(at, data)))

    def end(self, backing: Path) -> None:
        """All of them end well, once, and are where they belong."""
        for lba, data, requests in self._pieces:
            for request in requests:
                request.result(LIMIT)
            assert on_disk(backing, lba, len(data) // BLOCK) == data
        assert self._device.in_flight == 0
        self._pieces.clear()


@pytest.mark.parametrize("blocks", [8, 128, 1024])
def test_a_target_that_is_restarted_in_mid_write_has_every_block(
    tgt: Tgt, backing: Path, blocks: int
) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        device = disk(host)
        told: list[StorageEvent] = []
        errors = device.stats().errors
        host.watch_storage(told.append)
        for seed in range(3):
            writer = Writer(device, seed)
            writer.start(32, blocks)
            tgt.kill()
            writer.start(4, blocks)
            tgt.start()
            writer.end(backing)
        stats = device.stats()
        assert device.state == "active"
        assert (stats.errors, stats.timeouts) == (errors, 0)
        assert [event.kind for event in told if event.name == naa(1, 1)] == ["blocked", "active"] * 3


def test_connections_that_are_cut_lose_no_command(tgt: Tgt, backing: Path) -> None:
    with (
        Relay(tgt.port) as relay,
        host_with(f"portal={relay.portal}", f"target={NAME.format('trouble')}") as host,
    ):
        writer = Writer(disk(host), 7)
        for _ in range(10):
            writer.start(32, 64)
            relay.cut()
            writer.end(backing)
        read = disk(host).read(0, 32 * 64)
        assert read == on_disk(backing, 0, 32 * 64)
        assert relay.connections >= 10


#: PERSISTENT RESERVE OUT that registers a key, and IN that reads all (SPC-4, 6.15 and 6.16): the first is a conflict the
#: second time.
REGISTER, KEY = bytes([0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0]), bytes(range(8))
READ_KEYS = bytes([0x5E, 0, 0, 0, 0, 0, 0, 0, 16, 0])


def test_what_may_have_been_done_is_done_again_only_if_that_is_the_same(tgt: Tgt, backing: Path) -> None:
    """The target does it, its answer is lost, and so is the connection."""
    settings = (f"target={NAME.format('trouble')}", "noop_interval=0")
    with Relay(tgt.port) as relay, host_with(f"portal={relay.portal}", *settings) as host:
        device = disk(host)

        def lose_the_answer(request: Request) -> None:
            wait_for(lambda: relay.swallowed >= 48)
            relay.cut()
            relay.swallows, relay.swallowed = False, 0
            request.wait(LIMIT)
            wait_for(lambda: device.state == "active")

        relay.swallows = True
        request = device.submit(REGISTER, Direction.TO_DEVICE, bytes(8) + KEY + bytes(8))
        lose_the_answer(request)
        with pytest.raises(PathLost, match="transport disrupted"):
            request.result()
        keys = device.submit(READ_KEYS, Direction.FROM_DEVICE, 16)
        keys.result(LIMIT)
        assert keys.buffer is not None
        assert bytes(keys.buffer.view[8:16]) == KEY  # it was done

        relay.swallows = True
        [request] = device.start_write(9, bytes(BLOCK))
        lose_the_answer(request)
        assert request.result().retries >= 1
        assert on_disk(backing, 9, 1) == bytes(BLOCK)


def test_what_is_no_iscsi_ends_a_connection_at_once(tgt: Tgt, backing: Path) -> None:
    settings = (f"target={NAME.format('trouble')}", "noop_interval=0")
    with Relay(tgt.port) as relay, host_with(f"portal={relay.portal}", *settings) as host:
        relay.say(b"\xff" * 48)
        wait_for(lambda: relay.connections == 2 and disk(host).state == "active")
        assert disk(host).read(0, 8) == on_disk(backing, 0, 8)


def test_a_target_that_asks_for_a_logout_gets_one_and_a_new_login(tgt: Tgt, backing: Path) -> None:
    settings = (f"target={NAME.format('trouble')}", "noop_interval=0")
    with Relay(tgt.port) as relay, host_with(f"portal={relay.portal}", *settings) as host:
        writer = Writer(disk(host), 5)
        writer.start(8, 64)
        writer.end(backing)
        # An Asynchronous Message with event 1 (RFC 7143, 11.9): a logout is requested, within 3 s.
        relay.say(struct.pack(">BB14xI16xB3x2xH4x", 0x32, 0x80, 0xFFFF_FFFF, 1, 3))
        writer.start(8, 64)
        writer.end(backing)
        wait_for(lambda: relay.connections == 2)
        assert disk(host).state == "active"


def test_a_unit_that_comes_back_smaller_or_larger_is_told_by_a_rescan(tgt: Tgt, backing: Path) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        device = disk(host)
        for size in (16 * MIB, 48 * MIB):
            tgt.kill()
            with backing.open("r+b") as file:
                file.truncate(size)
            wait_for(lambda: device.state == "blocked")
            tgt.start()
            wait_for(lambda: device.state == "active")
            if size < device.capacity:
                with pytest.raises(IllegalRequest, match="out of range"):
                    device.write(size // BLOCK, bytes(BLOCK))
            host.storage_adapters["vmhba0"].rescan()
            assert disk(host) is device
            assert device.capacity == size
            device.write(device.blocks - 1, bytes(BLOCK))
            assert on_disk(backing, device.blocks - 1, 1) == bytes(BLOCK)


def test_another_unit_at_the_same_lun_gets_no_commands_of_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = image(tmp_path / "one", MIB), image(tmp_path / "two", MIB)
    changes, stays = Target(NAME.format("changes"), {1: one}), Target(NAME.format("stays"), {1: two})
    with Tgt(stays, changes) as tgt, host_with(f"portal={tgt.portal}") as host:
        same, other = disk(host, 1), disk(host, 2)
        before = on_disk(one, 0, 64)
        tgt.kill()
        wait_for(lambda: same.state == other.state == "blocked")
        write, read = other.start_write(0, bytes(64 * BLOCK))[0], same.start_read(0, 64)[0]
        # tgt makes the name of a unit of its target's number.
        tgt.targets = (stays, Target(NAME.format("between"), {}), changes)
        with caplog.at_level(logging.ERROR):
            tgt.start()
            with pytest.raises(PathLost):
                write.result(LIMIT)
            read.result(LIMIT)
        assert (same.state, other.state) == ("active", "dead")
        assert any("LUN 1 is another unit now" in record.getMessage() for record in caplog.records)
        host.storage_adapters["vmhba0"].reset()  # a new login changes nothing about that
        assert (same.state, other.state) == ("active", "dead")
        assert on_disk(one, 0, 64) == before
        the_iscsi(host).remove_session(changes.name)
        the_iscsi(host).add_session(changes.name)
        assert list(host.storage) == [naa(1, 1), naa(3, 1)]
        assert disk(host, 3).read(0, 64) == before


def test_a_device_that_somebody_took_offline_stays_so_when_its_target_comes_back(tgt: Tgt) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        device, second = disk(host), disk(host, 1, 2)
        device.set_online(False)
        tgt.kill()
        wait_for(lambda: second.state == "blocked")
        assert device.state == "dead"
        tgt.start()
        wait_for(lambda: second.state == "active")
        assert device.state == "dead"
        device.set_online(True)
        assert len(device.read(0, 8)) == 8 * BLOCK


def test_an_operator_may_log_out_while_a_target_is_away(tgt: Tgt) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        device, name = disk(host), NAME.format("trouble")
        tgt.kill()
        request = device.start_read(0, 8)[0]
        wait_for(lambda: device.state == "blocked")
        the_iscsi(host).remove_session(name)
        with pytest.raises(PathLost):
            request.result(LIMIT)
        assert host.storage == {}
        tgt.start()
        the_iscsi(host).add_session(name)
        assert len(disk(host).read(0, 8)) == 8 * BLOCK


def test_a_target_that_is_gone_for_good_is_given_up(tgt: Tgt, backing: Path) -> None:
    with host_with(f"portal={tgt.portal}", "replacement_timeout=2") as host:
        device = disk(host)
        tgt.kill()
        began = time.monotonic()
        with pytest.raises(PathLost):
            device.read(0, 8)
        assert 1 < time.monotonic() - began < LIMIT
        assert device.state == "dead"
        began = time.monotonic()
        with pytest.raises(PathLost):
            device.write(0, bytes(BLOCK))
        assert time.monotonic() - began < 10
        tgt.start()  # it comes back after all
        wait_for(lambda: device.state == "active")
        assert device.read(0, 8) == on_disk(backing, 0, 8)


def test_a_target_that_says_nothing_is_left_for_a_new_login(tgt: Tgt, backing: Path) -> None:
    settings = ("noop_interval=1", "noop_timeout=1")
    with host_with(f"portal={tgt.portal}", *settings) as host:
        device = disk(host)
        tgt.pause()
        request = device.start_read(0, 8)[0]
        wait_for(lambda: device.state == "blocked")
        assert not request.done
        tgt.resume()
        request.result(LIMIT)
        wait_for(lambda: device.state == "active")
        assert device.stats().timeouts == 0


def test_signs_of_life_keep_an_idle_session(tgt: Tgt, caplog: pytest.LogCaptureFixture) -> None:
    settings = (f"target={NAME.format('trouble')}", "noop_interval=1", "noop_timeout=5")
    with Relay(tgt.port) as relay, host_with(f"portal={relay.portal}", *settings) as host:
        before = len(relay.heard["initiator"])
        with caplog.at_level(logging.WARNING):
            # Two NOP-Outs of 48 bytes each.
            wait_for(lambda: len(relay.heard["initiator"]) >= before + 96)
        assert disk(host).state == "active"
        assert relay.connections == 1
    assert [record.getMessage() for record in caplog.records] == []


def test_a_command_that_takes_too_long_is_aborted(
    tgt: Tgt, backing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with host_with(f"portal={tgt.portal}", "noop_interval=0") as host:
        device = disk(host)
        tgt.pause()
        request = device.submit(bytes(6), timeout=1, retries=0)
        with caplog.at_level(logging.WARNING):
            wait_for(lambda: device.stats().timeouts == 1)
            tgt.resume()
            with pytest.raises(CommandTimedOut):
                request.result(LIMIT)
            assert any("it was aborted" in record.getMessage() for record in caplog.records)
        assert device.read(0, 8) == on_disk(backing, 0, 8)
        assert device.state == "active"


@pytest.mark.parametrize("blocks", [8, 256, 2048])
def test_writes_that_take_too_long_are_aborted_and_sent_again(tgt: Tgt, backing: Path, blocks: int) -> None:
    """Some of the data has left, some is queued, some is half sent when the commands are aborted."""
    with host_with(f"portal={tgt.portal}", "noop_interval=0") as host:
        device, chance = disk(host), Random(blocks)
        with device.buffer(24 * blocks * BLOCK) as memory:
            for _ in range(3):
                memory.view[:] = chance.randbytes(len(memory.view))
                before = device.stats().timeouts
                tgt.pause()
                requests = device.start(
                    [
                        msgspec.structs.replace(command, timeout=1.0, retries=100)
                        for at in range(24)
                        for command in device.write_commands(at * blocks, blocks, memory, at * blocks * BLOCK)
                    ]
                )
                wait_for(partial(timed_out_since, device, before))
                tgt.resume()
                for request in requests:
                    request.result(LIMIT)
                assert on_disk(backing, 0, 24 * blocks) == bytes(memory.view)
        assert device.in_flight == 0
        assert device.state == "active"


def test_what_cannot_be_aborted_is_reset(
    tgt: Tgt, backing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Session, "abort", lambda _self, _cmnd: False)
    with host_with(f"portal={tgt.portal}", "noop_interval=0") as host, caplog.at_level(logging.WARNING):
        device = disk(host)
        tgt.pause()
        request = device.submit(bytes(6), timeout=1, retries=100)
        wait_for(lambda: device.stats().timeouts == 1)
        tgt.resume()
        request.result(LIMIT)
        assert any("device reset: done" in record.getMessage() for record in caplog.records)
        assert device.read(0, 8) == on_disk(backing, 0, 8)


def test_a_reset_of_the_adapter_logs_in_anew(tgt: Tgt, backing: Path) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        writer = Writer(disk(host), 3)
        for _ in range(3):
            writer.start(32, 128)
            host.storage_adapters["vmhba0"].reset()
            writer.end(backing)
        assert tgt.show().count("I_T nexus:") == 1  # the target took the new login for the old session


def held() -> tuple[set[str], list[str], int]:
    """Threads, open files, and bytes of machine memory."""
    gc.collect()
    stats = ffi.new("struct vmk_memory_stats *")
    lib.vmk_memory_stats(stats)
    files = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {thread.name for thread in threading.enumerate()}, sorted(files), int(stats.bytes)


def test_unloading_leaves_nothing(tgt: Tgt, backing: Path) -> None:
    with host_with(f"portal={tgt.portal}", "sessions=2") as host:
        host.unload("vmkiscsi")
        before = held()
        for _ in range(3):
            host.load("vmkiscsi")
            device = disk(host)
            assert device.read(0, 64) == on_disk(backing, 0, 64)
            requests = device.start_read(0, 4096)
            for request in requests:
                request.result(LIMIT)
            del request, requests
            assert "I_T nexus:" in tgt.show()
            assert host.unload("vmkiscsi") == []
            assert device.error is not None
            assert "I_T nexus:" not in tgt.show()  # logged out
            assert (host.storage, host.storage_adapters) == ({}, {})
        assert held() == before


def test_unloading_while_the_target_is_gone_does_not_wait_for_it(tgt: Tgt) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        device = disk(host)
        tgt.kill()
        request = device.start_read(0, 8)[0]
        wait_for(lambda: device.state == "blocked")
        began = time.monotonic()
        host.unload("vmkiscsi")
        assert time.monotonic() - began < 20
        with pytest.raises(PathLost):
            request.result(LIMIT)


def test_a_fault_of_the_driver_s_own_stops_it_alone(tgt: Tgt, monkeypatch: pytest.MonkeyPatch) -> None:
    with host_with(f"portal={tgt.portal}") as host:
        device = disk(host)
        requests = device.start_read(0, 8)
        requests[0].result(LIMIT)
        with monkeypatch.context() as broken:
            broken.setattr(Session, "progress", lambda _self, _connection: 1 / 0)
            request = device.start_read(0, 8)[0]
            with pytest.raises(PathLost):
                request.result(LIMIT)
        assert isinstance(device.error, DriverStopped)
        began, used = time.monotonic(), time.process_time()
        wait_for(lambda: time.monotonic() - began > 0.5)
        assert time.process_time() - used < 0.3  # nobody looks at the sockets all the time
        host.unload("vmkiscsi")
        host.load("vmkiscsi")
        assert len(disk(host).read(0, 8)) == 8 * BLOCK
