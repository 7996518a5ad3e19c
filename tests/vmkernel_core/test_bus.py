"""The buses of the C core. The other side here is a scripted server, ours: it does what QEMU rarely does
(split lines, refusals, floods, silence). test_qemu.py has the independent other side, QEMU itself.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vmkernel_core.hardware import level
from vmkernel_core.bus import PythonBus, QtestBus, Space
from vmkernel_core.errors import DeviceGone, TimedOut, UsageError, VmkError

LINE = 77


class Server:
    """Answers each command line with what ``reply`` makes of it (bytes, sent as they are)."""

    def __init__(self, connection: socket.socket, reply: Callable[[str], bytes]) -> None:
        self.connection = connection
        self.reply = reply
        self.seen: list[str] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError), self.connection.makefile("rb") as lines:
            for line in lines:
                text = line.decode().rstrip("\n")
                self.seen.append(text)
                self.connection.sendall(self.reply(text))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        assert not self.thread.is_alive()
        self.connection.close()


@contextlib.contextmanager
def served(reply: Callable[[str], bytes]) -> Iterator[tuple[QtestBus, Server]]:
    ours, theirs = socket.socketpair()
    bus, server = QtestBus(ours), Server(theirs, reply)
    try:
        yield bus, server
    finally:
        bus.close()
        server.close()


def echo(line: str) -> bytes:
    """OK to writes; to reads their own address."""
    words = line.split()
    return b"OK\n" if len(words) > 2 else f"OK {words[1]}\n".encode()


def test_the_commands_are_qtest_s() -> None:
    with served(echo) as (bus, server):
        for size in (1, 2, 4, 8):
            assert bus.read(Space.MEMORY, 0x12, size) == 0x12
            bus.write(Space.MEMORY, 0xFEDC_BA98_7654_3210, size, -1)
        for size in (1, 2, 4):
            assert bus.read(Space.IO, 0, size) == 0
            bus.write(Space.IO, 0xCF8, size, 0x8000_0060)
        assert bus.read(Space.IO, 0xFFFF, 4) == 0xFFFF
    assert server.seen == [
        "readb 0x12",
        "writeb 0xfedcba9876543210 0xff",
        "readw 0x12",
        "writew 0xfedcba9876543210 0xffff",
        "readl 0x12",
        "writel 0xfedcba9876543210 0xffffffff",
        "readq 0x12",
        "writeq 0xfedcba9876543210 0xffffffffffffffff",
        "inb 0x0",
        "outb 0xcf8 0x60",
        "inw 0x0",
        "outw 0xcf8 0x60",
        "inl 0x0",
        "outl 0xcf8 0x80000060",
        "inl 0xffff",
    ]


def test_a_fifo_is_read_in_few_exchanges() -> None:
    """The values come in their order, with posted writes and interrupt lines around them; the end gives all ones."""
    taken = itertools.count()

    def reply(line: str) -> bytes:
        if line.startswith("write"):
            return b"OK\n"
        number = next(taken)
        return b"IRQ raise 77\nFAIL\n" if number == 90 else f"IRQ lower 77\nOK {number:#x}\n".encode()

    with served(reply) as (bus, server):
        bus.write(Space.MEMORY, 0x40, 4, 1)
        assert bus.read_rep(Space.MEMORY, 0x44, 4, 0) == []
        assert bus.read_rep(Space.MEMORY, 0x44, 4, 80) == list(range(80))
        assert bus.read_rep(Space.MEMORY, 0x44, 4, 12) == [*range(80, 90), 0xFFFF_FFFF, 91]
        server.close()
        assert bus.read_rep(Space.MEMORY, 0x44, 2, 2) == [0xFFFF] * 2
    assert server.seen == ["writel 0x40 0x1", *["readl 0x44"] * 92]


def test_a_size_that_does_not_exist_reaches_nobody() -> None:
    with served(echo) as (bus, server):
        assert bus.read_rep(Space.MEMORY, 0x10, 3, 2) == [(1 << 64) - 1] * 2
        assert bus.read(Space.IO, 0x10, 8) == (1 << 64) - 1
        assert bus.read(Space.MEMORY, 0x10, 3) == (1 << 64) - 1
        bus.write(Space.IO, 0x10, 8, 1)
        assert bus.read(Space.MEMORY, 0x10, 4) == 0x10
    assert server.seen == ["readl 0x10"]


@settings(max_examples=60)
@given(value=st.integers(0, (1 << 64) - 1), size=st.sampled_from([1, 2, 4, 8]))
def test_values_arrive_whole(value: int, size: int) -> None:
    with served(lambda line: f"OK {value:#018x}\n".encode()) as (bus, _):
        assert bus.read(Space.MEMORY, 0, size) == value & ((1 << size * 8) - 1)


@pytest.mark.parametrize("reply", ["FAIL Unknown command", "ERR", "OK", "OK 0xgg", "OK 17", "", "\0"])
def test_a_reply_without_a_number_reads_as_all_ones(reply: str) -> None:
    with served(lambda line: reply.encode() + b"\n") as (bus, _):
        assert bus.read(Space.MEMORY, 0, 2) == 0xFFFF
        assert not bus.gone


def test_a_refused_posted_write_shifts_nothing() -> None:
    def reply(line: str) -> bytes:
        return b"FAIL no such thing\n" if line.startswith("writew") else echo(line)

    with served(reply) as (bus, _):
        for address in range(300):
            bus.write(Space.MEMORY, address, 2 if address % 3 else 4, 0)
            if address % 7 == 0:
                assert bus.read(Space.MEMORY, 0x1000 + address, 4) == 0x1000 + address


def test_interrupt_lines_may_stand_anywhere() -> None:
    def reply(line: str) -> bytes:
        words = line.split()
        edge = b"IRQ raise 77\n" if words[-1] == "0x1" else b"IRQ lower 77\n"
        return edge + echo(line) if len(words) > 2 else echo(line)

    with served(reply) as (bus, server):
        bus.write(Space.MEMORY, 0, 4, 1)
        bus.read(Space.MEMORY, 0, 4)
        assert level(LINE) == 1
        bus.write(Space.MEMORY, 0, 4, 0)
        bus.read(Space.MEMORY, 0, 4)
        assert level(LINE) == 0
        server.connection.sendall(
            b"IRQ raise 77\nIRQ raise 256\nIRQ raise 99999999999\nIRQ raise\nIRQ nonsense\n"
        )
        assert bus.fd >= 0
        assert bus.service()
        assert level(LINE) == 1
        assert bus.read(Space.MEMORY, 5, 4) == 5
    assert level(LINE) == 0, "nobody drives the lines of a closed bus"


def test_a_line_that_comes_with_a_reply_is_seen_at_once() -> None:
    """Nothing is left to be received then, so that nobody who polls would look for it."""
    with served(lambda line: echo(line) + b"IRQ raise 77\n") as (bus, _):
        assert bus.read(Space.MEMORY, 3, 4) == 3
        assert level(LINE) == 1


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_lines_may_come_in_pieces(cuts: list[int]) -> None:
    stream = (
        b"OK\nIRQ raise 77\nFAIL what\nIRQ lower 77\nOK\nIRQ raise 77\nOK 0x00000000cafef00d\nIRQ lower 77\n"
    )
    ours, theirs = socket.socketpair()
    bus = QtestBus(ours)
    try:
        for address in range(3):
            bus.write(Space.MEMORY, address, 4, 0)

        def feed() -> None:
            at, turn = 0, 0
            while at < len(stream):
                theirs.sendall(stream[at : at + cuts[turn % len(cuts)]])
                at, turn = at + cuts[turn % len(cuts)], turn + 1

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert bus.read(Space.MEMORY, 0, 4) == 0xCAFE_F00D
        feeder.join()
        assert bus.service()
        assert level(LINE) == 0
    finally:
        bus.close()
        theirs.close()


def test_full_buffers_on_both_sides_do_not_lock_up() -> None:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    bus, server = QtestBus(ours), Server(theirs, lambda line: b"IRQ raise 77\nIRQ lower 77\n" + echo(line))
    for address in range(5000):
        bus.write(Space.MEMORY, address, 8, address)
    assert bus.read(Space.MEMORY, 0x42, 4) == 0x42
    assert len(server.seen) == 5001
    bus.close()
    server.close()


def test_threads_share_a_bus() -> None:
    wrong: list[tuple[int, int]] = []

    def use(base: int) -> None:
        for address in range(base, base + 200):
            bus.write(Space.MEMORY, address, 4, 0)
            if (got := bus.read(Space.MEMORY, address, 4)) != address:
                wrong.append((address, got))

    with served(echo) as (bus, _):
        threads = [threading.Thread(target=use, args=(n * 0x1000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_commands_have_answers_and_limits() -> None:
    def reply(line: str) -> bytes:
        match line:
            case "slow":
                return b""
            case "late":
                return b"OK too late\nOK in time\n"
            case "long":
                return b"OK " + b"x" * 200_000 + b"\n"
            case "bad":
                return b"FAIL Unknown command 'bad'\n"
        return echo(line)

    with served(reply) as (bus, _):
        assert bus.command("clock 0x7") == "0x7"
        with pytest.raises(UsageError, match="Unknown command 'bad'"):
            bus.command("bad")
        for line in ("", "two\nlines"):
            with pytest.raises(UsageError):
                bus.command(line)
        with pytest.raises(VmkError, match="too long"):
            bus.command("long")
        bus.write(Space.MEMORY, 0, 4, 0)
        assert bus.read(Space.MEMORY, 0x99, 4) == 0x99, "a long reply leaves nothing behind"
        with pytest.raises(TimedOut):
            bus.command("slow", 0.05)
        assert bus.command("late") == "in time", "the reply to a command that was given up is nobody's"


def test_the_end_of_the_other_side() -> None:
    with served(echo) as (bus, server):
        server.connection.sendall(b"IRQ raise 77\n")
        assert bus.service()
        assert level(LINE) == 1
        server.close()
        assert not bus.service()
        assert bus.gone
        assert bus.fd == -1, "so that no idle loop spins on the end of file"
        assert level(LINE) == 0
        assert [bus.read(Space.MEMORY, 0, size) for size in (1, 2, 4, 8)] == [
            (1 << size * 8) - 1 for size in (1, 2, 4, 8)
        ]
        bus.write(Space.MEMORY, 0, 4, 0)
        with pytest.raises(DeviceGone):
            bus.command("clock 0")


def test_the_end_is_noticed_by_a_write_and_by_a_read() -> None:
    for access in ("read", "write"):
        ours, theirs = socket.socketpair()
        bus = QtestBus(ours)
        theirs.close()
        if access == "read":
            assert bus.read(Space.MEMORY, 0, 4) == 0xFFFF_FFFF
        else:
            bus.write(Space.MEMORY, 0, 4, 0)
        assert bus.gone
        bus.close()


def test_a_closed_bus() -> None:
    with served(echo) as (bus, _):
        bus.close()
        bus.close()
        assert bus.gone
        with pytest.raises(DeviceGone):
            bus.read(Space.MEMORY, 0, 4)


class Registers(PythonBus):
    """A model with one register a place, which fails at 0xbad."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[tuple[Space, int], int] = {}

    def register_read(self, space: Space, address: int, size: int) -> int:
        return self.values[space, address]

    def register_write(self, space: Space, address: int, size: int, value: int) -> None:
        if address == 0xBAD:
            raise ValueError("no such register")
        self.values[space, address] = value


def test_a_model_in_python() -> None:
    bus = Registers()
    bus.write(Space.MEMORY, 1 << 40, 8, (1 << 64) - 2)
    bus.write(Space.IO, 1 << 40, 4, 7)
    assert bus.read(Space.MEMORY, 1 << 40, 8) == (1 << 64) - 2
    assert bus.read(Space.MEMORY, 1 << 40, 2) == 0xFFFE
    assert bus.read_rep(Space.IO, 1 << 40, 4, 3) == [7] * 3
    assert bus.fd == -1
    assert bus.service()
    bus.close()
    assert bus.gone


def test_a_model_that_fails_is_logged_and_reads_as_all_ones(caplog: pytest.LogCaptureFixture) -> None:
    bus = Registers()
    with caplog.at_level(logging.ERROR):
        assert bus.read(Space.IO, 0x123, 2) == 0xFFFF
        bus.write(Space.MEMORY, 0xBAD, 4, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "model failed at a read of 2 bytes at IO 0x123",
        "model failed at a write of 4 bytes at MEMORY 0xbad",
    ]
    bus.close()
