"""The order in which error handling becomes more severe, and what becomes of a device that nothing helps.

Independent of us: scsi_debug, which is device and driver in one, and the order, which is that of Linux's documentation
(Documentation/scsi/scsi_eh.rst). Its handlers are replaced here by some that say what they are told to, and note that
they were called; its queuecommand loses reads.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.machine_code import Code, returns
from tests.e2e.test_scsi_debug import read_10
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import TimedOut
from vmkernel_core.memory import load_bytes, store_bytes
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.storage.command import Direction, HostStatus
from vmkernel_core.storage.device import Request, StorageDevice
from vmkernel_core.storage.errors import CommandTimedOut, PathLost
from vmklinux.kernels import Kernel
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi

LIMIT = 60.0
#: Handlers from the mildest on, and what they return (include/scsi/scsi.h).
LADDER = ("abort", "device_reset", "target_reset", "bus_reset", "host_reset")
SUCCESS, FAILED = 0x2002, 0x2003


class Driver:
    """scsi_debug's scsi_host_template with other handlers in it; ``called`` has those that were called."""

    def __init__(self, host: VMkernel) -> None:
        """Replace them: each says that it failed."""
        scsi = host.linux.state(Scsi)
        [shost] = scsi.hosts.values()
        self.template: Obj = shost.obj.hostt
        self.code = Code(host.linux)
        self._log = self.code.add(bytes(64))
        self.template.skip_settle_delay = 1
        self.say({})
        real, opcode = self.template.queuecommand, scsi.types.offsetof("scsi_cmnd", "cmnd")
        self.template.queuecommand = self.code.add(
            b"\x80\xbe" + opcode.to_bytes(4, "little") + b"\x28"  # cmpb $0x28, opcode(%rsi): READ(10)
            b"\x75\x03\x31\xc0\xc3"  # jne +3; xor %eax, %eax; ret
            b"\x48\xb8" + int(real).to_bytes(8, "little") + b"\xff\xe0"  # movabs $real, %rax; jmp *%rax
        )  # fmt: skip

    def say(self, results: dict[str, int]) -> None:
        """Let handlers return that, the others that they failed; nothing was called yet."""
        store_bytes(self._log, bytes(64))
        for number, name in enumerate(LADDER):
            note = (
                b"\x48\xb8" + self._log.to_bytes(8, "little")  # movabs $log, %rax
                + b"\x8b\x08"  # mov (%rax), %ecx: how many were noted
                + b"\xc6\x44\x08\x04" + bytes([number])  # movb $number, 4(%rax, %rcx)
                + b"\xff\x00"  # incl (%rax)
            )  # fmt: skip
            code = self.code.add(note + returns(results.get(name, FAILED)))
            setattr(self.template, f"eh_{name}_handler", code)

    @property
    def called(self) -> list[str]:
        """The handlers that were called, in their order."""
        raw = load_bytes(self._log, 64)
        return [LADDER[number] for number in raw[4 : 4 + raw[0]]]


@pytest.fixture
def host(kernel: Kernel) -> Iterator[VMkernel]:
    """A host with two units on one adapter; at its end nothing may be left."""
    settings = {"scsi_debug": ("dev_size_mb=8", "max_luns=2")}
    with VMkernel(ModelPlatform([]), kernel=kernel.release, settings=settings) as host:
        host.load("scsi_debug")
        yield host
    assert host.leaks == []


def lose(disk: StorageDevice) -> Request:
    """Begin a read that the driver loses."""
    return disk.submit(read_10(0), Direction.FROM_DEVICE, 512, timeout=0.1, retries=0)


def test_each_step_is_taken_when_the_one_before_failed(host: VMkernel) -> None:
    disk, driver = next(iter(host.storage.values())), Driver(host)
    for step, name in enumerate(LADDER):
        driver.say({name: SUCCESS})
        with pytest.raises(CommandTimedOut):
            lose(disk).result(LIMIT)
        assert driver.called == list(LADDER[: step + 1])
        assert (disk.state, disk.in_flight) == ("active", 0)
    assert disk.stats().timeouts == len(LADDER)


def test_a_device_that_nothing_helps_goes_offline_and_can_be_brought_back(host: VMkernel) -> None:
    (disk, other), driver = host.storage.values(), Driver(host)
    other.write(5, b"\x5a" * 512)
    first, waits = lose(disk), other.submit(bytes(6))  # TEST UNIT READY
    assert first.wait(LIMIT).host == HostStatus.TIME_OUT
    assert driver.called == list(LADDER)
    assert waits.result(LIMIT).good
    assert (disk.state, other.state) == ("dead", "active")
    assert disk.adapter.state == "online"
    # What comes now ends at once, without the driver.
    with pytest.raises(PathLost):
        disk.submit(bytes(6)).result(LIMIT)
    with pytest.raises(PathLost):
        disk.write(0, bytes(512))
    assert driver.called == list(LADDER)
    other.write(6, b"\xa5" * 512)
    disk.set_online(True)
    assert disk.state == "active"
    assert disk.submit(bytes(6)).result(LIMIT).good
    disk.write(0, bytes(512))
    disk.flush()


def test_a_device_that_never_answers_is_given_up(host: VMkernel) -> None:
    """Resets succeed, but TEST UNIT READY after each is lost, too; then the driver is made to forget that, each time."""
    disk, driver = next(iter(host.storage.values())), Driver(host)
    driver.say(dict.fromkeys(LADDER[1:], SUCCESS))
    driver.template.queuecommand = driver.code.add(returns(0))
    for device in next(iter(host.linux.state(Scsi).hosts.values())).devices.values():
        device.obj.eh_timeout = host.linux.hz // 10
    assert lose(disk).wait(LIMIT).host == HostStatus.TIME_OUT
    lost = ["abort", "device_reset"]
    assert driver.called == [*lost, *(name for step in LADDER[2:] for name in (*lost, step)), *lost]
    assert disk.state == "dead"


def test_a_device_is_taken_offline_by_hand(host: VMkernel) -> None:
    disk, other = host.storage.values()
    disk.set_online(False)
    assert disk.state == "dead"
    with pytest.raises(PathLost):
        disk.read(0, 1)
    assert other.read(0, 1) == bytes(512)
    disk.adapter.rescan()
    assert disk in host.storage.values()
    disk.set_online(True)
    assert disk.read(0, 1) == bytes(512)


def test_waiting_has_a_limit_while_a_command_is_lost(host: VMkernel) -> None:
    disk, driver = next(iter(host.storage.values())), Driver(host)
    request = disk.submit(read_10(0), Direction.FROM_DEVICE, 512, timeout=2.0, retries=0)
    with pytest.raises(TimedOut):
        request.wait(0.1)
    assert disk.in_flight == 1
    driver.say({"abort": SUCCESS})
    assert request.wait(LIMIT).host == HostStatus.TIME_OUT
