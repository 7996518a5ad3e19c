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
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Bus, Space
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.pci_function import PciFunction
from vmklinux.native.device import baton

# Debian's e1000.ko is not reset: it looks every two seconds by itself, finds that its card hangs, and stops the queue
# once more, from when on the watchdog's five seconds count anew.
driven = on_each("qemu", "82544gc", "82545em", "i82557b", "i82559c", "pcnet", engines=(NATIVE,))

#: Seconds until the driver has noticed: the watchdog looks once in five, and a second time; the machine may be busy.
NOTICED = 60.0


def no_transmission(bus: Bus, card: PciFunction) -> None:
    """8254x: TCTL.EN off (manual 317453, 13.4.33)."""
    bus.write(Space.MEMORY, card.bars[0].address + 0x0400, 4, 0)


def no_command_blocks(bus: Bus, card: PciFunction) -> None:
    """8255x: the command unit's base, which the driver has at 0, where nothing is (manual, 6.3.1: CUC 6)."""
    bus.write(Space.MEMORY, card.bars[0].address + 0x04, 4, 0xF000_0000)
    bus.write(Space.MEMORY, card.bars[0].address + 0x02, 1, 6 << 4)


def software_reset(bus: Bus, card: PciFunction) -> None:
    """Am79C970A: reading its reset port; RAP is left as the driver has it."""
    rap, reset = card.bars[0].address + 0x12, card.bars[0].address + 0x14
    selected = bus.read(Space.IO, rap, 2)
    bus.read(Space.IO, reset, 2)
    bus.write(Space.IO, rap, 2, selected)


#: By driver: how its card is kept from sending.
STOPS: dict[str, Callable[[Bus, PciFunction], None]] = {
    "e1000": no_transmission,
    "e100": no_command_blocks,
    "pcnet32": software_reset,
}


def test_a_card_that_does_not_send_is_reset(
    host: VMkernel, nic: Uplink, wire: Peer, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
    frames = [sized(PEER, 60, seed % 256, source=raw_address(MAC)) for seed in range(64)]
    with baton():  # the driver's timers do not look at the card meanwhile
        STOPS[card.module](host.platform.bus, adapter.function)
        taken = [nic.transmit(frames) for _ in range(20)]
    assert taken[-1] == 0
    assert nic.wait(tx=True, timeout=NOTICED)
    # By the watchdog, or by the driver's own look at its chip, whichever came first.
    assert any(word in record.message for record in caplog.records for word in ("timed out", "hangs"))
    nic.wait_link(timeout=LIMIT)
    wire.drain()
    wire.listens(nic)
    wire.drain()
    assert wire.sent_by(nic, frames[:20]) == frames[:20]
    received = [sized(raw_address(MAC), 60 + seed, seed) for seed in range(card.burst)]
    assert wire.received_by(nic, received) == received
