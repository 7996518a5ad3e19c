"""Drivers move frames, Debian's of both kernels and ours in Python, on QEMU's cards and on our model of one.

Independent: QEMU's device, and Debian's driver. On the model our own driver has nobody independent but the judge: what
the frames look like is seen at the far end of the wire.
"""

from __future__ import annotations

import queue

import pytest

from tests.e2e.cards import MAC, Card
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.engines import LINUX, on_each, only
from tests.e2e.packets import PEER, ethernet, raw_address, sized, tagged
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import TimedOut, UsageError, VmkError
from vmkernel_core.net.uplink import Frame, LinkDown, Uplink, UplinkEvent

ME = raw_address(MAC)
GROUP, OTHER_GROUP = "01:00:5e:00:00:fb", "33:33:00:00:00:16"
#: Every length class: the least, around powers of two and of the driver's buffer sizes, all up to the most.
SIZES = sorted(
    {60, 61, 62, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 1023, 1024, 1513, 1514, *range(66, 1514, 37)}
)
JUMBO_MTU = 9000
JUMBO_SIZES = [60, 1514, 1515, 1518, 1522, 2000, 2048, 4096, 4097, 8191, 8192, 9013, 9014]


# QEMU's 82558 and later put rubbish behind some frames: they look at two buffers where e100.ko gives one, and the
# second is what an earlier command left there.
driven = on_each(
    "qemu", "model", "82544gc", "82545em", "i82557b", "pcnet", "rtl8139", "e1000e", "e1000e-msix", "vmxnet3"
)


def to_peer(length: int, seed: int) -> bytes:
    return sized(PEER, length, seed, source=ME)


def to_me(length: int, seed: int) -> bytes:
    return sized(ME, length, seed)


