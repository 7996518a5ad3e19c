"""An I/O controller (IOC) of the Fusion-MPT family: brought up, reset, watched; how messages get there and back.

The states, the doorbell's handshake, the queues and the resets are those of the MPI specification 1.5 (FreeBSD's
sys/dev/mpt has its headers, and a driver of the same chips).
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

from native_drivers.scsi.mptscsi_2xx.config_pages import ConfigPage, PageType
from native_drivers.scsi.mptscsi_2xx.messages import (
    CONFIG,
    CONFIG_REPLY,
    EVENT_ACK,
    EVENT_NOTIFY,
    EVENT_NOTIFY_REPLY,
    HEADER_VERSION,
    IOC_FACTS,
    IOC_FACTS_REPLY,
    IOC_INIT,
    IOC_INIT_REPLY,
    MPI_VERSION,
    ONLY_ELEMENT,
    PORT_ENABLE,
    PORT_ENABLE_REPLY,
    PORT_FACTS,
    PORT_FACTS_REPLY,
    REPLY_MOST,
    SCSI_TASK_MGMT,
    SCSI_TASK_MGMT_REPLY,
    ConfigAction,
    Function,
    IocStatus,
    Reply,
    Request,
)
from native_drivers.scsi.mptscsi_2xx.registers import (
    DIAGNOSTIC,
    DOORBELL,
    DOORBELL_COMMAND,
    EMPTY,
    HOST_INTERRUPT_MASK,
    HOST_INTERRUPT_STATUS,
    KEYS,
    REPLY_FIFO,
    REQUEST_FIFO,
    WRITE_SEQUENCE,
    DoorbellFunction,
    FusionRegisters,
    IocState,
    WhoInit,
)
from vmkernel_core.errors import DeviceGone, TimedOut, VmkError
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.wait import WaitQueue, wait_event_timeout
from vmklinux.scsi_policy import SENSE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vmklinux.native.dma import DmaMemory
    from vmklinux.native.pci import PciDev, Window

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)
P = TypeVar("P", bound=ConfigPage)

#: Seconds for: a word through the doorbell; a message unit reset; a reset of the chip, whose firmware starts anew; a
#: reply; the look for devices that Port Enable is.
DOORBELL_LIMIT, UNIT_RESET_LIMIT, CHIP_RESET_LIMIT, REPLY_LIMIT, PORT_ENABLE_LIMIT = (
    5.0,
    15.0,
    60.0,
    10.0,
    300.0,
)
#: Replies that one read of the FIFO asks for at most.
HARVEST_MOST = 64
#: Bytes of a configuration page that are read at most.
PAGE_MOST = 512
#: All interrupts masked; all but that of replies.
MASKED = HOST_INTERRUPT_MASK(REPLY=1, DOORBELL=1)
REPLIES_ONLY = HOST_INTERRUPT_MASK(DOORBELL=1)
#: The half of an address that is in registers and messages.
LOW = 0xFFFF_FFFF
#: Request frames' numbers, from here on, are the contexts of messages: no other value that a register reads as is one.
FIRST_CONTEXT = 0x0A5C_0000
_STATUS = {status.value: status.name for status in IocStatus}


class IocError(VmkError):
    """The IOC refused a request, or is in a state in which it takes none."""


class Use(IntEnum):
    """What requests besides commands are for: each has a request frame of its own, and one request under way at most."""

    EVENTS = 0
    ACKNOWLEDGEMENT = 1
    CONFIGURATION = 2
    TASK_MANAGEMENT = 3


@dataclass
class Pending:
    """A request of the driver's own that is on its way; ``reply`` is what came back, ``lost``: a reset took it."""

    reply: bytes | None = None
    lost: bool = False


@dataclass(frozen=True)
class Frames:
    """Memory that the IOC shares, in one piece, since it knows one upper half of all addresses: ``count`` request frames
    of ``size`` bytes, then as many reply frames, from byte ``replies`` on, and sense buffers, from byte ``sense`` on.
    """

    memory: DmaMemory
    size: int
    count: int
    replies: int
    sense: int


