"""The QEMU platform and the qtest bus. Independent side: QEMU and its device models, all of it.

Registers of the 8254x are named as in Intel's Software Developer's Manual 317453, chapter 13.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vmkernel_core.hardware import LIMIT, level, until
from vmkernel_core.bus import Space
from vmkernel_core.errors import DeviceGone, UsageError
from vmkernel_core.memory import MachineMemory
from vmkernel_core.pci import COMMAND, PciFunction, scan
from vmkernel_core.platform import qemu_process
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import START_LIMIT, QemuPlatform
from vmkernel_core.platform.qemu_process import QemuFailed, QemuMissing, UnknownDevice

CTRL, STATUS, ICR, ICS, IMS, IMC, RCTL, TCTL = 0x0, 0x8, 0xC0, 0xC8, 0xD0, 0xD8, 0x100, 0x400
RDBAL, RDBAH, RDLEN, RDH, RDT = 0x2800, 0x2804, 0x2808, 0x2810, 0x2818
TDBAL, TDBAH, TDLEN, TDH, TDT = 0x3800, 0x3804, 0x3808, 0x3810, 0x3818
LINK_UP = 0x2


class Machine:
    """A started platform and its scanned devices, with memory decoding and bus mastering on."""

    def __init__(self, memory: MachineMemory, *devices: str) -> None:
        self.platform = QemuPlatform(devices)
        self.platform.start(memory)
        self.functions = [f for f in scan(self.platform) if f.bars]
        for function in self.functions:
            self.platform.config_write(function.address, COMMAND, 2, 7)

    def base(self, function: PciFunction) -> int:
        bar = function.bar(0)
        assert bar is not None
        return bar.address

    def read(self, function: PciFunction, register: int) -> int:
        return self.platform.bus.read(Space.MEMORY, self.base(function) + register, 4)

    def write(self, function: PciFunction, register: int, value: int) -> None:
        self.platform.bus.write(Space.MEMORY, self.base(function) + register, 4, value)

    def line(self, function: PciFunction) -> int:
        return self.platform.interrupt_line(function.address, function.interrupt_pin)


@pytest.fixture
def start(memory: MachineMemory) -> Iterator[Callable[..., Machine]]:
    machines: list[Machine] = []

    def start(*devices: str) -> Machine:
        machines.append(Machine(memory, *devices))
        return machines[-1]

    yield start
    for machine in machines:
        machine.platform.stop()


def test_several_devices_in_one_machine(start: Callable[..., Machine]) -> None:
    machine = start("e1000,netdev=a,addr=5", "e1000e,netdev=b,addr=6", "e1000-82545em,netdev=c,addr=1e")
    assert [(f.device, machine.line(f)) for f in machine.functions] == [
        (0x100E, 21),
        (0x10D3, 22),
        (0x100F, 20),
    ]
    assert [wire.name for wire in machine.platform.wires] == ["a", "b", "c"]
    for function in machine.functions:
        assert machine.read(function, STATUS) & LINK_UP


def test_configuration_space(start: Callable[..., Machine]) -> None:
    platform = start("e1000e,netdev=a,addr=5").platform
    address = PciAddress(0, 0, 5, 0)
    assert platform.config_read(address, 0, 4) == 0x10D3_8086
    assert platform.config_read(address, 2, 2) == 0x10D3
    assert platform.config_read(address, 1, 1) == 0x80
    assert platform.config_read(address, 0x100, 4) & 0xFFFF == 1, "extended space: AER"
    platform.config_write(address, 0x3C, 1, 0x5A)
    assert platform.config_read(address, 0x3C, 1) == 0x5A
    empty = PciAddress(0, 0, 7, 0)
    assert [platform.config_read(empty, 0, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFF_FFFF]


def test_an_interrupt_pin_rises_and_falls(start: Callable[..., Machine]) -> None:
    machine = start("e1000,netdev=a,addr=5")
    (nic,) = machine.functions
    assert machine.line(nic) == 21
    machine.write(nic, IMS, 0x4)
    machine.write(nic, ICS, 0x4)
    machine.read(nic, STATUS)
    assert level(21) == 1
    assert machine.read(nic, ICR) & 0x4
    assert level(21) == 0, "reading ICR clears the cause before the read's reply comes"


def test_an_interrupt_wakes_whoever_polls_the_bus(start: Callable[..., Machine]) -> None:
    machine = start("e1000,netdev=a,addr=5")
    (nic,) = machine.functions
    bus = machine.platform.bus
    machine.write(nic, IMS, 0x4)
    machine.read(nic, STATUS)
    poll = select.poll()
    poll.register(bus.fd, select.POLLIN)
    assert poll.poll(0) == [], "nothing outstanding, nothing to read"
    machine.platform.set_link(nic.address, False)
    assert poll.poll(LIMIT * 1000)
    assert bus.service()
    assert level(machine.line(nic)) == 1


def test_every_slot_s_interrupt_line(start: Callable[..., Machine]) -> None:
    """QEMU's edu device raises INTA when told so (docs/specs/edu: 0x60 raises, 0x64 acknowledges)."""
    machine = start(*(f"edu,addr={slot:x}" for slot in range(1, 31)))
    assert len(machine.functions) == 30
    for function in machine.functions:
        machine.write(function, 0x60, 1)
        machine.read(function, 0)
        assert [line for line in range(32) if level(line)] == [machine.line(function)], str(function)
        machine.write(function, 0x64, 1)
        machine.read(function, 0)
        assert not level(machine.line(function))