def test_probe(host: VMkernel, nic: Uplink, card: Card) -> None:
    (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
    assert (adapter.function.vendor, adapter.function.device) == card.ids
    assert adapter.verdict.module == card.module
    assert adapter.uplink is nic
    assert list(host.uplinks) == ["vmnic0"]
    assert (nic.mac, nic.driver_name, nic.mtu, nic.speed) == (MAC, card.module, 1500, card.speed)


@only("qemu", "model", "82545em", "e1000e", "e1000e-msix", "vmxnet3")
def test_offloads(nic: Uplink) -> None:
    assert {"scatter-gather", "tx-checksum", "tso", "vlan-insert", "vlan-strip"} <= nic.features


# QEMU's 8255x always reports a link, whatever its cable does. QEMU 7.2's e1000e keeps its causes when they are read in
# MSI-X mode, so that the link's is told only once.
@only("qemu", "model", "82544gc", "82545em", "pcnet", "rtl8139", "e1000e", "vmxnet3")
def test_link_follows_the_cable(host: VMkernel, nic: Uplink, wire: Peer, card: Card) -> None:
    address = next(adapter.function.address for adapter in host.adapters if adapter.uplink)
    events: queue.Queue[UplinkEvent] = queue.Queue()
    nic.subscribe(events.put)
    host.platform.set_link(address, False)
    nic.wait_link(False, timeout=LIMIT)
    assert events.get(timeout=LIMIT) == UplinkEvent("vmnic0", "link-down")
    assert not nic.link_up
    with pytest.raises(LinkDown, match="no link"):
        nic.transmit([to_peer(60, 0)])
    host.platform.set_link(address, True)
    nic.wait_link(True, timeout=LIMIT)
    assert events.get(timeout=LIMIT) == UplinkEvent("vmnic0", "link-up")
    assert (nic.link_up, nic.speed) == (True, card.speed)
    frames = [to_peer(60, seed) for seed in range(4)]
    assert wire.sent_by(nic, frames) == frames
    wire.listens(nic)


def test_sizes_out(nic: Uplink, wire: Peer) -> None:
    frames = [to_peer(size, size) for size in SIZES]
    assert wire.sent_by(nic, frames) == frames


def test_sizes_in(nic: Uplink, wire: Peer, card: Card) -> None:
    for at in range(0, len(SIZES), card.burst):
        frames = [to_me(size, size) for size in SIZES[at : at + card.burst]]
        assert wire.received_by(nic, frames) == frames


def test_both_ways_at_once(nic: Uplink, wire: Peer, card: Card) -> None:
    out = [to_peer(60 + seed % 1455, seed) for seed in range(600)]
    back = [to_me(60 + seed % 1455, seed) for seed in range(600)]
    arriving = wire.collect(len(out))
    for at in range(0, len(out), card.burst):
        nic.transmit_all(out[at : at + card.burst], timeout=LIMIT)
        assert wire.received_by(nic, back[at : at + card.burst]) == back[at : at + card.burst]
    assert arriving.result(LIMIT) == out


def test_a_batch_larger_than_the_ring(nic: Uplink, wire: Peer) -> None:
    frames = [to_peer(60 + seed % 200, seed) for seed in range(1000)]
    arriving = wire.collect(len(frames))
    taken = nic.transmit(frames)
    assert 0 < taken <= len(frames)
    nic.transmit_all(frames[taken:], timeout=LIMIT)
    assert arriving.result(LIMIT) == frames


# QEMU's other cards leave out the padding that the real ones add.
@only("qemu", "model", "82544gc", "82545em")
def test_a_short_frame_is_padded(nic: Uplink, wire: Peer) -> None:
    short = to_peer(60, 1)[:30]
    (arrived,) = wire.sent_by(nic, [short])
    assert arrived == short.ljust(60, b"\0")


@pytest.mark.parametrize("mtu", [68, 1499])
def test_a_smaller_mtu(nic: Uplink, wire: Peer, mtu: int) -> None:
    nic.mtu = mtu
    try:
        nic.wait_link(timeout=LIMIT)
        longest = to_peer(mtu + 14, 1)
        assert wire.sent_by(nic, [longest]) == [longest]
        with pytest.raises(UsageError, match=f"takes 14 to {mtu + 14} bytes"):
            nic.transmit([to_peer(mtu + 15, 2)])
    finally:
        nic.mtu = 1500
        nic.wait_link(timeout=LIMIT)


def test_an_mtu_beyond_the_card(nic: Uplink, card: Card) -> None:
    for wrong in (card.most_mtu + 1, 45):
        with pytest.raises(UsageError, match=f"an MTU of {wrong} is out of range"):
            nic.mtu = wrong
    assert nic.mtu == 1500


@only("qemu", "model", "82545em", "e1000e", "e1000e-msix", "vmxnet3")
def test_jumbo(nic: Uplink, wire: Peer) -> None:
    nic.mtu = JUMBO_MTU
    try:
        assert nic.mtu == JUMBO_MTU
        nic.wait_link(timeout=LIMIT)
        out = [to_peer(size, size) for size in JUMBO_SIZES]
        assert wire.sent_by(nic, out) == out
        wire.listens(nic)
        back = [to_me(size, size) for size in JUMBO_SIZES]
        assert wire.received_by(nic, back) == back
    finally:
        nic.mtu = 1500
        nic.wait_link(timeout=LIMIT)
    wire.listens(nic)


@only("qemu", "model", "82545em", "e1000e", "e1000e-msix")
def test_a_frame_beyond_the_mtu_is_dropped(nic: Uplink, wire: Peer) -> None:
    frames = [to_me(1514, 1), to_me(9014, 2), to_me(60, 3)]
    assert wire.received_by(nic, frames) == [frames[0], frames[2]]


def test_multicast_groups(nic: Uplink, wire: Peer) -> None:
    group, other = (sized(raw_address(address), 80, 5) for address in (GROUP, OTHER_GROUP))
    mine, broadcast = to_me(80, 6), sized(b"\xff" * 6, 80, 7)
    assert wire.received_by(nic, [group, other, broadcast, mine]) == [broadcast, mine]
    nic.set_multicast([OTHER_GROUP])
    nic.set_multicast([GROUP])
    wire.listens(nic)
    assert wire.received_by(nic, [group, other, broadcast, mine]) == [group, broadcast, mine]
    nic.set_multicast([])
    wire.listens(nic)
    assert wire.received_by(nic, [group, other, broadcast, mine]) == [broadcast, mine]


def test_promiscuous(nic: Uplink, wire: Peer) -> None:
    strange = sized(bytes.fromhex("020000000099"), 80, 8)
    assert wire.received_by(nic, [strange, to_me(80, 9)]) == [to_me(80, 9)]
    nic.set_promiscuous(True)
    wire.listens(nic)
    assert wire.received_by(nic, [strange, to_me(80, 9)]) == [strange, to_me(80, 9)]
    nic.set_promiscuous(False)
    wire.listens(nic)
    assert wire.received_by(nic, [strange, to_me(80, 9)]) == [to_me(80, 9)]


def change_mac(nic: Uplink, card: Card, mac: str) -> None:
    """Drivers that cannot change the address of a running card refuse, and do it when it is closed."""
    if not card.live_mac:
        with pytest.raises(VmkError, match="refused to take that MAC address"):
            nic.mac = mac
        nic.close()
    nic.mac = mac
    nic.open()
    nic.wait_link(timeout=LIMIT)
    assert nic.mac == mac


def test_another_mac(nic: Uplink, wire: Peer, card: Card) -> None:
    other = "52:54:00:00:00:77"
    change_mac(nic, card, other)
    try:
        wire.listens(nic)
        mine = sized(raw_address(other), 80, 1)
        assert wire.received_by(nic, [to_me(80, 2), mine]) == [mine]
    finally:
        change_mac(nic, card, MAC)
    wire.listens(nic)
    assert wire.received_by(nic, [mine, to_me(80, 2)]) == [to_me(80, 2)]


def test_statistics(nic: Uplink, wire: Peer, card: Card) -> None:
    before = nic.stats
    out = [to_peer(100 + seed, seed) for seed in range(20)]
    assert wire.sent_by(nic, out) == out
    back = [to_me(200 + seed, seed) for seed in range(10)]
    marker = 60
    assert wire.received_by(nic, back) == back
    after = nic.stats
    assert after.tx_frames - before.tx_frames == len(out)
    assert after.tx_bytes - before.tx_bytes == sum(map(len, out))
    assert after.rx_frames - before.rx_frames == len(back) + 1
    assert after.rx_bytes - before.rx_bytes == sum(map(len, back)) + marker
    assert after.rx_dropped == before.rx_dropped == 0
    assert (after.tx_errors, after.rx_errors) == (before.tx_errors, before.rx_errors)
    # The card counts for itself; the driver adds its counters up when it is asked.
    if card.counters:
        sent, received = card.counters
        assert after.driver[sent] - before.driver[sent] == len(out)
        assert after.driver[received] - before.driver[received] == len(back) + 1


def test_close_and_open_again(nic: Uplink, wire: Peer) -> None:
    nic.close()
    assert not nic.link_up
    with pytest.raises(LinkDown):
        nic.transmit([to_peer(60, 0)])
    nic.open()
    nic.wait_link(timeout=LIMIT)
    wire.listens(nic)
    frames: list[bytes | Frame] = [to_peer(60, 4), Frame(to_peer(1514, 5), vlan=0x123)]
    assert wire.sent_by(nic, frames) == [to_peer(60, 4), tagged(to_peer(1514, 5), 0x123)]


@only("qemu", "model")
def test_a_closed_card_is_quiet(host: VMkernel, nic: Uplink) -> None:
    card = next(adapter.function for adapter in host.adapters if adapter.uplink is nic)
    registers = card.bars[0].address

    def read(offset: int) -> int:
        return host.platform.bus.read(Space.MEMORY, registers + offset, 4)

    enabled = 2  # RCTL.EN and TCTL.EN (82540EM manual, 13.4.22 and 13.4.33)
    assert read(0x100) & enabled
    assert read(0x400) & enabled
    assert read(0xD0), "IMS: interrupts are on"
    nic.close()
    assert not read(0x100) & enabled
    assert not read(0x400) & enabled
    assert read(0xD0) == 0
    nic.open()
    nic.wait_link(timeout=LIMIT)


@only("qemu", "model", "82545em")
def test_set_vlans_filters_and_tags(nic: Uplink, wire: Peer) -> None:
    nic.set_vlans([0x123])
    try:
        wire.listens(nic)
        mine, other = tagged(to_me(80, 1), 0x123), tagged(to_me(80, 2), 0x124)
        assert wire.received_by(nic, [other, mine]) == [mine]
        assert wire.sent_by(nic, [Frame(to_peer(80, 3), vlan=0x123)]) == [tagged(to_peer(80, 3), 0x123)]
    finally:
        nic.set_vlans([])
    wire.listens(nic)
    assert wire.received_by(nic, [other, mine]) == [other, mine]
    with pytest.raises(UsageError, match="no VLAN ids"):
        nic.set_vlans([4096])


# Without any id it lets no tag through, where e1000.ko lets them all through.
@only("vmxnet3")
def test_vlans_of_a_driver_that_always_filters(nic: Uplink, wire: Peer) -> None:
    mine, other, plain = tagged(to_me(80, 1), 0x123), tagged(to_me(80, 2), 0x124), to_me(80, 3)
    assert wire.received_by(nic, [other, mine, plain]) == [plain]
    for ids, through in (([0x123], [mine, plain]), (range(4096), [other, mine, plain]), ([], [plain])):
        nic.set_vlans(ids)
        wire.listens(nic)
        assert wire.received_by(nic, [other, mine, plain]) == through
    assert wire.sent_by(nic, [Frame(to_peer(80, 3), vlan=0x123)]) == [tagged(to_peer(80, 3), 0x123)]


# e1000e.ko switches the filter on in RCTL and then writes there what it had read before (e1000e_set_rx_mode).
@only("e1000e", "e1000e-msix", engines=LINUX)
def test_vlans_of_a_driver_that_never_filters(nic: Uplink, wire: Peer) -> None:
    mine, other = tagged(to_me(80, 1), 0x123), tagged(to_me(80, 2), 0x124)
    for ids in ([0x123], []):
        nic.set_vlans(ids)
        wire.listens(nic)
        assert wire.received_by(nic, [other, mine]) == [other, mine]
        assert wire.sent_by(nic, [Frame(to_peer(80, 3), vlan=0x123)]) == [tagged(to_peer(80, 3), 0x123)]


@only("i82557b", "pcnet", "rtl8139")
def test_a_card_that_cannot_filter_vlans(nic: Uplink, card: Card) -> None:
    with pytest.raises(UsageError, match=f"{card.module} cannot filter VLANs"):
        nic.set_vlans([5])


# QEMU's netdev holds ten thousand frames and then drops: its card never waits for the wire.
@only("model")
def test_a_wire_that_nobody_reads(nic: Uplink, wire: Peer) -> None:
    frames = [ethernet(PEER, seed.to_bytes(4, "big") * 375, source=ME) for seed in range(8000)]
    taken = 0
    while nic.wait(tx=True, timeout=0.1):
        taken += nic.transmit(frames[taken : taken + 500])
        assert taken < len(frames), "the wire holds some 4 MiB"
    assert nic.transmit(frames[taken:]) == 0
    rest = frames[taken : taken + 500]
    with pytest.raises(TimedOut, match=r"vmnic0 took no frame for 0.1 s \(0 of 500 sent\)"):
        nic.transmit_all(rest, timeout=0.1)
    arriving = wire.collect(taken + len(rest))
    assert nic.wait(tx=True, timeout=LIMIT)
    nic.transmit_all(rest, timeout=LIMIT)
    assert arriving.result(LIMIT) == frames[: taken + len(rest)]
