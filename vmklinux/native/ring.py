"""Rings of descriptors of network devices: declared once, walked in C.

A layout says which fields of a descriptor mean what; it is data, made when the driver's module is imported::

    TX = TxLayout(
        TDESC,
        address=TDESC.buffer,
        length=TDESC.length,
        last=TDESC.EOP,
        done=(TDESC.DD, 1),
        blank=TDESC(IFCS=1, RS=1),
        spare=1,
    )
    ring = TxRing(pdev, TX, slots=256)

Every slot of a ring has a descriptor and a buffer of its own; frames are copied into buffers and out of them.
Ownership of a descriptor is the last thing that is written, after all that it covers, and a batch's first frame is
handed over last: a device that polls never sees a part. Where a device is told by a register how far it may go, the
driver writes ``ring.tail`` there. Everything needs the baton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import UsageError
from vmkernel_core.memory import OutOfMachineMemory
from vmklinux.native.descriptor import Descriptor, Place, Table
from vmklinux.native.dma import dma_alloc_coherent, dma_free_coherent

if TYPE_CHECKING:
    from vmklinux.native.device import Device

#: A field and the value that it has, or is to have.
Test: TypeAlias = tuple[Place, int]
#: Buffers begin at multiples of this, and descriptors with a buffer behind them.
ALIGNMENT = 64
#: What a driver gets when it names no size: a full frame, with room to spare.
BUFFER_SIZE = 2048

D = TypeVar("D", bound=Descriptor)


class Handle(Protocol):
    """What has a C object behind it: a batch to send (``struct native_batch``), a port (``struct native_port``)."""

    @property
    def handle(self) -> Any:
        """The pointer."""


@dataclass(frozen=True, kw_only=True)
class RingLayout(Generic[D]):
    """What the descriptors of a ring mean, either way.

    ``length``: the bytes in a slot's buffer. ``negated``: lengths that the device is told are two's complements.
    ``done``: the device has done with the descriptor. ``address``: where the buffer lies; without it, it lies behind
    the descriptor. ``link``: where the next descriptor lies, for devices that go along a list. ``first`` and ``last``
    mark the ends of a frame that lies in several buffers; without ``last`` every frame lies in one. ``own``: makes
    the device a descriptor's owner, in a word of its own that is stored whole. ``stop``: the device goes no further;
    kept in the last descriptor that is for it, set there before it is cleared where it was; needs a ``spare`` slot to
    send. ``tagged`` and ``tag``: there is a VLAN tag to put in, or that was taken out, and its control word.
    ``blank``: everything else of a descriptor, as the device gets it. ``spare``: slots that the device never has, 1
    where it would take a full ring for an empty one.
    """

    descriptor: type[D] = field(kw_only=False)
    length: Place
    done: Test
    negated: bool = False
    address: Place | None = None
    link: Place | None = None
    first: Place | None = None
    last: Place | None = None
    own: Test | None = None
    stop: Place | None = None
    tagged: Place | None = None
    tag: Place | None = None
    blank: D | None = None
    spare: int = 0


@dataclass(frozen=True, kw_only=True)
class TxLayout(RingLayout[D]):
    """A ring of frames to send. ``least``: the bytes that shorter frames are filled up to, with zeros."""

    least: int = 0


@dataclass(frozen=True, kw_only=True)
class RxLayout(RingLayout[D]):
    """A ring of buffers for frames that come in.

    ``capacity``: told the size of the buffer. ``whole``: the last descriptor's length is that of the whole frame.
    ``trailer``: bytes at its end that are no part of it. ``bad``: any of these in the last descriptor has the frame
    dropped and counted. ``good``: when all of these hold there, the frame's TCP or UDP checksum is right.
    """

    capacity: Place | None = None
    whole: bool = False
    trailer: int = 0
    bad: tuple[Test, ...] = ()
    good: tuple[Test, ...] = ()


def _place(found: Place | None) -> tuple[int, ...]:
    return found.for_c() if found else (0, 0, 0, 0, 0)


def _test(test: Test | None) -> tuple[tuple[int, ...], int]:
    return (_place(test[0]), test[1]) if test else (_place(None), 0)


def _check(device: Device, layout: RingLayout[Any], slots: int, buffer_size: int) -> None:
    """UsageError, FieldError for what C, which does not look again, must not get."""
    size, sends = layout.descriptor.size, isinstance(layout, TxLayout)
    stops = layout.stop and not layout.spare and sends
    if slots <= layout.spare + 1 or buffer_size < ALIGNMENT or size > lib.NATIVE_RING_BLANK or stops:
        raise UsageError(f"{slots} slots of {buffer_size} bytes are no ring", where=device.name)
    values = [getattr(layout, one.name) for one in fields(layout)]
    tests = [value for value in values if isinstance(value, tuple)]
    for place in (*values, *(part for test in tests for part in _parts(test))):
        if isinstance(place, Place):
            place.check(size)
    for word in (layout.own and layout.own[0], layout.stop):
        if word and word.offset % word.size:
            raise UsageError(f"{word!r} cannot be stored whole", where=device.name)
    told = layout.length if isinstance(layout, TxLayout) else getattr(layout, "capacity", None)
    if told and buffer_size > told.most + layout.negated:
        raise UsageError(f"{told!r} cannot tell {buffer_size} bytes", where=device.name)
    if isinstance(layout, TxLayout) and layout.least > buffer_size:
        raise UsageError(f"no {layout.least} bytes fit a buffer of {buffer_size}", where=device.name)


def _parts(test: tuple[Any, ...]) -> list[Any]:
    """The places of a test, or of several."""
    return [part for one in test for part in (_parts(one) if isinstance(one, tuple) else [one])]


class _Ring(Generic[D]):
    """The memory of a ring: ``table`` has its descriptors."""

    def __init__(self, device: Device, layout: RingLayout[D], slots: int, buffer_size: int) -> None:
        _check(device, layout, slots, buffer_size)
        size = layout.descriptor.size
        behind = layout.address is None
        buffer_stride = -(-(buffer_size + (size if behind else 0)) // ALIGNMENT) * ALIGNMENT
        stride = buffer_stride if behind else size
        self.device, self.layout, self.slots, self.buffer_size = device, layout, slots, buffer_size
        self._memory = [dma_alloc_coherent(device, slots * stride)]
        self.table = Table(layout.descriptor, self._memory[0], slots, stride=stride)
        if not behind:
            self._memory.append(dma_alloc_coherent(device, slots * buffer_stride))
        self._ring: Any = None
        self._end = device.devres.add(self._forget)
        for place, memory in ((layout.address, self._memory[-1]), (layout.link, self._memory[0])):
            if place and memory.dma + memory.length - 1 > place.most:
                raise OutOfMachineMemory(
                    f"a device that reaches {place.most + 1:#x} bytes shall use some at {memory.dma:#x}",
                    where=device.name,
                    remedy="give the machine less memory",
                )
        buffers, offset = self._memory[-1], size if behind else 0
        self._buffers = ffi.cast("char *", buffers.address + offset), buffers.dma + offset, buffer_stride

    def _layout(self) -> dict[str, Any]:
        """struct native_ring_layout."""
        layout, (buffers, dma, stride) = self.layout, self._buffers
        return {
            "table": self.table.handle[0],
            "table_dma": self.table.dma(0),
            "buffers": buffers,
            "buffers_dma": dma,
            "buffer_stride": stride,
            "buffer_size": self.buffer_size,
            "spare": layout.spare,
            "size": layout.descriptor.size,
            "blank": bytes(layout.blank or layout.descriptor()),
            "negated": layout.negated,
            "least": layout.least if isinstance(layout, TxLayout) else 0,
            "own": _test(layout.own),
            "done": _test(layout.done),
        } | {
            name: _place(getattr(layout, name))
            for name in ("address", "link", "length", "first", "last", "stop", "tagged", "tag")
        }

    def _owned(self, ring: Any, free: Any) -> Any:
        if ring == ffi.NULL:
            raise OutOfMachineMemory("no memory for a ring", where=self.device.name)
        return ffi.gc(ring, free)

    def buffer(self, slot: int) -> memoryview:
        """The bytes of a slot's buffer."""
        _, dma, stride = self._buffers
        begin = dma - self._memory[-1].dma + slot % self.slots * stride
        return self._memory[-1].view[begin : begin + self.buffer_size]

    def _forget(self) -> None:
        """Its memory goes back. Who still uses the ring gets a TypeError, and does not write into what others have."""
        self._ring = None

    def free(self) -> None:
        """Give its memory back; else that is done when the driver lets go of the device. The ring is no more."""
        self._end.now()
        for memory in self._memory:
            dma_free_coherent(memory)


