"""The two sides that are compared: frames through an Uplink, and through the bare rings of the same card."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.cores import place, place_peer
from bench.native import load
from vmkernel_core._core import ffi, lib
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import TimedOut, UsageError, VmkError
from vmkernel_core.memory import RESERVED, MachineMemory, store_bytes
from vmkernel_core.pci import scan
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.traps import trap_stats

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from vmkernel_core.engine import EngineName
    from vmkernel_core.platform.base import PciAddress

BATCH = 64
#: A card of QEMU's, as all sides have it.
PLACED = "{},netdev=wire0,addr=5"
#: Frames that may be under way: to the card, less than its ring holds; to the peer, less than QEMU keeps for one that
#: does not get to run (10,000, after which it drops).
RX_WINDOW, TX_WINDOW = 2 * BATCH, 128 * BATCH
#: How long a party waits for the other, ns.
SILENCE = 5_000_000_000
#: How long the floor looks at a descriptor before it sleeps, ns; on QEMU's own core looking does not help.
SPIN = 100_000
_ETHERTYPE = b"\x88\xb5"  # IEEE 802 local experimental
_BROADCAST = b"\xff" * 6
_COMMAND, _MEMORY_AND_MASTER = 4, 6
#: The floor of a card, and the BAR with its registers, by vendor and device.
_FLOORS = {
    (0x8086, 0x100E): ("FLOOR_E1000", 0),
    (0x8086, 0x1209): ("FLOOR_I8255X", 0),
    (0x8086, 0x1229): ("FLOOR_I8255X", 0),
    (0x1022, 0x2000): ("FLOOR_PCNET", 1),
}
#: Where nothing else is mapped, below 4 GiB as all kernel code is.
_CODE = 0x57F0_0000
_READ_WRITE_EXECUTE = 7
# Registers that may be read and written at any time (Intel 317453, 13.4): STATUS, and IMC, to which 0 says nothing.
_STATUS, _IMC = 0x08, 0xD8
#: f(registers, count): one access each time round, as a driver's code does it.
_LOOPS = {
    # mov eax, [rdi + STATUS]; dec rsi; jnz; ret
    "read": bytes.fromhex("8b4708 48ffce 75f8 c3"),
    # mov dword [rdi + IMC], 0; dec rsi; jnz; ret
    "write": bytes.fromhex("c787d800000000000000 48ffce 75f1 c3"),
}


@dataclass(frozen=True)
class Sample:
    """One run: frames a second, and what each frame took. ``reads`` and ``writes`` are register accesses."""

    frames_per_second: float
    reads_per_frame: float
    writes_per_frame: float
    interrupts_per_batch: float
    switches_per_batch: float


class _Side:
    """What both sides share: a QEMU with one card, the peer at its wire, the clock."""

    def __init__(self, native: Path, device: str) -> None:
        self.ffi, self.lib = load(native)
        self._device = device
        self.platform = QemuPlatform([device])
        self._stack = ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it all down."""
        self._stack.close()

    def _run(self, count: int, pinned: bool, peer: Callable[[], int], work: Callable[[], None]) -> Sample:
        """Time from the first frame offered until the last has arrived; TimedOut when some do not."""
        place(os.getpid(), pinned)
        place(self.platform.pid, pinned)
        done: list[int] = []

        def run() -> None:
            place_peer(pinned)
            ready.set()
            done.append(peer())

        ready, thread = threading.Event(), threading.Thread(target=run, name="peer")
        before, switches = self._counters(), _switches()
        thread.start()
        ready.wait()
        began = perf_counter()
        work()
        thread.join()
        seconds = perf_counter() - began
        if done != [count]:
            raise TimedOut(f"the peer saw {done} of {count} frames", where=type(self).__name__)
        reads, writes, interrupts = (now - then for now, then in zip(self._counters(), before, strict=True))
        batches = count / BATCH
        return Sample(
            count / seconds,
            reads / count,
            writes / count,
            interrupts / batches,
            (_switches() - switches) / batches,
        )

    def _counters(self) -> tuple[int, int, int]:
        """Register reads, register writes and interrupts so far."""
        raise NotImplementedError

    def _sink(self, count: int) -> tuple[Callable[[], int], Any]:
        wire = self.platform.wires[0].socket.fileno()
        credit = self.ffi.new("struct wire_credit *")
        return lambda: int(self.lib.wire_sink(wire, count, credit, SILENCE)), credit

    def _source(self, frame: bytes, count: int) -> tuple[Callable[[], int], Any]:
        wire = self.platform.wires[0].socket.fileno()
        credit = self.ffi.new("struct wire_credit *")
        return (
            lambda: int(self.lib.wire_source(wire, frame, len(frame), count, RX_WINDOW, credit, SILENCE)),
            credit,
        )


