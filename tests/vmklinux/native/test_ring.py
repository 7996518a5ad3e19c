"""Rings that C walks after their layouts, in the manner of three chips.

Independent side: the device. It is written here with struct alone, after the chips' own tables: an 82540 (tail
register), an Am79C970 (ownership bits, lengths as two's complements) and an 82557 (a list with suspend and end bits,
data behind the header).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import UsageError
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory, OutOfMachineMemory
from vmklinux.native.descriptor import Descriptor, Place, u8, u16, u32, u64
from vmklinux.native.device import Device
from vmklinux.native.register import FieldError
from vmklinux.native.ring import RxLayout, RxRing, TxLayout, TxRing

GOOD = 2  # LINUX_FRAME_CSUM_GOOD


@pytest.fixture
def device() -> Iterator[Device]:
    with MachineMemory(16 << 20) as memory:
        device = Device("device", "driver", memory, IdleLoop(lambda _event: None, lambda: None))
        yield device
        device.devres.release_all()


class Batch:
    """Frames to send, as an uplink gives them."""

    def __init__(self, *frames: bytes, vlan: int = 0, flags: int = 0) -> None:
        self._data = ffi.from_buffer(b"".join(frames))
        described = b"".join(struct.pack("<II6H", len(frame), vlan, flags, 0, 0, 0, 0, 0) for frame in frames)
        self._frames = ffi.from_buffer("struct linux_frame[]", described)
        self.handle = ffi.new("struct native_batch *", (self._data, self._frames, len(frames), 0, 0))


@dataclass
class Taken:
    """A frame that a port got."""

    data: bytes
    good: bool


class Port:
    """An uplink's port that got what a ring harvested."""

    def __init__(self) -> None:
        self.handle = ffi.gc(lib.native_port_create(ffi.NULL), lib.native_port_free)

    def fetch(self) -> list[Taken]:
        data, lengths = ffi.new("char[]", 1 << 20), ffi.new("uint32_t[]", 64)
        told = ffi.new("struct linux_frame[]", 64)
        have = lib.native_port_receive(self.handle, data, 1 << 20, lengths, told, 64)
        frames, at = [], 0
        for i in range(have):
            frames.append(Taken(ffi.buffer(data + at, lengths[i])[:], bool(told[i].flags & GOOD)))
            at += lengths[i]
        return frames


def frame(number: int, length: int) -> bytes:
    """A frame that no other is like."""
    return (
        bytes([2, 0, 0, 0, 0, number]) * 2
        + b"\x08\x00"
        + bytes((number + i) % 251 for i in range(length - 14))
    )


def peek(device: Device, dma: int, length: int) -> Any:
    """Memory as a device sees it; it can be changed."""
    return ffi.buffer(ffi.cast("char *", device.memory.base + dma), length)


# ---- 82540 ----


class TDESC(Descriptor):
    """Legacy transmit descriptor."""

    size = 16
    buffer, length = u64(0), u16(8)
    EOP, IFCS, RS, VLE = u8(11).bit(0), u8(11).bit(1), u8(11).bit(3), u8(11).bit(6)
    DD, special = u8(12).bit(0), u16(14)


class RDESC(Descriptor):
    """Receive descriptor."""

    size = 16
    buffer, length = u64(0), u16(8)
    DD, EOP, IXSM, VP, TCPCS = (u8(12).bit(i) for i in (0, 1, 2, 3, 5))
    CE, TCPE, RXE = (u8(13).bit(i) for i in (0, 5, 7))
    special = u16(14)


E1000_TX = TxLayout(
    TDESC,
    address=TDESC.buffer,
    length=TDESC.length,
    last=TDESC.EOP,
    done=(TDESC.DD, 1),
    tagged=TDESC.VLE,
    tag=TDESC.special,
    blank=TDESC(IFCS=1, RS=1),
    spare=1,
)
E1000_RX = RxLayout(
    RDESC,
    address=RDESC.buffer,
    length=RDESC.length,
    last=RDESC.EOP,
    done=(RDESC.DD, 1),
    tagged=RDESC.VP,
    tag=RDESC.special,
    bad=((RDESC.CE, 1), (RDESC.RXE, 1)),
    good=((RDESC.IXSM, 0), (RDESC.TCPCS, 1), (RDESC.TCPE, 0)),
    trailer=4,
    spare=1,
)


