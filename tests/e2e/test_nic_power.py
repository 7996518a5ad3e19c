"""Network cards are put to sleep and woken up by their drivers' own functions of power management.

Independent: QEMU's cards; Debian's drivers, where the engine is Linux.
"""

from __future__ import annotations

import queue

import pytest

from tests.e2e.cards import MAC, Card
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import on_each
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.net.uplink import Suspended, Uplink, UplinkEvent

driven = on_each("qemu", "i82559c", "pcnet", "rtl8139")


def test_sleep_and_wake(nic: Uplink, wire: Peer, card: Card) -> None:
    events: queue.Queue[UplinkEvent] = queue.Queue()
    nic.subscribe(events.put)
    frames = [sized(PEER, 60 + seed, seed, source=raw_address(MAC)) for seed in range(20)]
    back = [sized(raw_address(MAC), 60 + seed, seed) for seed in range(20)]
    for _ in range(2):
        nic.suspend()
        nic.suspend()
        assert (nic.is_suspended, nic.is_open, nic.link_up, nic.speed) == (True, True, False, 0)
        for use in (
            lambda: nic.transmit(frames),
            nic.receive,
            lambda: nic.wait(rx=True, timeout=0),
            lambda: nic.driver_info,
            lambda: setattr(nic, "mtu", 1400),
        ):
            with pytest.raises(Suspended, match=r"vmnic0 is suspended; resume\(\) wakes it up"):
                use()
        assert nic.mac == MAC
        assert nic.stats.tx_frames >= 0
        nic.resume()
        nic.resume()
        assert not nic.is_suspended
        nic.wait_link(timeout=LIMIT)
        wire.listens(nic)
        assert wire.sent_by(nic, frames) == frames
        assert wire.received_by(nic, back[: card.burst]) == back[: card.burst]
    kinds = [events.get_nowait().kind for _ in range(events.qsize())]
    assert [kind for kind in kinds if kind in ("suspended", "resumed")] == ["suspended", "resumed"] * 2


def test_what_is_set_outlasts_sleep(nic: Uplink, wire: Peer) -> None:
    group = "01:00:5e:00:00:fb"
    nic.set_multicast([group])
    nic.suspend()
    nic.resume()
    nic.wait_link(timeout=LIMIT)
    wire.listens(nic)
    frame, other = (sized(raw_address(to), 80, 3) for to in (group, "01:00:5e:00:00:01"))
    received = wire.received_by(nic, [frame, other])
    nic.set_multicast([])
    assert frame in received