class FloorSide(_Side):
    """The card's rings, driven by floor.c."""

    def __enter__(self) -> FloorSide:
        """Start QEMU and set up the rings."""
        self.memory = self._stack.enter_context(MachineMemory(64 << 20))
        self._stack.callback(self.platform.stop)
        self.platform.start(self.memory)
        functions = {(found.vendor, found.device): found for found in scan(self.platform)}
        known = [ids for ids in _FLOORS if ids in functions]
        if not known:
            raise UsageError(
                "there is no floor for this card",
                where=self._device,
                remedy="name an e1000, an 8255x or a PCnet",
            )
        card, (kind, bar) = functions[known[0]], _FLOORS[known[0]]
        registers = card.bar(bar)
        assert registers is not None
        self.platform.config_write(card.address, _COMMAND, 2, _MEMORY_AND_MASTER)
        self.platform.config_read(card.address, _COMMAND, 2)  # from here on no reply is under way
        self.handle = self.lib.floor_open(
            getattr(self.lib, kind),
            self.platform.bus.fd,
            self.ffi.cast("char *", self.memory.base),
            RESERVED,
            registers.address,
        )
        if self.handle == self.ffi.NULL:
            raise VmkError("the floor cannot reach the card's registers")
        self._stack.callback(self.lib.floor_close, self.handle)
        return self

    def _counters(self) -> tuple[int, int, int]:
        return int(self.lib.floor_reads(self.handle)), int(self.lib.floor_writes(self.handle)), 0

    def tx(self, count: int, size: int, pinned: bool) -> Sample:
        """Send frames of ``size`` bytes; the sample of it."""
        frame, (sink, credit) = _frame(_BROADCAST, size), self._sink(count)
        spin = 0 if pinned else SPIN

        def work() -> None:
            sent = self.lib.floor_transmit(self.handle, frame, size, count, TX_WINDOW, credit, spin, SILENCE)
            _all("sent", sent, count)

        return self._run(count, pinned, sink, work)

    def rx(self, count: int, size: int, pinned: bool) -> Sample:
        """Receive frames of ``size`` bytes; the sample of it."""
        source, credit = self._source(_frame(_BROADCAST, size), count)

        def work() -> None:
            _all("received", self.lib.floor_receive(self.handle, count, credit, SILENCE), count)

        return self._run(count, pinned, source, work)


