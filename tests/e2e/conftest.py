"""Fixtures for the end-to-end tests: a booted host with Debian's e1000.ko on a device, and its peer on the wire."""

from __future__ import annotations

import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.cards import CARDS, Card
from tests.e2e.engines import NATIVE, Engine, on_each
from tests.e2e.packets import PEER, ethernet, raw_address
from tests.e2e.storage import CONTROLLERS, Controller
from vmkernel_core.boot import VMkernel
from vmkernel_core.net.uplink import Frame, Uplink

#: Seconds until what was to come has failed to come; the machine may be busy.
LIMIT = 30.0
#: Seconds between markers, while a card does not receive yet.
RETRY = 0.05

#: The platforms that have an e1000 of type 82540EM.
PLATFORMS = {name: CARDS[name].make for name in ("qemu", "model")}


class Peer:
    """The far end of the uplink's wire, read and written by the test alone."""

    _serial = itertools.count()

    def __init__(self, end: socket.socket, pool: ThreadPoolExecutor) -> None:
        self.socket = end
        self._pool = pool

    def next(self, limit: float = LIMIT) -> bytes:
        """The next frame that leaves the uplink; TimeoutError when none comes."""
        if not select.select([self.socket], [], [], limit)[0]:
            raise TimeoutError(f"no frame on the wire in {limit} s")
        return self.socket.recv(1 << 17)

    def collect(self, count: int) -> Future[list[bytes]]:
        """Begin to read that many frames off the wire: it holds only few that nobody reads."""
        return self._pool.submit(lambda: [self.next() for _ in range(count)])

    def sent_by(self, nic: Uplink, frames: Sequence[bytes | Frame], count: int | None = None) -> list[bytes]:
        """Transmit the frames; what arrives at this end, that many frames (as many as were sent)."""
        arriving = self.collect(len(frames) if count is None else count)
        nic.transmit_all(frames, timeout=LIMIT)
        return arriving.result(2 * LIMIT)

    def drain(self) -> list[bytes]:
        """What has left the uplink and nobody read."""
        drained = []
        while select.select([self.socket], [], [], 0)[0]:
            drained.append(self.socket.recv(1 << 17))
        return drained

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames to the uplink."""
        for frame in frames:
            self.socket.send(frame)

    def received_by(self, nic: Uplink, frames: Sequence[bytes]) -> list[bytes]:
        """Send the frames and a marker behind them; what the uplink received before the marker."""
        marker = self._marker(nic)
        sending = self._pool.submit(self.send, [*frames, marker])
        received = until_frame(nic, marker)
        sending.result(LIMIT)
        return received

    def listens(self, nic: Uplink) -> None:
        """Wait until the card receives: some drop frames for a while after their filters were written."""
        deadline = time.monotonic() + LIMIT
        while True:
            self.send([self._marker(nic)])
            if nic.wait(rx=True, timeout=RETRY):
                break
            assert time.monotonic() < deadline, f"the card received nothing for {LIMIT} s"
        self.received_by(nic, [])

    def _marker(self, nic: Uplink) -> bytes:
        return ethernet(raw_address(nic.mac), f"marker {next(self._serial)}".encode().ljust(46))


def until_frame(nic: Uplink, last: bytes) -> list[bytes]:
    """What the uplink receives before the frame ``last``, which has to come."""
    received: list[bytes] = []
    deadline = time.monotonic() + LIMIT
    while last not in received:
        left = deadline - time.monotonic()
        assert nic.wait(rx=True, timeout=max(left, 0)), f"{len(received)} frames came, the last one did not"
        received += nic.receive()
    return received[: received.index(last)]


def exchange(host: VMkernel) -> None:
    """The one thing a usable host can do: its uplink comes up, and a frame crosses each way."""
    nic = host.uplinks["vmnic0"]
    with ThreadPoolExecutor(1) as pool, nic:
        peer = Peer(host.platform.wires[0].socket, pool)
        nic.wait_link(timeout=LIMIT)
        out = ethernet(PEER, b"out".ljust(46), source=raw_address(nic.mac))
        assert peer.sent_by(nic, [out]) == [out]
        peer.listens(nic)
        came = ethernet(raw_address(nic.mac), b"in".ljust(46))
        assert peer.received_by(nic, [came]) == [came]


def options_of(card: Card, engine: Engine) -> dict[str, Any]:
    """VMkernel's options for that card under that engine."""
    # QEMU's 8255x tell of a frame before they have written its length: Linux's driver on another core may take it too
    # soon. Ours minds that.
    core = min(os.sched_getaffinity(0)) if card.module == "e100" and engine.kernel else None
    return {"modules": card.modules, "settings": card.settings, "core": core} | engine.options


driven = on_each(*PLATFORMS)


@pytest.fixture(scope="module")
def platform_name(driven: tuple[str, str]) -> str:
    """The card's name."""
    return driven[0]


@pytest.fixture(scope="module")
def card(platform_name: str, engine: Engine) -> Card:
    """What the tests know of that card."""
    return CARDS[platform_name].by(engine.name)


@pytest.fixture(scope="module")
def controller(driven: tuple[str, str]) -> Controller:
    """What the storage tests know of their controller."""
    return CONTROLLERS[driven[0]]


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, driven: tuple[str, str]) -> Engine:
    """What drives it; it asks for ``driven`` by name, so that it is made anew when that changes."""
    name = driven[1]
    return Engine("native", None) if name == NATIVE else Engine("linux", request.getfixturevalue(name))


@pytest.fixture
def boot(engine: Engine, card: Card) -> Callable[..., VMkernel]:
    """Makes a host that is not started yet; its options are VMkernel's."""

    def make(**options: object) -> VMkernel:
        return VMkernel(card.make(), **options_of(card, engine) | options)

    return make


@pytest.fixture(scope="module")
def host(engine: Engine, card: Card) -> Iterator[VMkernel]:
    """A booted host with the card's driver bound, for a module's tests in turn; at its end nothing may have leaked."""
    with VMkernel(card.make(), **options_of(card, engine)) as host:
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        yield host
    assert host.leaks == []


@pytest.fixture(scope="module")
def nic(host: VMkernel) -> Iterator[Uplink]:
    """Its uplink, open and with its link up; a test that changes its settings puts them back."""
    with host.uplinks["vmnic0"] as uplink:
        uplink.wait_link(timeout=LIMIT)
        yield uplink


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads in which the far end works."""
    with ThreadPoolExecutor(2, thread_name_prefix="peer") as pool:
        yield pool


@pytest.fixture
def wire(host: VMkernel, nic: Uplink, pool: ThreadPoolExecutor) -> Iterator[Peer]:
    """The far end; the card receives, and no frame is under way at the test's begin and end."""
    peer = Peer(host.platform.wires[0].socket, pool)
    peer.listens(nic)
    yield peer
    assert peer.drain() == [], "frames that nobody expected left the uplink"