class E1000:
    """The chip's side of both rings."""

    def __init__(self, device: Device, base: int, slots: int) -> None:
        self.device, self.base, self.slots, self.head = device, base, slots, 0

    def send(self, tail: int) -> list[tuple[bytes, int]]:
        """Frames and command bytes up to the tail register's value."""
        sent, parts = [], b""
        while self.head != tail:
            at = peek(self.device, self.base + 16 * self.head, 16)
            address, length, _cso, cmd, status, _css, special = struct.unpack("<QHBBBBH", at[:])
            assert status == 0
            parts += peek(self.device, address, length)[:]
            if cmd & 1:
                sent.append((parts, special if cmd & 0x40 else -1))
                parts = b""
            assert cmd & 0x0A == 0x0A
            at[12] = b"\x01"
            self.head = (self.head + 1) % self.slots
        return sent

    def receive(
        self, tail: int, data: bytes, size: int, status: int = 0, errors: int = 0, tag: int = 0
    ) -> int:
        """Put a frame, with its FCS, into buffers; how many slots it took."""
        data += b"FCS!"
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        for part in parts:
            assert self.head != tail, "the ring is full"
            at = peek(self.device, self.base + 16 * self.head, 16)
            (address,) = struct.unpack_from("<Q", at)
            assert at[12] == b"\x00"
            peek(self.device, address, size)[: len(part)] = part
            end = part is parts[-1]
            at[8:16] = struct.pack("<HHBBH", len(part), 0, 1 | 2 * end | status, errors, tag)
            self.head = (self.head + 1) % self.slots
        return len(parts)


def test_an_82540_sends_what_was_posted(device: Device) -> None:
    ring = TxRing(device, E1000_TX, slots=8, buffer_size=256)
    chip = E1000(device, ring.table.dma(0), 8)
    sizes = [60, 256, 257, 1000]  # 1 + 1 + 2 + 4 slots: the last one finds no room in 7
    frames = [frame(i, size) for i, size in enumerate(sizes)]
    batch = Batch(*frames)
    assert ring.post(batch) == 3
    assert (batch.handle.taken, batch.handle.offset) == (3, sum(sizes[:3]))
    assert (ring.tail, ring.room) == (4, 3)
    assert ring.reclaim() == (0, 0)
    assert chip.send(ring.tail) == [(one, -1) for one in frames[:3]]
    assert ring.pending
    assert ring.reclaim() == (3, 60 + 256 + 257)
    assert (ring.head, ring.room, ring.pending) == (4, 7, False)
    assert ring.post(batch) == 1
    assert chip.send(ring.tail) == [(frames[3], -1)]
    assert (ring.tail, ring.reclaim()) == (0, (1, 1000))
    tagged = Batch(frame(9, 60), vlan=0x10123)
    for turn in range(20):  # around the ring
        assert ring.post(tagged) == 1, turn
        tagged = Batch(frame(9, 60), vlan=0x10123)
        assert chip.send(ring.tail) == [(frame(9, 60), 0x123)]
        assert ring.reclaim() == (1, 60)


def test_short_frames_are_filled_up(device: Device) -> None:
    ring = TxRing(device, replace(E1000_TX, least=60), slots=4, buffer_size=256)
    chip = E1000(device, ring.table.dma(0), 4)
    for turn, size in enumerate(
        [255, 254, 253, 14, 59, 60, 17, 61, 20]
    ):  # what was in the buffers does not go out
        assert ring.post(Batch(frame(turn, size))) == 1
        assert chip.send(ring.tail) == [(frame(turn, size).ljust(60, b"\0"), -1)]
        assert ring.reclaim() == (1, size)


def test_an_offload_is_the_drivers_to_put(device: Device) -> None:
    ring = TxRing(device, E1000_TX, slots=8, buffer_size=256)
    chip = E1000(device, ring.table.dma(0), 8)
    assert ring.post(Batch(frame(1, 60), flags=1)) == 0
    assert ring.tail == 0
    context = ring.claim()
    assert context is not None
    context.EOP = 1  # the model takes it for an empty frame
    assert ring.put(frame(1, 300), TDESC(IFCS=1, RS=1))
    assert ring.tail == 0
    ring.publish()
    assert ring.tail == 3
    assert chip.send(ring.tail) == [(b"", -1), (frame(1, 300), -1)]
    assert ring.reclaim() == (1, 300)
    assert not ring.put(bytes(2000), TDESC(IFCS=1, RS=1))
    assert ring.slots_for(2000) == 8
    while ring.claim(alone=True):
        pass
    assert ring.room == 0
    assert ring.reset() == 0
    assert (ring.room, ring.head, ring.tail) == (7, 0, 0)