def test_the_other_pins(start: Callable[..., Machine], memory: MachineMemory) -> None:
    """UHCI functions have pins A…D. A transfer with an invalid packet id halts one, which raises its pin."""
    devices = [
        *("ich9-usb-uhci1,multifunction=on,addr=5.0", "ich9-usb-uhci2,addr=5.1", "ich9-usb-uhci3,addr=5.2"),
        *("ich9-usb-uhci2,addr=6", "ich9-usb-uhci3,addr=1a", "ich9-usb-uhci2,addr=1e"),
    ]
    machine = start(*devices)
    frames, transfer = 0x20_0000, 0x20_1000
    struct.pack_into("<1024I", memory.view, frames, *[transfer] * 1024)
    struct.pack_into("<4I", memory.view, transfer, 1, 1 << 23, 0, 0)
    assert [f.interrupt_pin for f in machine.functions] == [1, 2, 3, 2, 3, 2]
    for function in machine.functions:
        bar = function.bar(4)
        assert bar is not None
        bus, ports, line = machine.platform.bus, bar.address, machine.line(function)
        bus.write(Space.IO, ports + 8, 4, frames)
        bus.write(Space.IO, ports + 4, 2, 0xF)
        bus.write(Space.IO, ports, 2, 1)

        def halted(status: int = ports + 2) -> bool:
            return bool(machine.platform.bus.read(Space.IO, status, 2) & 0x10)

        until(f"error of {function}", halted)
        assert [n for n in range(32) if level(n)] == [line], str(function)
        bus.write(Space.IO, ports + 2, 2, 0x3F)
        bus.read(Space.IO, ports + 2, 2)
        assert not level(line)


def test_there_are_four_pins(start: Callable[..., Machine]) -> None:
    platform = start().platform
    for pin in (0, 5):
        with pytest.raises(UsageError, match="no interrupt pin"):
            platform.interrupt_line(PciAddress(0, 0, 5, 0), pin)


def test_the_link(start: Callable[..., Machine]) -> None:
    machine = start("e1000,netdev=a,addr=5", "edu,addr=6")
    nic, edu = machine.functions
    assert machine.read(nic, STATUS) & LINK_UP
    machine.platform.set_link(nic.address, False)
    assert not machine.read(nic, STATUS) & LINK_UP
    machine.platform.set_link(nic.address, True)
    until("link", lambda: bool(machine.read(nic, STATUS) & LINK_UP))
    with pytest.raises(UsageError, match="set_link"):
        machine.platform.set_link(edu.address, False)
    with pytest.raises(UsageError, match=r"0000:00:09\.0"):
        machine.platform.set_link(PciAddress(0, 0, 9, 0), False)


@pytest.mark.parametrize("device", ["e1000", "e1000e", "e1000-82544gc", "pcnet", "i82550", "virtio-net-pci"])
def test_unplug(device: str, start: Callable[..., Machine]) -> None:
    machine = start(f"{device},netdev=a,addr=5", "e1000,netdev=b,addr=6")
    gone, stays = machine.functions
    platform = machine.platform
    platform.unplug(gone.address)
    assert platform.config_read(gone.address, 0, 4) == 0xFFFF_FFFF
    machine.write(gone, STATUS, 0)
    platform.wires[0].socket.send(bytes(60))
    assert machine.read(stays, STATUS) & LINK_UP, "QEMU and the neighbour live on"
    assert [f.address for f in scan(platform) if f.bars] == [stays.address]
    with pytest.raises(UsageError):
        platform.unplug(gone.address)