class Ioc:
    """One IOC. ``begin`` makes it work and fills ``facts``, ``port`` and ``frames``; it stops when the driver lets go of
    the device.

    From the interrupt handler, ``on_ended`` gets the numbers of the frames of commands that ended well, and of others
    the number and the reply; ``on_event`` gets events. Everything needs the baton.
    """

    facts: IOC_FACTS_REPLY
    port: PORT_FACTS_REPLY
    frames: Frames

    def __init__(
        self,
        pdev: PciDev,
        window: Window,
        on_ended: Callable[[list[int], list[tuple[int, bytes]]], None],
        on_event: Callable[[EVENT_NOTIFY_REPLY], None],
    ) -> None:
        """``window``: its registers."""
        self.pdev = pdev
        self.registers = FusionRegisters(window, pdev.name)
        self._on_ended, self._on_event = on_ended, on_event
        self._in_flight = 0
        self._pending: dict[Use, Pending] = {}
        self._takes_requests = False
        self._acknowledgements: deque[EVENT_ACK] = deque()
        self._turns: set[Use] = set()
        self._changed = WaitQueue()
        self._page: DmaMemory | None = None

    # ---- bringing it up ----

    def begin(self) -> None:
        """Bring it up from whatever state it is in. IocError, RegisterTimeout, DeviceGone."""
        self.registers.write(MASKED)
        self._make_ready()
        self.facts = self.handshake(IOC_FACTS(), IOC_FACTS_REPLY)
        if self._page is None:
            self._share_memory()
            self.pdev.devres.add(self.end)
        self._start()

    def _share_memory(self) -> None:
        size, count = (
            self.facts.RequestFrameSize * 4,
            min(self.facts.GlobalCredits, self.facts.ReplyQueueDepth),
        )
        if size < SCSI_TASK_MGMT.size or count <= 2 * len(Use):
            raise IocError(f"{count} frames of {size} bytes are too few to work with", where=self.pdev.name)
        replies = -(-count * size // REPLY_MOST) * REPLY_MOST
        sense = replies + count * REPLY_MOST
        memory = dma_alloc_coherent(self.pdev, sense + count * SENSE_SIZE)
        self.frames = Frames(memory, size, count, replies, sense)
        self._page = dma_alloc_coherent(self.pdev, PAGE_MOST)

    def _start(self) -> None:
        """From READY to OPERATIONAL: frames are posted, the port looks for devices, events are told of."""
        frames = self.frames
        self.handshake(
            IOC_INIT(
                WhoInit=WhoInit.HOST_DRIVER,
                MaxDevices=self.facts.MaxDevices,
                MaxBuses=self.facts.MaxBuses,
                ReplyFrameSize=REPLY_MOST,
                HostMfaHighAddr=frames.memory.dma >> 32,
                SenseBufferHighAddr=frames.memory.dma >> 32,
                MsgVersion=MPI_VERSION,
                HeaderVersion=HEADER_VERSION,
            ),
            IOC_INIT_REPLY,
        )
        self.registers.wait(DOORBELL, DOORBELL_LIMIT, STATE=IocState.OPERATIONAL)
        first = (frames.memory.dma & LOW) + frames.replies
        self.registers.post(REPLY_FIFO, range(first, first + frames.count * REPLY_MOST, REPLY_MOST))
        self.port = self.handshake(PORT_FACTS(), PORT_FACTS_REPLY)
        self.handshake(PORT_ENABLE(), PORT_ENABLE_REPLY, PORT_ENABLE_LIMIT)
        self.registers.write(REPLIES_ONLY)
        self._takes_requests = True
        self._send(Use.EVENTS, EVENT_NOTIFY(Switch=1))

    @property
    def most(self) -> int:
        """How many commands it takes at once: the first request frames are theirs."""
        return self.frames.count - len(Use)

    def end(self) -> None:
        """Have it forget everything, and touch memory no more. What does not answer is left as it is."""
        if self.pdev.gone:
            self.forget()
            return
        self.registers.write(MASKED)
        self._takes_requests = False
        try:
            self._make_ready()
        except VmkError as error:
            log.warning("%s", error)
        self.forget()

    def restart(self) -> None:
        """Reset it, as gently as its state allows, and bring it up again: it has no commands then."""
        self.registers.write(MASKED)
        self.forget()
        self._make_ready(always=True)
        self.begin()

    def forget(self) -> None:
        """Nothing that it was asked is answered any more; who waits for that is told (IocError)."""
        self._takes_requests = False
        for pending in self._pending.values():
            pending.lost = True
        self._pending.clear()
        self._acknowledgements.clear()
        self._in_flight = 0
        self._changed.wake_up()

    # ---- states and resets ----

    def state(self) -> DOORBELL:
        """What it says of itself. DeviceGone when nothing answers."""
        doorbell = self.registers.read(DOORBELL)
        if doorbell.raw == EMPTY:
            raise DeviceGone("nothing answers there", where=self.pdev.name)
        return doorbell

    def _make_ready(self, *, always: bool = False) -> None:
        """Reset it as gently as its state allows, unless it is ready already. DeviceGone, RegisterTimeout."""
        doorbell = self.state()
        if doorbell.STATE == IocState.READY and not (doorbell.USED or always):
            return
        if doorbell.STATE in (IocState.READY, IocState.OPERATIONAL) and not doorbell.USED:
            try:
                self._reset_message_unit()
            except TimedOut as error:
                log.warning("%s; the chip is reset", error)
            else:
                return
        self._reset_chip()

    def _reset_message_unit(self) -> None:
        self.registers.write(DOORBELL_COMMAND(FUNCTION=DoorbellFunction.IOC_MESSAGE_UNIT_RESET))
        self.registers.wait(HOST_INTERRUPT_STATUS, DOORBELL_LIMIT, IOP_DOORBELL=0)
        self.registers.wait(DOORBELL, UNIT_RESET_LIMIT, STATE=IocState.READY)

    def _reset_chip(self) -> None:
        registers = self.registers
        for key in KEYS:
            registers.write(WRITE_SEQUENCE(KEY=key))
        diagnostic = registers.wait(DIAGNOSTIC, DOORBELL_LIMIT, DRWE=1)
        registers.write(diagnostic.replace(RESET_ADAPTER=1))
        registers.wait(DIAGNOSTIC, CHIP_RESET_LIMIT, RESET_ADAPTER=0)
        registers.wait(DOORBELL, CHIP_RESET_LIMIT, STATE=IocState.READY)
        registers.write(WRITE_SEQUENCE(KEY=KEYS[0]))

    # ---- messages through the doorbell ----

    def handshake(self, request: Request, kind: type[R], seconds: float = REPLY_LIMIT) -> R:
        """Send a request word by word and fetch its reply by halves of words: all that works before IOC Init.

        IocError when the IOC refuses it, RegisterTimeout, DeviceGone.
        """
        registers, words = self.registers, memoryview(bytes(request)).cast("I")
        registers.write(HOST_INTERRUPT_STATUS())
        registers.write(DOORBELL_COMMAND(FUNCTION=DoorbellFunction.HANDSHAKE, ADD_DWORDS=len(words)))
        registers.wait(HOST_INTERRUPT_STATUS, DOORBELL_LIMIT, DOORBELL=1)
        registers.write(HOST_INTERRUPT_STATUS())
        for word in words:
            registers.wait(HOST_INTERRUPT_STATUS, DOORBELL_LIMIT, IOP_DOORBELL=0)
            registers.write(DOORBELL_COMMAND(word))
        registers.wait(HOST_INTERRUPT_STATUS, DOORBELL_LIMIT, IOP_DOORBELL=0)
        message = self._half(seconds) + self._half()
        length = 4 * Reply.of(message).MsgLength
        while len(message) < length:
            message += self._half()
        registers.wait(HOST_INTERRUPT_STATUS, DOORBELL_LIMIT, DOORBELL=1)
        registers.write(HOST_INTERRUPT_STATUS())
        return self._accepted(request, kind.of(message))

    def _half(self, seconds: float = DOORBELL_LIMIT) -> bytes:
        self.registers.wait(HOST_INTERRUPT_STATUS, seconds, DOORBELL=1)
        half = self.registers.read(DOORBELL).DATA
        self.registers.write(HOST_INTERRUPT_STATUS())
        return half.to_bytes(2, "little")

    def _accepted(self, request: Request, reply: R) -> R:
        if reply.IOCStatus != IocStatus.SUCCESS:
            word = _STATUS.get(reply.IOCStatus, "an unknown status")
            raise IocError(
                f"{type(request).__name__} ended with {word} ({reply.IOCStatus:#x})", where=self.pdev.name
            )
        return reply

    # ---- messages through the queues ----

    @contextmanager
    def _turn(self, use: Use, seconds: float) -> Iterator[None]:
        """One world at a time sends requests of a kind, and none while one that was given up has no reply. TimedOut."""
        free = wait_event_timeout(self._changed, lambda: use not in self._turns, seconds)
        if not free or use in self._pending:
            raise TimedOut(f"an earlier request for {use.name.lower()} has not ended", where=self.pdev.name)
        self._turns.add(use)
        try:
            yield
        finally:
            self._turns.remove(use)
            self._changed.wake_up()

    def _ask(self, use: Use, request: Request, kind: type[R], seconds: float) -> R:
        if not self._takes_requests:
            raise IocError(
                f"{type(request).__name__} has nobody to answer it: the IOC is stopped", where=self.pdev.name
            )
        pending = self._send(use, request)
        wait_event_timeout(self._changed, lambda: pending.reply is not None or pending.lost, seconds)
        if pending.reply is not None:
            return kind.of(pending.reply)
        what = type(request).__name__
        if pending.lost:
            raise IocError(f"a reset took {what}", where=self.pdev.name)
        raise TimedOut(f"no reply to {what} came within {seconds:g} s", where=self.pdev.name)

    def manage(self, request: SCSI_TASK_MGMT, seconds: float = REPLY_LIMIT) -> SCSI_TASK_MGMT_REPLY:
        """Have commands ended, and wait for that; not in an interrupt handler. TimedOut; IocError."""
        with self._turn(Use.TASK_MANAGEMENT, seconds):
            return self._accepted(
                request, self._ask(Use.TASK_MANAGEMENT, request, SCSI_TASK_MGMT_REPLY, seconds)
            )

    def _send(self, use: Use, request: Request) -> Pending:
        """Send a request of the driver's own."""
        frames = self.frames
        number = self.most + use
        request.MsgContext = FIRST_CONTEXT + number
        frames.memory.view[number * frames.size :][: request.size] = bytes(request)
        pending = self._pending[use] = Pending()
        self._post([number])
        return pending

    def start(self, numbers: Sequence[int]) -> None:
        """Have the IOC take the commands that lie in the request frames with these numbers."""
        self._in_flight += len(numbers)
        self._post(numbers)

    def _post(self, numbers: Sequence[int]) -> None:
        first, size = self.frames.memory.dma & LOW, self.frames.size
        self.registers.post(REQUEST_FIFO, [first + number * size for number in numbers])

    def interrupt(self) -> bool:
        """Take in all replies; whether there were any. It ends with a read that finds none, which lowers the pin."""
        came, last = False, 0
        while last != EMPTY:
            there_may_be = self._in_flight + len(self._pending)
            replies = self.registers.replies(max(1, min(there_may_be + 1, HARVEST_MOST)))
            last = replies[-1]
            # Some may come between two reads of a batch, behind one that found none.
            if there := [reply for reply in replies if reply != EMPTY]:
                came = True
                self._take(there)
        return came

    def _take(self, replies: list[int]) -> None:
        failed: list[tuple[int, bytes]] = []
        if max(replies) >= REPLY_FIFO.ADDRESS_REPLY.mask:
            failed = self._fetch(
                [reply << 1 & LOW for reply in replies if reply & REPLY_FIFO.ADDRESS_REPLY.mask]
            )
            replies = [reply for reply in replies if not reply & REPLY_FIFO.ADDRESS_REPLY.mask]
        if replies and not FIRST_CONTEXT <= min(replies) <= max(replies) < FIRST_CONTEXT + self.most:
            raise DeviceGone(
                "its replies are none", where=self.pdev.name
            )  # QEMU answers 0 where no device is
        if replies or failed:
            self._in_flight -= len(replies) + len(failed)
            self._on_ended([reply - FIRST_CONTEXT for reply in replies], failed)

    def _fetch(self, addresses: list[int]) -> list[tuple[int, bytes]]:
        """Deal with the reply frames at these addresses, and give them back; those of commands, with their numbers."""
        frames, commands = self.frames, []
        for address in addresses:
            at = address - (frames.memory.dma & LOW)
            if not frames.replies <= at < frames.sense:
                raise IocError(f"a reply at {address:#x}, where no frame is", where=self.pdev.name)
            message = bytes(frames.memory.view[at : at + REPLY_MOST])
            header = Reply.of(message)
            number = header.MsgContext - FIRST_CONTEXT
            of_command = header.Function == Function.SCSI_IO_REQUEST
            if number not in (range(self.most) if of_command else range(self.most, frames.count)):
                raise IocError(f"a reply to nothing that was asked: {header}", where=self.pdev.name)
            if of_command:
                commands.append((number, message))
            elif header.Function == Function.EVENT_NOTIFICATION:
                self._event(EVENT_NOTIFY_REPLY.of(message))
            else:
                self._replied(Use(number - self.most), message)
        self.registers.post(REPLY_FIFO, addresses)
        return commands

    def _replied(self, use: Use, message: bytes) -> None:
        if pending := self._pending.pop(use, None):
            pending.reply = message
        if use is Use.ACKNOWLEDGEMENT and self._acknowledgements:
            self._send(use, self._acknowledgements.popleft())
        self._changed.wake_up()

    def _event(self, event: EVENT_NOTIFY_REPLY) -> None:
        self._pending.pop(Use.EVENTS, None)  # answered; more replies to it come as things happen
        if event.AckRequired:
            acknowledgement = EVENT_ACK(Event=event.Event, EventContext=event.EventContext)
            if Use.ACKNOWLEDGEMENT in self._pending:
                self._acknowledgements.append(acknowledgement)
            else:
                self._send(Use.ACKNOWLEDGEMENT, acknowledgement)
        self._on_event(event)

    # ---- configuration pages ----

    def page(self, kind: type[P], address: int = 0) -> P | None:
        """Read a configuration page as it is now; None when there is none at the address.

        Not in an interrupt handler. TimedOut, IocError.
        """
        with self._turn(Use.CONFIGURATION, REPLY_LIMIT):
            header = CONFIG(
                Action=ConfigAction.PAGE_HEADER,
                PageType=kind.page_type,
                ExtPageType=kind.ext_page_type,
                PageNumber=kind.number,
                PageAddress=address,
            )
            found = self._configuration(header)
            if found is None or self._page is None:
                return None
            words = found.ExtPageLength if kind.page_type is PageType.EXTENDED else found.PageLength
            length = min(4 * words, PAGE_MOST)
            header.set(
                Action=ConfigAction.PAGE_READ_CURRENT,
                PageType=found.PageType,
                PageVersion=found.PageVersion,
                PageLength=found.PageLength,
                ExtPageLength=found.ExtPageLength,
                FlagsLength=ONLY_ELEMENT | length,
                BufferAddress=self._page.dma,
            )
            if self._configuration(header) is None:
                return None
            return kind.of(bytes(self._page.view[:length]))

    def _configuration(self, request: CONFIG) -> CONFIG_REPLY | None:
        reply = self._ask(Use.CONFIGURATION, request, CONFIG_REPLY, REPLY_LIMIT)
        if reply.IOCStatus == IocStatus.CONFIG_INVALID_PAGE:
            return None
        return self._accepted(request, reply)