def test_an_82540_receives(device: Device) -> None:
    ring = RxRing(device, E1000_RX, slots=8, buffer_size=256)
    chip, port = E1000(device, ring.table.dma(0), 8), Port()
    assert (ring.head, ring.tail) == (0, 7)
    assert ring.harvest(port, 64) == 0
    assert ring.ready(64) == 0
    chip.receive(ring.tail, frame(1, 60), 256)
    chip.receive(ring.tail, frame(2, 600), 256, status=0x20)
    chip.receive(ring.tail, frame(3, 60), 256, errors=0x80)
    chip.receive(ring.tail, frame(4, 60), 256, status=0x24)
    assert (ring.ready(64), ring.ready(3)) == (4, 3)
    assert ring.buffer(1 + 8)[:256] == frame(2, 600)[:256]
    assert ring.harvest(port, 2) == 2
    assert ring.ready(64) == 2
    assert (ring.head, ring.tail) == (4, 3)
    chip.receive(ring.tail, frame(5, 60), 256, status=8, tag=0x123)
    assert ring.harvest(port, 64) == 3
    assert port.fetch() == [
        Taken(frame(1, 60), good=False),
        Taken(frame(2, 600), good=True),
        Taken(frame(4, 60), good=False),
        Taken(frame(5, 60)[:12] + b"\x81\x00\x01\x23" + frame(5, 60)[12:], good=False),
    ]
    assert ring.counts == (4, 1, 0)
    for i in range(30):
        length = 60 + 40 * i
        chip.receive(ring.tail, frame(i, length), 256)
        assert ring.harvest(port, 64) == 1
        assert [one.data for one in port.fetch()] == [frame(i, length)]


def test_half_a_frame_waits_and_an_endless_one_goes(device: Device) -> None:
    ring = RxRing(device, E1000_RX, slots=4, buffer_size=256)
    port = Port()
    for slot in range(3):
        assert ring.harvest(port, 64) == 0
        ring.table.store([slot], {RDESC.length: 256, RDESC.DD: 1})
    assert ring.harvest(port, 64) == 1
    assert port.fetch() == []
    assert ring.counts == (0, 1, 0)
    assert (ring.head, ring.tail) == (3, 2)


# ---- Am79C970 ----


class TMD(Descriptor):
    """Transmit message descriptor, SWSTYLE 2."""

    size = 16
    TBADR, BCNT, ones = u32(0), u32(4).bits(0, 11), u32(4).bits(12, 15)
    ENP, STP, OWN = (u32(4).bit(i) for i in (24, 25, 31))


class RMD(Descriptor):
    """Receive message descriptor, SWSTYLE 2."""

    size = 16
    RBADR, BCNT, ones = u32(0), u32(4).bits(0, 11), u32(4).bits(12, 15)
    ENP, STP, ERR, OWN = (u32(4).bit(i) for i in (24, 25, 30, 31))
    MCNT = u32(8).bits(0, 11)


PCNET_TX = TxLayout(
    TMD,
    address=TMD.TBADR,
    length=TMD.BCNT,
    negated=True,
    first=TMD.STP,
    last=TMD.ENP,
    own=(TMD.OWN, 1),
    done=(TMD.OWN, 0),
    blank=TMD(ones=15),
)
PCNET_RX = RxLayout(
    RMD,
    address=RMD.RBADR,
    capacity=RMD.BCNT,
    negated=True,
    length=RMD.MCNT,
    first=RMD.STP,
    last=RMD.ENP,
    own=(RMD.OWN, 1),
    done=(RMD.OWN, 0),
    bad=((RMD.ERR, 1),),
    whole=True,
    trailer=4,
    blank=RMD(ones=15),
)


def test_an_am79c970_sends_what_it_owns(device: Device) -> None:
    ring = TxRing(device, PCNET_TX, slots=4, buffer_size=256)
    frames = [frame(1, 60), frame(2, 256), frame(3, 300)]
    assert ring.post(Batch(*frames)) == 3
    assert ring.room == 0
    sent, parts, at_slot = [], b"", 0
    while True:
        at = peek(device, ring.table.dma(at_slot), 16)
        address, status = struct.unpack_from("<II", at)
        if not status >> 31:
            break
        assert status >> 12 & 0xF == 0xF
        assert (status >> 25 & 1) == (not parts)
        parts += peek(device, address, 4096 - (status & 0xFFF))[:]
        if status >> 24 & 1:
            sent.append(parts)
            parts = b""
        at[4:8] = struct.pack("<I", status & 0x7FFFFFFF)
        at_slot = (at_slot + 1) % 4
    assert sent == frames
    assert ring.reclaim() == (3, 616)
    assert ring.room == 4