def test_unplug_lowers_the_pin(start: Callable[..., Machine]) -> None:
    machine = start("e1000,netdev=a,addr=5")
    (nic,) = machine.functions
    machine.write(nic, IMS, 0x4)
    machine.write(nic, ICS, 0x4)
    machine.read(nic, STATUS)
    assert level(21) == 1
    machine.platform.unplug(nic.address)
    assert level(21) == 0


def transmit(machine: Machine, memory: MachineMemory, frames: list[bytes]) -> None:
    """Send frames by a ring of legacy descriptors (SDM 3.3.3) at 2 MiB, buffers at 4 MiB."""
    (nic,) = machine.functions
    count = 1024
    assert len(frames) < count
    for index, frame in enumerate(frames):
        buffer = 0x40_0000 + index * 2048
        memory.view[buffer : buffer + len(frame)] = frame
        # length, checksum offset, command EOP|IFCS|RS, status, checksum start, special
        struct.pack_into("<QHBBBBH", memory.view, 0x20_0000 + 16 * index, buffer, len(frame), 0, 0xB, 0, 0, 0)
    for register, value in ((TDBAL, 0x20_0000), (TDBAH, 0), (TDLEN, count * 16), (TDH, 0), (TDT, 0)):
        machine.write(nic, register, value)
    machine.write(nic, TCTL, 0xA)  # EN | PSP
    machine.write(nic, TDT, len(frames))


def test_frames_out_are_complete_and_in_order(start: Callable[..., Machine], memory: MachineMemory) -> None:
    machine = start("e1000,netdev=a,addr=5")
    frames = [struct.pack(">I", n) * (15 + n % 360) for n in range(1000)]
    transmit(machine, memory, frames)
    wire = machine.platform.wires[0].socket
    wire.settimeout(LIMIT)
    assert [wire.recv(4096) for _ in frames] == frames


def test_a_full_wire_makes_qemu_wait(start: Callable[..., Machine], memory: MachineMemory) -> None:
    """Nobody reads before the card has done with 4,000 large frames, more than the socket holds: all come."""
    machine = start("e1000,netdev=a,addr=5")
    rounds = [[struct.pack(">II", turn, n) * 180 for n in range(1000)] for turn in range(4)]
    wire = machine.platform.wires[0].socket
    wire.settimeout(LIMIT)
    (nic,) = machine.functions
    for frames in rounds:
        transmit(machine, memory, frames)
        until("transmission", lambda: machine.read(nic, TDH) == 1000)
    assert [wire.recv(4096) for frames in rounds for _ in frames] == [f for frames in rounds for f in frames]


def test_frames_in_wait_until_the_card_takes_them(
    start: Callable[..., Machine], memory: MachineMemory
) -> None:
    machine = start("e1000,netdev=a,addr=5")
    (nic,) = machine.functions
    wire = machine.platform.wires[0].socket
    wire.settimeout(LIMIT)
    frames = [b"\xff" * 6 + struct.pack(">I", n) * 40 for n in range(200)]
    # Posted writes are done once a read is. Were bus mastering switched on behind the first frame, QEMU's
    # e1000 would flush that frame into its disabled receiver.
    machine.read(nic, STATUS)
    for frame in frames:
        wire.send(frame)  # before there is a ring
    for index in range(256):
        struct.pack_into("<QQ", memory.view, 0x20_0000 + 16 * index, 0x40_0000 + index * 2048, 0)
    for register, value in ((RDBAL, 0x20_0000), (RDBAH, 0), (RDLEN, 256 * 16), (RDH, 0), (RDT, 255)):
        machine.write(nic, register, value)
    machine.write(nic, RCTL, 0x0400_800A)  # EN | UPE | BAM | SECRC
    until("frames", lambda: machine.read(nic, RDH) == len(frames))
    for index, frame in enumerate(frames):
        assert bytes(memory.view[0x40_0000 + index * 2048 :][: len(frame)]) == frame


def test_qemu_killed_in_mid_use(start: Callable[..., Machine]) -> None:
    machine = start("e1000,netdev=a,addr=5")
    (nic,) = machine.functions
    bus = machine.platform.bus
    machine.write(nic, IMS, 0x4)
    machine.write(nic, ICS, 0x4)
    machine.read(nic, STATUS)
    assert level(21) == 1
    killer = threading.Timer(0.05, os.kill, (machine.platform.pid, signal.SIGKILL))
    killer.start()
    until("end", lambda: machine.read(nic, STATUS) == 0xFFFF_FFFF)
    killer.join()
    assert bus.gone
    assert bus.fd == -1
    assert level(21) == 0
    machine.write(nic, IMC, 0x4)
    assert machine.platform.config_read(nic.address, 0, 2) == 0xFFFF
    with pytest.raises(DeviceGone):
        machine.platform.set_link(nic.address, False)
    started = time.monotonic()
    machine.platform.stop()
    assert time.monotonic() - started < 2


