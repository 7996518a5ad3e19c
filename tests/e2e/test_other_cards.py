"""Cards outside of ESX's list, with whatever module the kernel has for them. Both sides are independent: Debian's
unmodified modules, QEMU's devices."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import LIMIT, Peer, exchange
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.errors import DriverRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.kernels import Kernel

#: QEMU's device: its PCI ids, the module, and what is loaded in which order.
CARDS = {
    "tulip": ("1011:0019", "tulip", ["tulip"]),
}


def _host(kernel: Kernel, device: str, ids: str, module: str) -> VMkernel:
    platform = QemuPlatform([f"{device},netdev=wire0,mac={MAC}"])
    return VMkernel(platform, kernel=kernel.release, modules={ids: module})


@pytest.fixture(params=CARDS)
def host(request: pytest.FixtureRequest, kernel: Kernel) -> Iterator[VMkernel]:
    """A machine with one of these cards; nothing may be left of its driver in the end."""
    ids, module, loaded = CARDS[request.param]
    with _host(kernel, request.param, ids, module) as host:
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        assert [name.replace("_", "-") for name in host.loader.modules] == loaded
        yield host
    assert host.leaks == []
    assert not host.uplinks


def test_frames_of_every_length_cross_both_ways(host: VMkernel) -> None:
    nic = host.uplinks["vmnic0"]
    assert nic.mac == MAC
    with ThreadPoolExecutor(1) as pool, nic:
        peer = Peer(host.platform.wires[0].socket, pool)
        nic.wait_link(timeout=LIMIT)
        lengths = (60, 61, 62, 63, 64, 65, 127, 1000, 1513, 1514)
        out = [sized(PEER, length, seed=length, source=raw_address(MAC)) for length in lengths]
        assert peer.sent_by(nic, out) == out
        peer.listens(nic)
        into = [sized(raw_address(MAC), length, seed=length + 1) for length in lengths]
        assert peer.received_by(nic, into) == into
        stranger = sized(bytes.fromhex("525400000009"), 100, seed=1)
        assert peer.received_by(nic, [stranger]) == []
        nic.set_promiscuous(True)
        assert peer.received_by(nic, [stranger]) == [stranger]


def test_many_frames_turn_the_rings_over(host: VMkernel) -> None:
    nic = host.uplinks["vmnic0"]
    with ThreadPoolExecutor(1) as pool, nic:
        peer = Peer(host.platform.wires[0].socket, pool)
        nic.wait_link(timeout=LIMIT)
        peer.listens(nic)
        for turn in range(10):
            out = [sized(PEER, 60 + turn * 100 + n, seed=n, source=raw_address(MAC)) for n in range(32)]
            assert peer.sent_by(nic, out) == out
            into = [sized(raw_address(MAC), 60 + turn * 100 + n, seed=n) for n in range(8)]
            assert peer.received_by(nic, into) == into


def test_it_can_be_loaded_again(host: VMkernel) -> None:
    exchange(host)
    exchange(host)


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