class TxRing(_Ring[D]):
    """A ring of frames to send."""

    def __init__(
        self, device: Device, layout: TxLayout[D], slots: int, buffer_size: int = BUFFER_SIZE
    ) -> None:
        """With nothing in it. A frame longer than ``buffer_size`` takes several slots. OutOfMachineMemory."""
        super().__init__(device, layout, slots, buffer_size)
        made = ffi.new("struct native_ring_layout *", self._layout())
        self._ring = self._owned(lib.native_tx_create(made), lib.native_tx_free)
        self._state, self._done = ffi.new("struct native_tx_state *"), ffi.new("struct native_tx_done *")
        self.reset()

    def _now(self) -> Any:
        lib.native_tx_state(self._ring, self._state)
        return self._state

    @property
    def head(self) -> int:
        """The oldest slot that was not reclaimed."""
        head: int = self._now().head
        return head % self.slots

    @property
    def tail(self) -> int:
        """The slot behind the last one that the device has: what its tail register is told."""
        published: int = self._now().published
        return published % self.slots

    @property
    def room(self) -> int:
        """How many slots are free."""
        room: int = self._now().room
        return room

    @property
    def pending(self) -> bool:
        """Whether the device has something that was not reclaimed."""
        state = self._now()
        return bool(state.head != state.published)

    def slots_for(self, length: int) -> int:
        """How many slots a frame of so many bytes takes."""
        return -(-length // self.buffer_size)

    def post(self, batch: Handle) -> int:
        """Hand frames of the batch to the device, in their order; how many.

        It ends before a frame for which there is no room, or that asks for more than a VLAN tag: that one is the
        driver's to put.
        """
        posted: int = lib.native_tx_post(self._ring, batch.handle)
        return posted

    def claim(self, *, alone: bool = False) -> D | None:
        """The next slot's descriptor, blank, for the driver to fill; ``publish`` hands it over. None: there is no room.

        It belongs to the frame that is put next, or else, ``alone``, it is a command that the device reports done by
        itself.
        """
        slot = lib.native_tx_claim(self._ring, alone)
        return None if slot < 0 else self.table[slot]

    def put(self, data: bytes, blank: D) -> bool:
        """Copy a frame into the next slots, with another ``blank``; ``publish`` hands it over. False: no room."""
        result: int = lib.native_tx_put(self._ring, ffi.from_buffer(data), len(data), bytes(blank))
        return result == 0

    def publish(self) -> None:
        """Hand over what was claimed and put."""
        lib.native_tx_publish(self._ring)

    def reclaim(self) -> tuple[int, int]:
        """Take back the slots that the device has done; how many frames and bytes were in them."""
        lib.native_tx_reclaim(self._ring, self._done)
        return self._done.frames, self._done.bytes

    def reset(self) -> int:
        """Begin anew at slot 0, all blank: the device is stopped. How many frames are lost."""
        lost: int = lib.native_tx_reset(self._ring)
        return lost


class RxRing(_Ring[D]):
    """A ring of buffers for frames that come in."""

    def __init__(
        self, device: Device, layout: RxLayout[D], slots: int, buffer_size: int = BUFFER_SIZE
    ) -> None:
        """All slots, but the spare one, are the device's. OutOfMachineMemory."""
        super().__init__(device, layout, slots, buffer_size)
        tests: Mapping[str, tuple[Test, ...]] = {"bad": layout.bad, "good": layout.good}
        made = ffi.new(
            "struct native_rx_layout *",
            {
                "ring": self._layout(),
                "capacity": _place(layout.capacity),
                "whole": layout.whole,
                "trailer": layout.trailer,
            }
            | {name: [_test(test) for test in some] for name, some in tests.items()}
            | {f"{name}_count": len(some) for name, some in tests.items()},
        )
        self._ring = self._owned(lib.native_rx_create(made), lib.native_rx_free)
        self._state = ffi.new("struct native_rx_state *")
        self.reset()

    def _now(self) -> Any:
        lib.native_rx_state(self._ring, self._state)
        return self._state

    @property
    def head(self) -> int:
        """The oldest slot that the device has: where it goes on when it starts again."""
        head: int = self._now().head
        return head % self.slots

    @property
    def tail(self) -> int:
        """The slot behind the newest that the device has: what its tail register is told."""
        tail: int = self._now().tail
        return tail % self.slots

    @property
    def counts(self) -> tuple[int, int, int]:
        """Since it was made: good frames, bad ones (or parts of one), and good ones that the port had no room for."""
        state = self._now()
        return state.frames, state.errors, state.dropped

    def ready(self, most: int) -> int:
        """How many frames, ``most`` at most, the device says it has done with: for one that says so too soon."""
        ready: int = lib.native_rx_ready(self._ring, most)
        return ready

    def harvest(self, port: Handle, budget: int) -> int:
        """Hand at most ``budget`` frames to the port, their slots back to the device; how many, bad ones counted."""
        done: int = lib.native_rx_harvest(self._ring, port.handle, budget)
        return done

    def reset(self) -> None:
        """Begin anew at slot 0, with all slots the device's: it is stopped."""
        lib.native_rx_reset(self._ring)