def test_qemu_stopped_in_mid_use_is_killed_in_the_end(
    start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_process, "QUIT_LIMIT", 0.1)
    machine = start("e1000,netdev=a")
    pid = machine.platform.pid
    os.kill(pid, signal.SIGSTOP)
    machine.platform.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_is_left_over(memory: MachineMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    platform = QemuPlatform(["e1000,netdev=a"])
    platform.start(memory)
    platform.stop()
    before = _descriptors()
    for _ in range(3):
        platform.start(memory)
        pid = platform.pid
        assert len(platform.wires) == 1
        platform.stop()
        platform.stop()
        assert not Path(f"/proc/{pid}").exists(), "no process, no zombie"
        with pytest.raises(DeviceGone):
            platform.set_link(PciAddress(0, 0, 1, 0), True)
    assert _descriptors() == before
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "qemu-monitor"]


def _descriptors() -> list[str]:
    """What this process has open, but for the directory that tells it."""
    return sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))


def test_qemu_dies_with_its_owner() -> None:
    program = """
import os, signal, sys, threading
from vmkernel_core.memory import MachineMemory
from vmkernel_core.platform.qemu import START_LIMIT, QemuPlatform
platform = QemuPlatform(["e1000,netdev=a"])
starter = threading.Thread(target=platform.start, args=(MachineMemory(64 << 20),))
starter.start()
starter.join()
assert platform.config_read(platform.functions()[8], 0, 2) == 0x8086, "the thread that called start may end"
print(platform.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pidfd = os.pidfd_open(int(owner.stdout.readline()))
        try:
            owner.kill()
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(LIMIT * 1000), "QEMU outlives its owner"
        finally:
            os.close(pidfd)


def test_errors_name_the_thing_and_the_remedy(memory: MachineMemory, tmp_path: Path) -> None:
    with pytest.raises(QemuMissing, match=r"no program qemu-nowhere; apt-get install qemu-system-x86"):
        QemuPlatform([], binary="qemu-nowhere").start(memory)
    with pytest.raises(UnknownDevice, match=r"'no-such' is not a valid device model name.*-device help"):
        QemuPlatform(["no-such"]).start(memory)
    began = time.monotonic()
    with pytest.raises(QemuFailed, match=r"ended with status 1: .*Property 'e1000.colour' not found"):
        QemuPlatform(["e1000,colour=red"]).start(memory)
    assert time.monotonic() - began < START_LIMIT - 1, "its end is seen, not waited for"
    with pytest.raises(QemuFailed, match=r"no-such-option"):
        QemuPlatform([], arguments=["-no-such-option"]).start(memory)
    with pytest.raises(QemuFailed, match=r"cannot start QEMU: Argument list too long"):
        QemuPlatform([], arguments=["x" * 200_000]).start(memory)
    not_a_program = tmp_path / "qemu"
    not_a_program.write_bytes(b"\x7fELF nonsense")
    not_a_program.chmod(0o755)
    with pytest.raises(QemuFailed, match=r"ended with status"):
        QemuPlatform([], binary=str(not_a_program)).start(memory)


def test_memory_that_q35_cannot_have() -> None:
    with (
        MachineMemory((64 << 20) + 4096) as memory,
        pytest.raises(UsageError, match=r"67112960 bytes.*whole MiB"),
    ):
        QemuPlatform([]).start(memory)


def test_round_trip_costs(start: Callable[..., Machine], capsys: pytest.CaptureFixture[str]) -> None:
    machine = start("e1000,netdev=a,addr=5")
    (nic,) = machine.functions
    times = {}
    count = 5000
    for name, access in (
        ("read", lambda: machine.read(nic, STATUS)),
        ("posted write", lambda: machine.write(nic, IMC, 0)),
    ):
        begin = time.perf_counter()
        for _ in range(count):
            access()
        machine.read(nic, STATUS)
        times[name] = (time.perf_counter() - begin) / count * 1e6
    with capsys.disabled():
        print("\nqtest bus:", ", ".join(f"{name} {cost:.1f} µs" for name, cost in times.items()))
