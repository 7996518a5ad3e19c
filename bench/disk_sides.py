"""Blocks on two sides: through a StorageDevice, and by prepared frames of the same controller."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeAlias

from bench.cores import place
from bench.native import load
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.memory import RESERVED, MachineMemory
from vmkernel_core.pci import BarKind, scan
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.traps import trap_stats

if TYPE_CHECKING:
    from types import TracebackType

    from vmkernel_core.engine import EngineName
    from vmkernel_core.storage.device import Request

#: QEMU's null-co, which reads as zeros and forgets what is written, or a raw file in memory.
Drive: TypeAlias = Literal["null", "ram"]
#: Bytes of the drive, and of its blocks.
DRIVE_SIZE, BLOCK = 128 << 20, 512
#: The floor of each controller of QEMU's that has one.
FLOORS = {
    "megasas": "DISK_MEGASAS", "megasas-gen2": "DISK_MEGASAS", "mptsas1068": "DISK_MPTSAS", "pvscsi": "DISK_PVSCSI",
}  # fmt: skip
#: ns without an answer after which a side gives up.
SILENCE = 10_000_000_000
#: Seconds until the disk has appeared.
APPEARS = 60.0
_COMMAND, _MASTER_WITHOUT_PIN = 4, 0x406
_STORAGE = 1  # the base class


@dataclass(frozen=True)
class DiskSample:
    """One run: transfers a second; for each, accesses to registers and the time that a processor worked, in us:
    for this side, and for QEMU."""

    per_second: float
    reads: float
    writes: float
    own_us: float
    qemu_us: float


def drive_arguments(drive: Drive, stack: ExitStack) -> list[str]:
    """QEMU's arguments for the drive ``hd``; a file in memory lives as long as the stack."""
    if drive == "null":
        return ["-blockdev", f"driver=null-co,node-name=hd,size={DRIVE_SIZE},read-zeroes=on"]
    descriptor = os.memfd_create("bench-disk", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.posix_fallocate(descriptor, 0, DRIVE_SIZE)
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    return ["-blockdev", f"driver=raw,node-name=hd,file.driver=file,file.filename={path}"]


def disk_devices(controller: str) -> list[str]:
    """QEMU's ``-device`` for a controller and its disk."""
    return [f"{controller},id=hba", "scsi-hd,drive=hd,bus=hba.0,wwn=0x5000c50015ea71ac"]


def worked(pid: int) -> float:
    """Microseconds that the threads of a process have run on a processor (Linux, sched-stats.rst)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e3


class _DiskSide(ABC):
    """What both share: a QEMU with the controller and its disk, and the clock."""

    def __init__(self, controller: str, drive: Drive, processor: bool) -> None:
        self._stack = ExitStack()
        arguments = drive_arguments(drive, self._stack)
        self.drive = arguments[-1].rpartition("=")[2]  # the file, of one that has a file
        self.platform = QemuPlatform(disk_devices(controller), arguments=arguments, processor=processor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it all down."""
        self._stack.close()

    def run(self, size: int, depth: int, write: bool, count: int, pinned: bool) -> DiskSample:
        """Move ``size`` bytes ``count`` times with ``depth`` transfers under way; TimedOut when one does not end."""
        pid = self.platform.pid
        place(os.getpid(), pinned)
        place(pid, pinned)
        before, own, qemu = self._accesses(), worked(os.getpid()), worked(pid)
        began = perf_counter()
        self._move(size, depth, write, count)
        seconds = perf_counter() - began
        own, qemu = worked(os.getpid()) - own, worked(pid) - qemu
        reads, writes = (now - then for now, then in zip(self._accesses(), before, strict=True))
        return DiskSample(count / seconds, reads / count, writes / count, own / count, qemu / count)

    @abstractmethod
    def _accesses(self) -> tuple[int, int]:
        """Register reads and writes so far."""

    @abstractmethod
    def _move(self, size: int, depth: int, write: bool, count: int) -> None:
        """Move ``size`` bytes ``count`` times; see run."""


class DiskFloorSide(_DiskSide):
    """The controller, driven by disk.c."""

    def __init__(self, native: Path, controller: str, drive: Drive) -> None:
        super().__init__(controller, drive, processor=False)
        self.ffi, self.lib = load(native)
        self._kind = getattr(self.lib, FLOORS[controller])

    def __enter__(self) -> DiskFloorSide:
        """Start QEMU and set up the controller."""
        self.memory = self._stack.enter_context(MachineMemory(64 << 20))
        self._stack.callback(self.platform.stop)
        self.platform.start(self.memory)
        [card] = (found for found in scan(self.platform) if found.class_code >> 16 == _STORAGE)
        bars = (card.bar(index) for index in range(6))
        registers = next(bar for bar in bars if bar is not None and bar.kind is not BarKind.IO)
        self.platform.config_write(card.address, _COMMAND, 2, _MASTER_WITHOUT_PIN)
        self.platform.config_read(card.address, _COMMAND, 2)  # from here on no reply is under way
        self.handle = self.lib.disk_open(
            self._kind,
            self.platform.bus.fd,
            self.ffi.cast("char *", self.memory.base),
            RESERVED,
            registers.address,
        )
        if self.handle == self.ffi.NULL:
            raise VmkError("the floor cannot set the controller up")
        self._stack.callback(self.lib.disk_close, self.handle)
        return self

    def _accesses(self) -> tuple[int, int]:
        return int(self.lib.disk_reads(self.handle)), int(self.lib.disk_writes(self.handle))

    def _move(self, size: int, depth: int, write: bool, count: int) -> None:
        done = self.lib.disk_run(self.handle, depth, size, write, count, DRIVE_SIZE // BLOCK, SILENCE)
        if done != count:
            raise TimedOut(f"{done} of {count} transfers did well", where="the floor")


class DeviceSide(_DiskSide):
    """The same controller through a driver and a StorageDevice, as a program uses it."""

    def __init__(
        self, controller: str, drive: Drive, kernel: str, processor: bool, engine: EngineName = "linux"
    ) -> None:
        super().__init__(controller, drive, processor)
        self._release = kernel
        self._engine: EngineName = engine

    def __enter__(self) -> DeviceSide:
        """Boot and wait for the disk."""
        self.host = self._stack.enter_context(
            VMkernel(self.platform, kernel=self._release, engine=self._engine)
        )
        self.host.wait_storage(timeout=APPEARS)
        [self.disk] = self.host.storage.values()
        return self

    def modules(self) -> list[str]:
        """The Linux modules that drive the controller, in the order of loading."""
        return list(self.host.loader.modules)

    def engine(self) -> EngineName:
        """What drives the controller: drivers in Python know only some."""
        place = self.disk.adapter.pci_address
        return next(adapter.engine for adapter in self.host.adapters if adapter.function.address == place)

    def _accesses(self) -> tuple[int, int]:
        # A driver in Python calls the bus: no trap counts its accesses.
        traps = trap_stats()
        return traps.reads, traps.writes

    def _move(self, size: int, depth: int, write: bool, count: int) -> None:
        """Keep ``depth`` transfers under way: when the oldest has ended, it is replaced with those that ended too."""
        commands = self.disk.write_commands if write else self.disk.read_commands
        blocks, places = size // BLOCK, DRIVE_SIZE // size
        with self.disk.buffer(size * depth) as buffer:
            parts = len(commands(0, blocks, buffer))  # of a transfer that is more than one command can carry
            under_way: deque[Request] = deque()
            begun = 0
            while begun < count or under_way:
                batch = range(begun, min(count, begun + depth + -len(under_way) // parts))
                begun = batch.stop
                under_way += self.disk.start(
                    [
                        command
                        for number in batch
                        for command in commands(
                            number % places * blocks, blocks, buffer, number % depth * size
                        )
                    ]
                )
                under_way.popleft().result()
                while under_way and under_way[0].done:
                    under_way.popleft().result()
