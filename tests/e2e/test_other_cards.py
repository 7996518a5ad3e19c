"""Cards outside of ESX's list, with whatever module the kernel has for them. Both sides are independent: Debian's
unmodified modules, QEMU's devices."""

from __future__ import annotations

import itertools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import LIMIT, RETRY, Peer
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.errors import DriverRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmkernel_core.net.uplink import Uplink
    from vmklinux.kernels import Kernel

#: QEMU's device: its PCI ids, the module, and what is loaded in which order.
CARDS = {
    "tulip": ("1011:0019", "tulip", ["tulip"]),
    "ne2k_pci": ("10ec:8029", "ne2k-pci", ["8390", "ne2k_pci"]),
}

#: Bytes of a marker, and their numbers; no other frame has as many.
MARKER = 99
_serial = itertools.count()


def _host(kernel: Kernel, device: str, ids: str, module: str) -> VMkernel:
    platform = QemuPlatform([f"{device},netdev=wire0,mac={MAC}"])
    return VMkernel(platform, kernel=kernel.release, modules={ids: module})


@pytest.fixture(params=CARDS)
def host(request: pytest.FixtureRequest, kernel: Kernel) -> Iterator[VMkernel]:
    """A machine with one of these cards; nothing may be left of its driver in the end."""
    ids, module, loaded = CARDS[request.param]
    with _host(kernel, request.param, ids, module) as host:
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        assert list(host.loader.modules) == loaded
        yield host
    assert host.leaks == []
    assert not host.uplinks


def _received(peer: Peer, nic: Uplink, frames: list[bytes]) -> list[bytes]:
    """Send the frames; what the uplink received of them when the last has come, or a marker behind them.

    8390.ko acknowledges its interrupt after it looked at the ring for the last time: a frame that comes in between lies
    there until the next one. So markers follow until one has come.
    """
    came: list[bytes] = []
    peer.send(frames)
    deadline = time.monotonic() + LIMIT
    marker = sized(raw_address(MAC), MARKER, seed=next(_serial))
    while marker not in came:
        assert time.monotonic() < deadline, f"{len(came)} of {len(frames)} frames came"
        peer.send([marker])
        if nic.wait(rx=True, timeout=RETRY):
            came += nic.receive()
    return [frame for frame in came if len(frame) != MARKER]


@contextmanager
def _open(host: VMkernel) -> Iterator[tuple[Uplink, Peer]]:
    """The uplink, open and receiving, and the far end of its wire."""
    nic = host.uplinks["vmnic0"]
    with ThreadPoolExecutor(1) as pool, nic:
        peer = Peer(host.platform.wires[0].socket, pool)
        nic.wait_link(timeout=LIMIT)
        _received(peer, nic, [])
        yield nic, peer


def test_frames_of_every_length_cross_both_ways(host: VMkernel) -> None:
    with _open(host) as (nic, peer):
        assert nic.mac == MAC
        lengths = (60, 61, 62, 63, 64, 65, 127, 1000, 1513, 1514)
        out = [sized(PEER, length, seed=length, source=raw_address(MAC)) for length in lengths]
        assert peer.sent_by(nic, out) == out
        into = [sized(raw_address(MAC), length, seed=length + 1) for length in lengths]
        assert _received(peer, nic, into) == into
        stranger = sized(bytes.fromhex("525400000009"), 100, seed=1)
        assert _received(peer, nic, [stranger]) == []
        nic.set_promiscuous(True)
        # The write to the filter is posted: a frame on the wire can overtake it.
        deadline = time.monotonic() + LIMIT
        while _received(peer, nic, [stranger]) != [stranger]:
            assert time.monotonic() < deadline, "a promiscuous card did not receive what is for another"


def test_many_frames_turn_the_rings_over(host: VMkernel) -> None:
    with _open(host) as (nic, peer):
        for turn in range(10):
            out = [sized(PEER, 100 + turn * 100 + n, seed=n, source=raw_address(MAC)) for n in range(32)]
            assert peer.sent_by(nic, out) == out
            into = [sized(raw_address(MAC), 100 + turn * 100 + n, seed=n) for n in range(8)]
            assert _received(peer, nic, into) == into


def test_it_can_be_opened_again(host: VMkernel) -> None:
    for seed in range(2):
        with _open(host) as (nic, peer):
            out = [sized(PEER, 200, seed=seed, source=raw_address(MAC))]
            assert peer.sent_by(nic, out) == out
            into = [sized(raw_address(MAC), 200, seed=seed + 2)]
            assert _received(peer, nic, into) == into


def test_a_driver_that_wants_another_card_says_so(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """QEMU's RTL8139 is a C+, which 8139too leaves to 8139cp."""
    caplog.set_level(logging.INFO)
    with _host(kernel, "rtl8139", "10ec:8139", "8139too") as host:
        card = next(adapter for adapter in host.adapters if adapter.verdict.module)
        assert isinstance(card.error, DriverRefused)
        assert "error 19" in str(card.error)
        assert "use 8139cp" in caplog.text
        assert not host.uplinks
    assert host.leaks == []
