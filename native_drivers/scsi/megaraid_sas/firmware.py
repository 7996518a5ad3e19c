"""The firmware: its states, its reply queue, and commands for itself, which are waited for.

Order of things as FreeBSD's mfi(4) and OpenBSD's mfi(4) have it: to READY, INIT frame, interrupts, then direct commands.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

from native_drivers.scsi.megaraid_sas.frames import (
    FRAME_MOST,
    PIECE,
    SENSE,
    AbortFrame,
    Cmd,
    DcmdFrame,
    Flag,
    Header,
    InitFrame,
    InitQinfo,
    Stat,
)
from native_drivers.scsi.megaraid_sas.registers import DIAG, IDB, IQP, ODCR0, OMSK, OSP0, OSTS, SEQ, SEQ_KEY
from vmkernel_core._core import lib
from vmkernel_core.errors import DeviceGone, NotSupported, TimedOut, VmkError
from vmkernel_core.memory import OutOfMachineMemory
from vmklinux.native.descriptor import Table
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.register import Registers
from vmklinux.native.timer import msleep
from vmklinux.native.wait import WaitQueue, wait_event_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from native_drivers.scsi.megaraid_sas.frames import Dcmd
    from vmklinux.native.pci import PciDev, Window

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Header)

#: Frames that are kept for the driver's own commands, and bytes of data that one of them may have.
OWN, OWN_DATA = 8, 8192
#: Seconds that the firmware has for a direct command (mfi(4) gives it as long), and for INIT.
DCMD_TIME, INIT_TIME = 180.0, 60.0
#: Milliseconds between looks at the state of the firmware; seconds between looks whether the controller is there.
_LOOK, _GONE_LOOK = 1.0, 0.5
_ONES = (1 << 32) - 1


class State(IntEnum):
    """OSP0.STATE."""

    UNDEFINED = 0x0
    BB_INIT = 0x1
    FW_INIT = 0x4
    WAIT_HANDSHAKE = 0x6
    FW_INIT_2 = 0x7
    DEVICE_SCAN = 0x8
    BOOT_MESSAGE_PENDING = 0x9
    FLUSH_CACHE = 0xA
    READY = 0xB
    OPERATIONAL = 0xC
    FAULT = 0xF


#: What brings the firmware from a state on, and the seconds that it has until it is in another one.
_ON: dict[int, tuple[IDB | None, float]] = {
    State.UNDEFINED: (None, 2.0),
    State.BB_INIT: (None, 2.0),
    State.FW_INIT: (None, 20.0),
    State.WAIT_HANDSHAKE: (IDB(CLEAR_HANDSHAKE=1, HOTPLUG=1), 2.0),
    State.FW_INIT_2: (None, 20.0),
    State.DEVICE_SCAN: (None, 180.0),
    State.BOOT_MESSAGE_PENDING: (IDB(HOTPLUG=1), 180.0),
    State.FLUSH_CACHE: (None, 20.0),
    State.OPERATIONAL: (IDB(ABORT=1, READY=1, MFIMODE=1), 10.0),
}
#: Seconds until it is READY, whatever states it goes through.
READY_TIME = sum(seconds for _, seconds in _ON.values())


class MfiError(VmkError):
    """The firmware did not do what it was asked; ``stat`` is what it said."""

    def __init__(self, what: str, stat: int, *, where: str) -> None:
        word = Stat(stat).name.lower().replace("_", " ") if stat in set(Stat) else f"status {stat:#x}"
        super().__init__(f"{what}: {word}", where=where)
        self.stat = stat


@dataclass(frozen=True, slots=True)
class Chip:
    """A generation of controllers: the BAR of its registers, how it tells of replies and of another state, and what
    masks that; whether DIAG resets it.
    """

    name: str
    bar: int
    reply: OSTS
    doorbell: OSTS
    unmasked: OMSK
    adapter_reset: bool


SAS1078 = Chip(
    "SAS1078", 0, OSTS(REPLY_1078=1), OSTS(), OMSK(_ONES).replace(REPLY_1078=0), adapter_reset=False
)
GEN2 = Chip(
    "SAS GEN2", 1, OSTS(GEN2_REPLY=1), OSTS(GEN2_DOORBELL=1),
    OMSK(_ONES).replace(GEN2_REPLY=0, GEN2_DOORBELL=0), adapter_reset=True,
)  # fmt: skip


class Firmware:
    """One controller's. ``frames`` it takes at once, of which ``commands`` are the mid-layer's (slots 0 and up), the
    others the driver's own; ``segments`` of a frame; ``has_messages``: it can interrupt by MSI-X. ``rang``: it has told
    of another state, until somebody looks.

    A frame lies in its slot of the table, FRAME_MOST bytes; its ``context`` is the slot's number.
    """

    def __init__(self, pdev: PciDev, window: Window, chip: Chip) -> None:
        """Bring it to READY and make room for frames and replies. TimedOut, MfiError, DeviceGone, OutOfMachineMemory."""
        self.pdev, self.window, self.chip = pdev, window, chip
        self.registers = Registers(window, f"{chip.name} at {pdev.name}")
        self.to_ready()
        pad = self.registers.read(OSP0)
        self.frames = pad.MAXCMD
        self.commands = pad.MAXCMD - 1 - OWN  # the reply queue is never full
        self.segments = pad.MAXSGL
        if self.commands < 1 or not self.segments:
            raise MfiError(
                f"{self.frames} frames of {self.segments} segments are too few",
                Stat.PENDING, where=self.registers.name,
            )  # fmt: skip
        self.has_messages = bool(pad.MSIX)
        self.memory = dma_alloc_coherent(pdev, self.frames * FRAME_MOST)
        if self.memory.dma + self.memory.length > 1 << 32:  # IQP has no room for more
            raise OutOfMachineMemory(
                "no room for frames below 4 GiB", where=pdev.name, remedy="give the machine less memory"
            )
        self.table = Table(Header, self.memory, self.frames, stride=FRAME_MOST)
        self.sense = dma_alloc_coherent(pdev, self.frames * SENSE)
        self._data = dma_alloc_coherent(pdev, OWN * OWN_DATA)
        queue = dma_alloc_coherent(pdev, self.frames * 4 + 64)
        self._queue = queue.view[: self.frames * 4].cast("I")
        self._indices = queue.view[self.frames * 4 : self.frames * 4 + 8].cast(
            "I"
        )  # the producer's, the consumer's
        self._info = dma_alloc_coherent(pdev, InitQinfo.size)
        entries = queue.dma
        InitQinfo.at(self._info.view).set(
            rq_entries=self.frames, rq_addr=entries, pi_addr=entries + self.frames * 4,
            ci_addr=entries + self.frames * 4 + 4,
        )  # fmt: skip
        self.rang = False
        self._own: list[int] = []
        self._pending: set[int] = set()
        self._given_up: set[int] = set()
        self._resets = 0
        self._changed = WaitQueue()
        pdev.devres.add(self._release)

    def _release(self) -> None:
        self._queue.release()
        self._indices.release()

    # ---- states ----

    @property
    def state(self) -> int:
        """OSP0.STATE."""
        return self.registers.read(OSP0).STATE

    @property
    def faulty(self) -> bool:
        """Whether it is there, and has stopped."""
        pad = self.registers.read(OSP0)
        return pad.raw != _ONES and pad.STATE == State.FAULT

    def to_ready(self) -> None:
        """Bring it to READY from wherever it is. TimedOut, MfiError (a fault), DeviceGone."""
        limit = lib.vmk_now() + int(READY_TIME * 1e9)
        while (state := self.state) != State.READY:
            if self.window.gone:
                raise DeviceGone("nothing answers there", where=self.registers.name)
            if state not in _ON:
                raise MfiError(
                    f"the firmware is in state {state:#x}", Stat.PENDING, where=self.registers.name
                )
            said, seconds = _ON[state]
            if said is not None:
                self.mask()
                self.registers.write(said)
            deadline = min(lib.vmk_now() + int(seconds * 1e9), limit)
            while self.state == state:
                if lib.vmk_now() > deadline:
                    raise TimedOut(
                        f"the firmware stays in state {State(state).name}", where=self.registers.name
                    )
                msleep(_LOOK)
            if lib.vmk_now() > limit:
                raise TimedOut("the firmware does not become ready", where=self.registers.name)

    def start(self) -> None:
        """From READY to OPERATIONAL: give it the reply queue and let it interrupt. TimedOut, MfiError."""
        self._indices[0] = self._indices[1] = 0
        slot = self.commands  # nobody has a frame of the driver's own before it works
        frame = self.frame(slot, InitFrame, Cmd.INIT, Flag.DONT_POST)
        frame.set(data_len=InitQinfo.size, qinfo=self._info.dma)
        self.post([self.handle(slot, PIECE)])
        deadline = lib.vmk_now() + int(INIT_TIME * 1e9)
        while frame.cmd_status == Stat.PENDING:
            if lib.vmk_now() > deadline or self.window.gone:
                raise TimedOut("the firmware does not answer INIT", where=self.registers.name)
            msleep(_LOOK)
        if frame.cmd_status:
            raise MfiError("INIT", frame.cmd_status, where=self.registers.name)
        self.registers.write(ODCR0(_ONES))
        self.registers.write(self.chip.unmasked)
        self.window.flush()
        self._own = list(range(self.commands, self.commands + OWN))
        self._changed.wake_up()

    def mask(self) -> None:
        """No interrupts."""
        self.registers.write(OMSK(_ONES))
        self.window.flush()

    def reset_adapter(self) -> None:
        """Reset the adapter itself, which a fault of the firmware needs. NotSupported, TimedOut."""
        if not self.chip.adapter_reset:
            raise NotSupported(f"a {self.chip.name} cannot be reset from outside", where=self.registers.name)
        for word in SEQ_KEY:
            self.registers.write(SEQ(WORD=word))
        self.registers.wait(DIAG, 10.0, WRITE_ENABLE=1)
        self.registers.write(self.registers.read(DIAG).replace(RESET_ADP=1))
        self.registers.wait(DIAG, 30.0, RESET_ADP=0)

    # ---- frames ----

    def frame(self, slot: int, kind: type[F], cmd: Cmd, flags: int = 0) -> F:
        """An empty frame of a kind in a slot."""
        at = slot * FRAME_MOST
        self.memory.view[at : at + PIECE] = bytes(PIECE)
        frame = kind.at(self.memory.view, at)
        frame.set(frame_cmd=cmd, cmd_status=Stat.PENDING, context=slot, flags=flags)
        return frame

    def handle(self, slot: int, length: int) -> int:
        """What the inbound queue port is told of the frame in a slot, ``length`` bytes with its scatter list."""
        return self.memory.dma + slot * FRAME_MOST | (length - 1) // PIECE << 1 | 1

    def post(self, handles: Sequence[int]) -> None:
        """Hand over frames."""
        with self.window.corked():
            self.window.write_rep(IQP.offset, 4, handles)

    def replies(self) -> Sequence[int] | None:
        """Acknowledge the interrupt and fetch the contexts that the firmware is done with; None: it did not ask."""
        asked = self.chip.reply.raw
        if self._indices[0] == self._indices[1]:  # then only a register tells
            raw = self.window.read(OSTS.offset, 4)
            asked = raw & (self.chip.reply.raw | self.chip.doorbell.raw)
            if raw == _ONES or not asked:
                return None
            self.rang = self.rang or bool(raw & self.chip.doorbell.raw)
        # What comes after this interrupts again, so it has to be there before the queue is looked at.
        self.window.write(ODCR0.offset, 4, asked)
        self.window.flush()
        producer, consumer = self._indices
        if producer >= self.frames:  # the device writes nonsense
            raise MfiError(f"a reply index of {producer}", Stat.PENDING, where=self.registers.name)
        queue = self._queue
        if producer >= consumer:
            found = queue[consumer:producer].tolist()
        else:
            found = queue[consumer:].tolist() + queue[:producer].tolist()
        self._indices[1] = producer
        return found

    # ---- commands of the driver's own ----

    def answered(self, slot: int) -> bool:
        """A reply is for a frame of the driver's own; whether somebody waits for it."""
        if slot not in self._pending:
            return False
        self._pending.discard(slot)
        if slot in self._given_up:
            self._given_up.discard(slot)
            self._own.append(slot)
        self._changed.wake_up()
        return True

    def give_up(self, slot: int) -> None:
        """Nobody waits for a frame any more: its slot is free when the firmware has let go of it."""
        self._given_up.add(slot)

    def wake(self) -> None:
        """The hardware has gone, or is reset: what is waited for will not come, and nothing is sent until it works."""
        self._resets += 1
        self._pending.clear()
        self._given_up.clear()
        self._own.clear()
        self._changed.wake_up()

    def _until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait; VmkError when a reset comes between, DeviceGone, TimedOut."""
        resets, deadline = self._resets, lib.vmk_now() + int(seconds * 1e9)
        while True:
            if resets != self._resets:
                raise VmkError(f"{what} was forgotten in a reset", where=self.registers.name)
            if condition():
                return
            if self.window.gone:
                raise DeviceGone("the controller has gone", where=self.registers.name)
            left = (deadline - lib.vmk_now()) / 1e9
            if left <= 0 or lib.vmk_world_ending():
                raise TimedOut(f"{what} has not ended after {seconds:g} s", where=self.registers.name)
            wait_event_timeout(
                self._changed, lambda: condition() or resets != self._resets, min(left, _GONE_LOOK)
            )

    def _take(self, what: str, seconds: float) -> int:
        self._until(lambda: bool(self._own), f"what is before {what}", seconds)
        return self._own.pop()

    def dcmd(self, opcode: Dcmd, length: int = 0, mbox: bytes = b"", *, timeout: float = DCMD_TIME) -> bytes:
        """Have a direct command done; the ``length`` bytes that it fetches. In a world that may sleep.

        MfiError when the firmware says no, TimedOut, DeviceGone.
        """
        slot = self._take(opcode.name, timeout)
        self._dcmd(slot, opcode, length, mbox)
        self._wait(slot, opcode.name, timeout)
        return bytes(self.data(slot)[:length])

    def data(self, slot: int) -> memoryview:
        """The data of a direct command."""
        at = (slot - self.commands) * OWN_DATA
        return self._data.view[at : at + OWN_DATA]

    def _dcmd(self, slot: int, opcode: Dcmd, length: int, mbox: bytes) -> None:
        flags = Flag.SGL64 | Flag.DIR_READ if length else Flag(0)
        frame = self.frame(slot, DcmdFrame, Cmd.DCMD, flags)
        frame.set(opcode=opcode, mbox=mbox, data_len=length)
        if length:
            self.data(slot)[:length] = bytes(length)
            frame.set(sge_count=1, sg_addr=self._data.dma + (slot - self.commands) * OWN_DATA, sg_len=length)
        self._pending.add(slot)
        self.post([self.handle(slot, DcmdFrame.size)])

    def start_dcmd(self, opcode: Dcmd, length: int, mbox: bytes) -> int:
        """Have a direct command done that takes as long as it takes; its slot, for which ``answered`` will ask."""
        slot = self._take(opcode.name, DCMD_TIME)
        self._dcmd(slot, opcode, length, mbox)
        return slot

    def finish(self, slot: int) -> int:
        """Its end: what the firmware said. The slot is free again."""
        self._own.append(slot)
        self._changed.wake_up()
        return self.table[slot].cmd_status

    def abort(self, slot: int, *, timeout: float = DCMD_TIME) -> None:
        """Have the firmware forget the frame in a slot; it may come back as failed. MfiError, TimedOut, DeviceGone."""
        own = self._take("ABORT", timeout)
        frame = self.frame(own, AbortFrame, Cmd.ABORT)
        frame.set(abort_context=slot, abort_addr=self.table.dma(slot))
        self._pending.add(own)
        self.post([self.handle(own, PIECE)])
        self._wait(own, "ABORT", timeout)

    def _wait(self, slot: int, what: str, timeout: float) -> None:
        try:
            self._until(lambda: slot not in self._pending, what, timeout)
        except TimedOut:
            self.give_up(slot)
            raise
        stat = self.finish(slot)
        if stat:
            raise MfiError(what, stat, where=self.registers.name)
