"""How often the drivers of network cards in Python touch registers: to ask a device takes longer than a frame.

Independent: the bus, which counts, and QEMU's cards, which keep frames and interrupts when too little was said to them.
"""

from __future__ import annotations

import pytest

from native_drivers.net.e100 import E100
from native_drivers.net.e1000 import E1000
from native_drivers.net.pcnet32 import Pcnet32
from tests.e2e.cards import MAC, qemu
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import one_nic
from tests.native_drivers.wires import wait_until_taken
from vmkernel_core._core import lib
from vmklinux.native.device import baton
from vmklinux.native.ethernet import EthernetDriver

ME = raw_address(MAC)
#: Of each device, accesses for an interrupt that tells of ten frames, and for a batch of ten that is sent.
COSTS: dict[str, tuple[type[EthernetDriver], int, int]] = {
    "e1000": (E1000, 4, 1),  # ICR, IMC, RDT, IMS; TDT
    "i82559c": (E100, 2, 1),  # acknowledgement and status; a resume
    "pcnet": (Pcnet32, 2, 1),  # CSR0 twice; and once
}


@pytest.mark.parametrize("name", COSTS)
def test_register_accesses(name: str) -> None:
    """The least of some turns: now and then a driver looks at its link, and tells the device that it may go on."""
    kind, to_receive, to_send = COSTS[name]
    receiving, sending = list[int](), list[int]()
    with one_nic(kind, qemu(name)()) as card, card.uplink as nic:
        nic.wait_link(timeout=LIMIT)
        card.peer.listens(nic)
        for turn in range(8):
            frames = [sized(ME, 60 + turn, seed) for seed in range(10)]
            with baton():  # no interrupt is served meanwhile
                card.peer.send(frames)
                wait_until_taken(card)
                before = lib.vmk_bus_accesses()
            came: list[bytes] = []
            while len(came) < len(frames):
                assert nic.wait(rx=True, timeout=LIMIT)
                came += nic.receive()
            assert came == frames
            receiving.append(lib.vmk_bus_accesses() - before)
            frames = [sized(PEER, 60 + turn, seed, source=ME) for seed in range(10)]
            before = lib.vmk_bus_accesses()
            assert nic.transmit(frames) == 10
            sending.append(lib.vmk_bus_accesses() - before)
            assert [card.peer.next() for _ in frames] == frames
    assert (min(receiving), min(sending)) == (to_receive, to_send)
