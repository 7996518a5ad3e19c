"""An e1000 comes and goes, hangs, vanishes and sleeps, with its driver in Python.

Independent: QEMU's cards, and what RFC and IEEE say of frames; the model is this project's own.
"""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from native_drivers.net.e1000.driver import E1000
from native_drivers.net.e1000.eeprom import EepromError
from native_drivers.net.e1000.phy import Phy, PhyError
from tests.e2e.cards import CARDS, MAC
from tests.e2e.conftest import LIMIT, exchange
from tests.e2e.packets import PEER, raw_address, sized
from tests.native_drivers.one_nic import one_nic
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import DeviceGone
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform

ME = raw_address(MAC)
KINDS = ("qemu", "model", "82544gc", "82545em", "e1000e")


@pytest.mark.parametrize("name", KINDS)
def test_life(name: str) -> None:
    out = [sized(PEER, 60 + 3 * seed, seed, source=ME) for seed in range(100)]
    back = [sized(ME, 60 + 3 * seed, seed) for seed in range(100)]
    with one_nic(E1000, CARDS[name].make()) as card:
        nic = card.uplink
        for _ in range(2):
            nic.open()
            nic.wait_link(timeout=LIMIT)
            assert card.peer.sent_by(nic, out) == out
            card.peer.listens(nic)
            assert card.peer.received_by(nic, back) == back
            nic.close()
        nic.open()


@pytest.mark.parametrize("name", KINDS)
def test_sleep(name: str) -> None:
    frames = [sized(PEER, 60 + seed, seed, source=ME) for seed in range(20)]
    group = sized(raw_address("01:00:5e:00:00:fb"), 80, 3)
    with one_nic(E1000, CARDS[name].make()) as card, card.uplink as nic:
        nic.set_multicast(["01:00:5e:00:00:fb"])
        for _ in range(2):
            nic.suspend()
            nic.resume()
            nic.wait_link(timeout=LIMIT)
            card.peer.listens(nic)
            assert card.peer.sent_by(nic, frames) == frames
            assert card.peer.received_by(nic, [group]) == [group], "what is set outlasts sleep"
        nic.close()
        nic.suspend()
        nic.resume()
        nic.open()
        nic.wait_link(timeout=LIMIT)
        assert card.peer.sent_by(nic, frames) == frames


def test_an_eeprom_that_is_damaged() -> None:
    model = E1000Model(ME)
    model.eeprom.words[5] ^= 1
    with (
        pytest.raises(EepromError, match="the EEPROM's checksum is wrong"),
        one_nic(E1000, ModelPlatform([model])),
    ):
        pass


def test_a_chip_that_vanishes_ends_nothing_else() -> None:
    """Reads give all ones from then on: no loop may wait for a bit for ever."""
    platform = QemuPlatform([f"e1000,netdev=wire0,addr=5,mac={MAC}"])
    with one_nic(E1000, platform) as card:
        card.uplink.open()
        card.uplink.wait_link(timeout=LIMIT)
        card.driver.pdev.gone = True
        began = time.monotonic()
        assert card.uplink.stats.rx_errors == 0
        with suppress(DeviceGone):
            card.uplink.mtu = 9000
        with suppress(DeviceGone):
            card.uplink.close()
        assert time.monotonic() - began < LIMIT
        assert not platform.bus.gone


def test_parameters() -> None:
    given = {"TxDescriptors": "100", "RxDescriptors": "0x200", "InterruptThrottleRate": "5000"}
    settings = {"e1000": [f"{name}={value}" for name, value in given.items()]}
    with VMkernel(CARDS["82545em"].make(), engine="native", settings=settings) as host:
        nic = host.uplinks["vmnic0"]
        assert (nic.rings.tx, nic.rings.rx, nic.coalescing.rx_usecs) == (104, 512, 200)
        exchange(host)
    for wrong, text in (
        ("TxDescriptors=79", "use 80 to 4096"),
        ("InterruptThrottleRate=59", "use 60 or more, or 0"),
    ):
        with VMkernel(CARDS["82545em"].make(), engine="native", settings={"e1000": [wrong]}) as host:
            (error,) = (adapter.error for adapter in host.adapters if adapter.error)
            assert text in str(error)


@pytest.mark.parametrize("name", ["qemu", "model"])
def test_a_phy_that_does_not_answer_keeps_it_closed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ring, which is given back, is left with a chip that could not be opened."""

    def broken(_phy: Phy, on: bool) -> None:
        raise PhyError(f"the PHY cannot be turned {'on' if on else 'off'}")

    with one_nic(E1000, CARDS[name].make()) as card:
        nic, bar = card.uplink, card.driver.pdev.function.bars[0].address
        monkeypatch.setattr(Phy, "power", broken)
        with pytest.raises(PhyError, match="cannot be turned on"):
            nic.open()
        assert not nic.is_open
        for control in (0x100, 0x400):  # RCTL and TCTL
            assert not card.platform.bus.read(Space.MEMORY, bar + control, 4) & 2
        monkeypatch.undo()
        nic.open()
        nic.wait_link(timeout=LIMIT)
        frame = sized(PEER, 60, 1, source=ME)
        assert card.peer.sent_by(nic, [frame]) == [frame]
