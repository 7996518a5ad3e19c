"""A card that does not send any more is reset by its driver, and goes on.

Independent: QEMU's cards, which the test stops behind the driver's back.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.cards import MAC, Card
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import NATIVE, on_each
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core._core import lib
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Bus, Space
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.pci import BarKind, PciFunction

# Debian's e1000.ko is not reset: it looks every two seconds by itself, finds that its card hangs, and stops the queue
# once more, from when on the watchdog's five seconds count anew.
driven = on_each("qemu", "82545em", engines=(NATIVE,))

#: Seconds until a driver has noticed: the watchdog looks once in five, and a second time; the machine may be busy.
NOTICED = 60.0


def no_transmission(bus: Bus, card: PciFunction) -> None:
    """8254x: TCTL.EN off (manual, 13.4.33)."""
    bus.write(Space.MEMORY, bar(card, io=False) + 0x400, 4, 0)


def bar(card: PciFunction, *, io: bool) -> int:
    return next(bar.address for bar in card.bars if (bar.kind is BarKind.IO) == io)


STOPS: dict[str, Callable[[Bus, PciFunction], None]] = {
    "e1000": no_transmission,
}


def test_a_card_that_does_not_send_is_reset(
    host: VMkernel, nic: Uplink, wire: Peer, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
    frames = [sized(PEER, 60, seed % 256, source=raw_address(MAC)) for seed in range(64)]
    lib.vmk_baton_take()
    STOPS[card.module](host.platform.bus, adapter.function)
    while nic.transmit(frames):  # the driver holds the baton meanwhile: it does not look at the card
        pass
    lib.vmk_baton_drop()
    assert nic.wait(tx=True, timeout=NOTICED)
    assert any("timed out" in record.message for record in caplog.records)
    nic.wait_link(timeout=LIMIT)
    wire.drain()
    wire.listens(nic)
    wire.drain()
    assert wire.sent_by(nic, frames[:20]) == frames[:20]
    received = [sized(raw_address(MAC), 60 + seed, seed) for seed in range(card.burst)]
    assert wire.received_by(nic, received) == received
