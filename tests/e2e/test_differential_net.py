"""The same card, the same traffic, each engine in turn: what Debian's driver and ours leave in the card, what is on the
wire, what arrives, what was counted.

Independent: Debian's driver, and QEMU's card, whose registers the tests read by themselves. Where the two drivers differ
and that is right, state_differences.py says so with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import pytest

from tests.e2e.cards import CARDS, MAC
from tests.e2e.conftest import LIMIT, Peer, options_of
from tests.e2e.device_state import State, card_state, sent_descriptors
from tests.e2e.engines import Engine
from tests.e2e.packets import IPV4, PEER, TCP, pattern, raw_address, sized, tagged, unfinished, unsummed
from tests.e2e.state_differences import DIFFERENCES, MORE
from vmkernel_core.boot import VMkernel
from vmkernel_core.net.uplink import Frame, Uplink
from vmklinux.kernels import Kernel

ME = raw_address(MAC)
GROUPS = ["01:00:5e:00:00:fb", "33:33:00:00:00:16", "01:00:5e:7f:00:01"]
FRAMES: list[bytes | Frame] = [
    sized(PEER, 60 + 97 * number % 1455, number, source=ME) for number in range(40)
]
#: Of a transmit descriptor's command and status: all but when to interrupt (IDE, bit 7), what the driver puts into the
#: status afterwards (the upper byte), and whether the card was to tell (RS, bit 3).
DESCRIPTOR_BITS = 0x77
COUNTERS = ("tx_frames", "tx_bytes", "tx_errors", "rx_errors", "rx_dropped", "multicast")


@dataclass
class Story:
    """What one engine made of it: the card's state at each stop, frames on the wire and received, counters."""

    states: dict[str, State] = field(default_factory=dict)
    wire: dict[str, list[bytes]] = field(default_factory=dict)
    received: dict[str, list[bytes]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    descriptors: list[tuple[int, int]] = field(default_factory=list)
    features: frozenset[str] = frozenset()


def incoming() -> list[bytes]:
    """Frames for the card, for its groups, for others, broadcast, tagged."""
    addresses = [
        ME,
        raw_address(GROUPS[0]),
        raw_address(GROUPS[2]),
        bytes.fromhex("020000000099"),
        b"\xff" * 6,
    ]
    frames = [sized(to, 60 + 13 * number, number) for number, to in enumerate(addresses * 3)]
    return [*frames, tagged(sized(ME, 200, 1), 5), tagged(sized(ME, 200, 2), 6)]


def offloads(nic: Uplink) -> list[bytes | Frame]:
    """Frames that ask for what the card can do."""
    frames: list[bytes | Frame] = [Frame(sized(PEER, 300, 1, source=ME), vlan=0x2005)]
    if "tx-checksum" in nic.features:
        frames += [unsummed(b"to be summed", IPV4, TCP), unsummed(b"and tagged", IPV4, TCP, vlan=5)]
    if "tso" in nic.features:
        data = unfinished(PEER, pattern(5000, 3))
        frames.append(Frame(data, checksum=(34, 16), gso_size=1448, header_length=54))
    return frames


class Run:
    """The steps, with one engine."""

    def __init__(self, host: VMkernel, peer: Peer) -> None:
        self.host, self.peer = host, peer
        self.nic = host.uplinks["vmnic0"]
        self.story = Story(features=frozenset(self.nic.features))

    def look(self, stop: str) -> None:
        self.story.states[stop] = card_state(self.host)

    def receive(self, stop: str) -> None:
        self.peer.listens(self.nic)
        self.story.received[stop] = self.peer.received_by(self.nic, incoming())

    def tell(self) -> Story:
        nic, peer, story = self.nic, self.peer, self.story
        with nic:
            nic.wait_link(timeout=LIMIT)
            peer.listens(nic)
            self.look("opened")
            before = nic.stats
            story.wire["plain"] = peer.sent_by(nic, FRAMES)
            if nic.driver_name == "e1000":
                story.descriptors = sent_descriptors(self.host, len(FRAMES))
            self.receive("plain")
            nic.set_multicast(GROUPS)
            self.look("groups")
            self.receive("groups")
            nic.set_promiscuous(True)
            self.look("promiscuous")
            self.receive("promiscuous")
            nic.set_promiscuous(False)
            nic.set_multicast([])
            if "vlan-filter" in nic.features:
                nic.set_vlans([5])
                self.look("VLAN 5")
                self.receive("VLAN 5")
                nic.set_vlans([])
            self._send_offloads()
            after = nic.stats
            story.counted = {name: getattr(after, name) - getattr(before, name) for name in COUNTERS}
            self.look("traffic")
        return story

    def _send_offloads(self) -> None:
        last = sized(PEER, 61, 99, source=ME)
        self.nic.transmit_all([*offloads(self.nic), last], timeout=LIMIT)
        arrived: list[bytes] = []
        while last not in arrived:
            arrived.append(self.peer.next())
        self.story.wire["offloads"] = arrived


@contextmanager
def booted(card: str, engine: Engine) -> Iterator[Run]:
    chosen = CARDS[card]
    with (
        VMkernel(chosen.make(), **options_of(chosen, engine)) as host,
        ThreadPoolExecutor(2) as pool,
    ):
        yield Run(host, Peer(host.platform.wires[0].socket, pool))
    assert host.leaks == []


@dataclass(frozen=True)
class Pair:
    """A card, and what each engine made of it."""

    card: str
    linux: Story
    native: Story


# Linux does not open an i82551 without microcode, which is not free.
@pytest.fixture(
    scope="module",
    params=[name for name, card in CARDS.items() if card.native == card.module and name != "i82551"],
)
def pair(request: pytest.FixtureRequest, kernel61: Kernel) -> Pair:
    stories = []
    for engine in (Engine("linux", kernel61), Engine("native", None)):
        with booted(request.param, engine) as run:
            stories.append(run.tell())
    return Pair(request.param, *stories)


def differences(pair: Pair) -> dict[str, str]:
    """Where the card's states differ, but for bits that may: by "stop: place", Linux's value and ours."""
    told = DIFFERENCES[CARDS[pair.card].module]
    found: dict[str, str] = {}
    for stop, state in pair.linux.states.items():
        ours = pair.native.states[stop]
        for place in state:
            may = reduce(or_, (one.mask for one in told if one.holds(pair.card, place)), 0)
            if (state[place] ^ ours[place]) & ~may:
                found[f"{stop}: {place}"] = f"{state[place]:#x}, {ours[place]:#x}"
    return found


def test_the_card_is_left_in_the_same_state(pair: Pair) -> None:
    assert differences(pair) == {}


def test_what_is_said_to_differ_does(pair: Pair) -> None:
    """What is listed for this card, and is no difference, is to be struck out; but for what time decides."""
    idle = [
        difference.place
        for difference in DIFFERENCES[CARDS[pair.card].module]
        if difference.certain
        and difference.is_about(pair.card)
        and not any(
            (state[place] ^ pair.native.states[stop][place]) & difference.mask
            for stop, state in pair.linux.states.items()
            for place in state
            if difference.holds(pair.card, place)
        )
    ]
    assert idle == []


def test_the_same_frames_leave(pair: Pair) -> None:
    assert pair.native.wire == pair.linux.wire


def test_the_same_frames_arrive(pair: Pair) -> None:
    assert pair.native.received == pair.linux.received
    assert pair.native.received["promiscuous"] == incoming()


def test_the_same_is_counted(pair: Pair) -> None:
    assert pair.native.counted == pair.linux.counted


def test_the_same_offloads(pair: Pair) -> None:
    assert pair.native.features - pair.linux.features == MORE[CARDS[pair.card].module] & pair.native.features
    assert pair.linux.features <= pair.native.features


def test_the_same_descriptors(pair: Pair) -> None:
    """Lengths, and what the card is told of each frame."""

    def told(story: Story) -> list[tuple[int, int]]:
        return [(length, command & DESCRIPTOR_BITS) for length, command in story.descriptors]

    assert told(pair.native) == told(pair.linux)