class UplinkSide(_Side):
    """The same card through a driver and an Uplink, as a program uses it."""

    def __init__(self, native: Path, kernel: str | None, device: str, engine: EngineName = "linux") -> None:
        super().__init__(native, device)
        self._release = kernel
        self._engine: EngineName = engine

    def __enter__(self) -> UplinkSide:
        """Boot, open the uplink, wait until frames arrive."""
        self.host = self._stack.enter_context(
            VMkernel(self.platform, kernel=self._release, engine=self._engine)
        )
        self.uplink = self.host.uplinks["vmnic0"]
        rings = self.uplink.rings
        if rings.rx <= RX_WINDOW:  # more may be under way than it holds
            self.uplink.rings = replace(rings, rx=min(2 * RX_WINDOW, rings.rx_max))
        self._stack.enter_context(self.uplink)
        self.uplink.wait_link()
        self._address: PciAddress = next(
            a for a in self.host.adapters if a.uplink is self.uplink
        ).function.address
        self._first_frame()
        return self

    def modules(self) -> list[str]:
        """The Linux modules that drive the card, in the order of loading."""
        return list(self.host.loader.modules)

    def engine(self) -> EngineName:
        """What drives the card: drivers in Python know only some."""
        return next(adapter.engine for adapter in self.host.adapters if adapter.uplink is self.uplink)

    def _first_frame(self) -> None:
        """QEMU drops what it is sent in the first second after the card was opened: send until one arrives."""
        wire = self.platform.wires[0].socket
        for _ in range(100):
            wire.send(_frame(_BROADCAST, 64))
            if self.uplink.wait(rx=True, timeout=0.1):
                break
        else:
            raise TimedOut("no frame arrived in 10 s", where=self.uplink.name)
        while self.uplink.wait(rx=True, timeout=0.2):
            self.uplink.receive(BATCH)

    def access(self, count: int, pinned: bool) -> dict[str, float]:
        """ns for a register access: read or (posted) write, as trapped ``mov`` or as a call of the bus."""
        place(os.getpid(), pinned)
        place(self.platform.pid, pinned)
        bar = next(a for a in self.host.adapters if a.uplink is self.uplink).function.bar(0)
        assert bar is not None
        bus, registers = (
            self.platform.bus.handle,
            lib.vmk_window_open(self.platform.bus.handle, bar.address, bar.size),
        )
        self.host.linux.map_at(_CODE, 4096, _READ_WRITE_EXECUTE)
        costs = {}
        for kind, code in _LOOPS.items():
            store_bytes(_CODE, code)
            costs[f"{kind}, trapped"] = _each(count, lambda: self.host.linux.call(_CODE, registers, count))
            self.platform.bus.read(Space.MEMORY, bar.address + _STATUS, 4)  # what was posted is done
        costs["read, bus"] = _each(
            count,
            lambda: [lib.vmk_bus_read(bus, Space.MEMORY, bar.address + _STATUS, 4) for _ in range(count)],
        )
        costs["write, bus"] = _each(
            count,
            lambda: [lib.vmk_bus_write(bus, Space.MEMORY, bar.address + _IMC, 4, 0) for _ in range(count)],
        )
        self.platform.bus.read(Space.MEMORY, bar.address + _STATUS, 4)
        self.host.linux.unmap(_CODE)
        lib.vmk_window_close(registers)
        return costs

    def _counters(self) -> tuple[int, int, int]:
        line = ffi.new("struct vmk_irq_stats *")
        lib.vmk_irq_stats(self.platform.interrupt_line(self._address, 1), line)
        if self._engine == "native":  # its drivers call the bus, which counts reads and writes together
            return 0, int(lib.vmk_bus_accesses()), int(line.delivered)
        traps = trap_stats()
        return traps.reads, traps.writes, int(line.delivered)

    def tx(self, count: int, size: int, pinned: bool) -> Sample:
        """Send frames of ``size`` bytes; the sample of it."""
        batch, (sink, credit) = [_frame(_BROADCAST, size)] * BATCH, self._sink(count)

        def work() -> None:
            for sent in range(BATCH, count + BATCH, BATCH):
                if sent - credit.received > TX_WINDOW:
                    self.lib.wire_wait(credit, sent - TX_WINDOW, SILENCE)
                self.uplink.transmit_all(batch)

        return self._run(count, pinned, sink, work)

    def rx(self, count: int, size: int, pinned: bool) -> Sample:
        """Receive frames of ``size`` bytes; the sample of it."""
        source, credit = self._source(_frame(_BROADCAST, size), count)

        def work() -> None:
            left = count
            while left and self.uplink.wait(rx=True, timeout=SILENCE / 1e9):
                while frames := self.uplink.receive(BATCH):
                    left -= len(frames)
                    self.lib.wire_credit(credit, len(frames))
            _all("received", count - left, count)

        return self._run(count, pinned, source, work)


def _frame(to: bytes, size: int) -> bytes:
    return (to + b"\x02\0\0\0\0\x01" + _ETHERTYPE).ljust(size, b"\xa5")


def _each(count: int, work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return (perf_counter() - began) / count * 1e9


def _all(what: str, done: int, count: int) -> None:
    if done != count:
        raise TimedOut(f"only {done} of {count} frames were {what}")


def _switches() -> int:
    """Voluntary context switches of this process: how often one of its threads went to sleep."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
