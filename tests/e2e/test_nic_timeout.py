"""A card that does not send any more is reset by its driver, and goes on.

Independent: QEMU's cards, which the test stops behind the driver's back.
"""

from __future__ import annotations

import pytest

from tests.e2e.cards import MAC, Card
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import NATIVE, on_each
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.net.uplink import Uplink
from vmklinux.native.device import baton

# Debian's e1000.ko is not reset: it looks every two seconds by itself, finds that its card hangs, and stops the queue
# once more, from when on the watchdog's five seconds count anew. QEMU's 8255x and PCnet cannot be stopped: they go on
# when they are told of more to send.
driven = on_each("qemu", "82544gc", "82545em", engines=(NATIVE,))

#: Seconds until the driver has noticed: the watchdog looks once in five, and a second time; the machine may be busy.
NOTICED = 60.0
TCTL = 0x0400  # 8254x manual (317453), 13.4.33


def test_a_card_that_does_not_send_is_reset(
    host: VMkernel, nic: Uplink, wire: Peer, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
    frames = [sized(PEER, 60, seed % 256, source=raw_address(MAC)) for seed in range(64)]
    with baton():  # the driver's timers do not look at the card meanwhile
        host.platform.bus.write(Space.MEMORY, adapter.function.bars[0].address + TCTL, 4, 0)
        taken = [nic.transmit(frames) for _ in range(20)]
    assert taken[-1] == 0
    assert nic.wait(tx=True, timeout=NOTICED)
    assert any("timed out" in record.message for record in caplog.records)
    nic.wait_link(timeout=LIMIT)
    wire.drain()
    wire.listens(nic)
    wire.drain()
    assert wire.sent_by(nic, frames[:20]) == frames[:20]
    received = [sized(raw_address(MAC), 60 + seed, seed) for seed in range(card.burst)]
    assert wire.received_by(nic, received) == received