def test_the_first_of_a_batch_is_handed_over_last(device: Device) -> None:
    """A process is stopped in the midst of it: the first page of descriptors takes no writes."""
    ring = TxRing(device, PCNET_TX, slots=1024, buffer_size=64)
    for number in range(1000):
        assert ring.put(frame(number % 256, 60), TMD(ones=15))

    def owned() -> list[int]:
        return [slot for slot in range(1024) if ring.table[slot].OWN]

    assert owned() == []
    libc, address = ctypes.CDLL(None, use_errno=True), device.memory.base + ring.table.dma(0)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        if libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, mmap.PROT_READ) == 0:
            ring.publish()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert owned() == list(range(mmap.PAGESIZE // 16, 1000))
    ring.publish()
    assert owned() == list(range(1000))


def test_an_am79c970_receives_into_what_it_owns(device: Device) -> None:
    ring = RxRing(device, PCNET_RX, slots=4, buffer_size=256)
    port = Port()

    def receive(slot: int, data: bytes, bits: int, count: int) -> None:
        at = peek(device, ring.table.dma(slot), 16)
        address, status = struct.unpack_from("<II", at)
        assert status >> 31 == 1
        assert 4096 - (status & 0xFFF) == 256
        peek(device, address, len(data))[:] = data
        at[4:12] = struct.pack("<II", status & 0x00FFFFFF | bits << 24, count)

    long = frame(2, 400) + b"FCS!"
    receive(0, frame(1, 60) + b"FCS!", 0x03, 64)
    receive(1, long[:256], 0x02, 0)
    assert ring.harvest(port, 64) == 1
    receive(2, long[256:], 0x01, len(long))
    receive(3, frame(3, 60), 0x43, 64)
    receive(0, frame(4, 60) + b"FCS!", 0x01, 64)  # the end of nothing
    receive_again = frame(5, 60) + b"FCS!"
    assert ring.harvest(port, 64) == 3
    receive(1, receive_again, 0x03, 64)
    assert ring.harvest(port, 64) == 1
    assert [one.data for one in port.fetch()] == [frame(1, 60), frame(2, 400), frame(5, 60)]
    assert ring.counts == (3, 2, 0)


# ---- 82557 ----


class TCB(Descriptor):
    """Transmit command block, simplified mode."""

    size = 16
    C, command, S, EL, link, array = (
        u16(0).bit(15),
        u16(2).bits(0, 2),
        u16(2).bit(14),
        u16(2).bit(15),
        u32(4),
        u32(8),
    )
    count, EOF, threshold = u16(12).bits(0, 13), u16(12).bit(15), u8(14)


class RFD(Descriptor):
    """Receive frame descriptor."""

    size = 16
    OK, C, EL, link = u16(0).bit(13), u16(0).bit(15), u16(2).bit(15), u32(4)
    actual, capacity = u16(12).bits(0, 13), u16(14)


I8255X_TX = TxLayout(
    TCB,
    link=TCB.link,
    length=TCB.count,
    stop=TCB.S,
    done=(TCB.C, 1),
    blank=TCB(command=4, array=0xFFFFFFFF, EOF=1, threshold=8),
    spare=1,
)
I8255X_RX = RxLayout(
    RFD,
    link=RFD.link,
    length=RFD.actual,
    capacity=RFD.capacity,
    stop=RFD.EL,
    done=(RFD.C, 1),
    bad=((RFD.OK, 0),),
)


def test_an_82557_goes_along_the_list_to_where_it_is_suspended(device: Device) -> None:
    ring = TxRing(device, I8255X_TX, slots=4, buffer_size=1600)
    at, sent = ring.table.dma(0), []

    def resume(at: int) -> int:
        while True:
            block = peek(device, at, 2048)
            status, command, link, array, count, threshold = struct.unpack_from("<HHIIHB", block)
            assert (array, threshold, status) == (0xFFFFFFFF, 8, 0)
            assert command & 7 == 4
            sent.append(block[16 : 16 + (count & 0x3FFF)])
            block[0:2] = struct.pack("<H", 0xA000)
            at = link
            if command & 0x4000:
                return at

    expected = []
    for turn in range(5):
        frames = [frame(turn, 60), frame(turn, 1514)]
        assert ring.post(Batch(*frames)) == 2
        suspended = [slot for slot in range(4) if ring.table[slot].S and not ring.table[slot].C]
        assert suspended == [(ring.tail - 1) % 4]
        at = resume(at)
        assert at == ring.table.dma(ring.tail)
        assert ring.reclaim() == (2, 1574)
        expected += frames
    assert sent == expected
    command = ring.claim(alone=True)
    assert command is not None
    command.command = 2
    ring.publish()
    assert (command.S, command.link) == (1, ring.table.dma(ring.tail))
    command.C = 1
    assert ring.reclaim() == (0, 0)
    assert not ring.pending


def test_an_82557_receives_up_to_the_end_of_the_list(device: Device) -> None:
    ring = RxRing(device, I8255X_RX, slots=4, buffer_size=1600)
    port, at = Port(), ring.table.dma(0)

    def receive(at: int, data: bytes, status: int = 0xA000) -> tuple[int, bool]:
        block = peek(device, at, 2048)
        was, command, link, _reserved, _actual, capacity = struct.unpack_from("<HHIIHH", block)
        assert (was, capacity) == (0, 1600)
        block[16 : 16 + len(data)] = data
        block[0:2], block[12:14] = struct.pack("<H", status), struct.pack("<H", len(data) | 0xC000)
        return link, bool(command & 0x8000)

    expected = []
    for i in range(10):
        at, end = receive(at, frame(i, 60 + i))
        assert not end
        assert ring.harvest(port, 64) == 1
        expected.append(frame(i, 60 + i))
        assert [slot for slot in range(4) if ring.table[slot].EL] == [i % 4]
    ends = []
    for i in range(4):
        at, end = receive(at, frame(i, 1514), 0xA000 if i else 0x8000)
        ends.append(end)
        expected += [frame(i, 1514)] if i else []
    assert ends == [False, False, False, True]
    assert ring.harvest(port, 64) == 4
    assert [slot for slot in range(4) if ring.table[slot].EL] == [1], (
        "the list has no end: it was taken at once"
    )
    assert at == ring.table.dma(ring.head)
    assert [one.data for one in port.fetch()] == expected
    assert ring.counts == (13, 1, 0)


def test_a_ring_that_cannot_work_is_refused(device: Device) -> None:
    with pytest.raises(UsageError, match="2 slots of 2048 bytes are no ring"):
        TxRing(device, E1000_TX, slots=2)
    before = len(device.devres)
    ring = TxRing(device, E1000_TX, slots=16)
    assert len(device.devres) == before + 3
    ring.free()
    assert len(device.devres) == before


def test_a_ring_whose_memory_went_back_is_not_written_to(device: Device) -> None:
    """It may be somebody else's by then."""
    sender, receiver = TxRing(device, E1000_TX, slots=8), RxRing(device, E1000_RX, slots=8)
    sender.free()
    device.devres.release_all()
    for use in (sender.reclaim, sender.reset, receiver.reset, lambda: receiver.harvest(Port(), 64)):
        with pytest.raises(TypeError):
            use()


def test_what_c_does_not_look_at_again_is_refused(device: Device) -> None:
    wide = Place(16, 2)
    for layout in (replace(E1000_TX, length=wide), replace(E1000_TX, done=(wide, 1))):
        with pytest.raises(FieldError, match="outside of a structure of 16 bytes"):
            TxRing(device, layout, slots=8)
    with pytest.raises(FieldError, match="outside"):
        RxRing(device, replace(E1000_RX, good=((RDESC.DD, 1), (wide, 0))), slots=8)
    with pytest.raises(FieldError, match="outside"):
        TxRing(device, E1000_TX, slots=8).table.load([0], wide)
    with pytest.raises(UsageError, match="no 300 bytes fit a buffer of 256"):
        TxRing(device, replace(E1000_TX, least=300), slots=8, buffer_size=256)
    TxRing(device, PCNET_TX, slots=8, buffer_size=4096)
    with pytest.raises(UsageError, match="cannot tell 4160 bytes"):
        TxRing(device, PCNET_TX, slots=8, buffer_size=4160)
    with pytest.raises(UsageError, match="cannot tell 4160 bytes"):
        RxRing(device, PCNET_RX, slots=8, buffer_size=4160)
    with pytest.raises(OutOfMachineMemory, match="a device that reaches 0x10000 bytes"):
        RxRing(device, replace(E1000_RX, address=Place(0, 2)), slots=8)


# ---- devices that are broken, or lie ----

LAYOUTS = [
    E1000_RX,
    PCNET_RX,
    I8255X_RX,
    replace(E1000_RX, first=RDESC.IXSM, trailer=0),
    replace(PCNET_RX, spare=1),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["e1000", "pcnet", "8255x", "first", "spare"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(data=st.data())
def test_whatever_a_device_writes_into_a_ring(
    device: Device, layout: RxLayout[Any], data: st.DataObject
) -> None:
    """Every frame that comes out lay in the buffers of its slots, and the ring stays whole."""
    slots, size = data.draw(st.sampled_from([4, 8, 128])), 128
    ring, port = RxRing(device, layout, slots=slots, buffer_size=size), Port()
    kind = layout.descriptor
    taken = 0
    for _ in range(4):
        for slot in data.draw(st.lists(st.integers(0, slots - 1), max_size=slots, unique=True)):
            at = peek(device, ring.table.dma(slot), kind.size)
            at[:] = data.draw(st.binary(min_size=kind.size, max_size=kind.size))
            if data.draw(st.booleans()):
                ring.table.store([slot], {layout.done[0]: layout.done[1]})
        budget = data.draw(st.integers(1, 64))
        done = ring.harvest(port, budget)
        assert 0 <= done <= budget
        taken += done
        for one in port.fetch():
            assert 14 <= len(one.data) <= slots * size + 4
        assert (ring.tail - ring.head) % slots == -layout.spare % slots
        assert sum(ring.counts[:2]) == taken
    assert ring.counts[2] == 0
    ring.free()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    lengths=st.lists(st.integers(14, 700), max_size=30),
    lies=st.lists(st.tuples(st.integers(0, 7), st.binary(min_size=16, max_size=16)), max_size=10),
)
def test_whatever_a_device_writes_about_what_is_to_be_sent(
    device: Device, lengths: list[int], lies: list[tuple[int, bytes]]
) -> None:
    """No frame is reclaimed twice, no slot used that is not free, and the ring begins anew after a reset."""
    ring = TxRing(device, PCNET_TX, slots=8, buffer_size=128)
    sent = reclaimed = 0
    for length in lengths:
        sent += ring.post(Batch(frame(1, length)))
        for slot, lie in lies:
            peek(device, ring.table.dma(slot), 16)[:] = lie
        frames, _ = ring.reclaim()
        reclaimed += frames
        assert reclaimed <= sent
        assert 0 <= ring.room <= 8
    assert ring.reset() == sent - reclaimed
    assert ring.post(Batch(frame(1, 1000))) == 1
    assert (ring.head, ring.tail, ring.room) == (0, 0, 0)
    ring.free()


def test_a_device_that_changes_its_mind_about_lengths(device: Device) -> None:
    """While the ring is walked another process writes lengths: what was judged is what is copied."""
    layout = replace(E1000_RX, trailer=0)
    ring, port = RxRing(device, layout, slots=8, buffer_size=256), Port()
    address = device.memory.base + ring.table.dma(0)
    child = os.fork()
    if not child:
        lengths = [ctypes.c_uint16.from_address(address + 16 * slot + 8) for slot in range(8)]
        while os.getppid() != 1:
            for length in lengths:
                length.value = 2
                length.value = 60
        os._exit(0)
    try:
        for _ in range(20000):
            ring.table.store(range(8), {RDESC.EOP: 1, RDESC.VP: 1, RDESC.DD: 1})
            ring.harvest(port, 64)
            assert {len(one.data) for one in port.fetch()} <= {60 + 4}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ring.counts[0] > 0


def test_a_port_takes_no_part_of_a_header(device: Device) -> None:
    port, data = Port(), ffi.from_buffer(bytes(64))
    piece = ffi.new("struct native_piece *", {"data": data, "length": 13})
    assert not lib.native_port_put(port.handle, piece, 1, 0, 0)
    assert not lib.native_port_put(port.handle, piece, 1, 0, 0x10005)
    assert not lib.native_port_put(port.handle, piece, 0, 0, 0x10005)
    piece.length = 14
    assert lib.native_port_put(port.handle, piece, 1, 0, 0x10005)
    assert [len(one.data) for one in port.fetch()] == [18]
