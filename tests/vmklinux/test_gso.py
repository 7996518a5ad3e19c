"""Copies and segments of sk_buffs. The judge is RFC 1071's sum, written for these tests; skb_put, and the copying of
bytes out of an sk_buff, are Debian's own image's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.e2e.packets import ACK, FIN, IPV4, IPV6, PEER, PSH, TCP, UDP, Datagram, pattern, unfinished
from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.kobject import Obj
from vmklinux.linux import Linux

CWR = 0x80
GSO_SIZE = 1000
HEADROOM = 64
EPROTONOSUPPORT, EINVAL = 93, 22


def make(linux: Linux, frame: bytes, transport: int) -> Obj:
    """An sk_buff that holds the frame, with its TCP header there."""
    address = linux.call(linux.entry("__alloc_skb"), len(frame) + HEADROOM, 0, 0, 0xFFFFFFFF)
    skb = Obj(linux.types, "sk_buff", address)
    skb.data = int(skb.data) + HEADROOM
    skb.tail = skb.tail + HEADROOM
    store_bytes(linux.call("skb_put", skb, len(frame)), frame)
    skb.mac_header = HEADROOM
    skb.network_header = HEADROOM + 14
    skb.transport_header = HEADROOM + transport
    return skb


def shared_info(linux: Linux, skb: Obj) -> Obj:
    return Obj(linux.types, "skb_shared_info", int(skb.head) + skb.end)


def content(skb: Obj) -> bytes:
    return load_bytes(int(skb.data), skb.len)


def chain(skb: Obj) -> Iterator[Obj]:
    while skb:
        yield skb
        skb = skb.next


def free(linux: Linux, *skbs: Obj) -> None:
    for skb in skbs:
        linux.call(linux.entry("consume_skb"), skb)


def segments_of(linux: Linux, frame: bytes, features: int, kind: int) -> list[Obj]:
    skb = make(linux, frame, 34 if kind == IPV4 else 54)
    info = shared_info(linux, skb)
    info.gso_size = GSO_SIZE
    info.gso_type = linux.types.enumerator("SKB_GSO_TCPV4" if kind == IPV4 else "SKB_GSO_TCPV6")
    segments = list(
        chain(Obj(linux.types, "sk_buff", linux.call(linux.entry("__skb_gso_segment"), skb, features, 1)))
    )
    assert content(skb) == frame, "the large frame stays as it was"
    free(linux, skb)
    return segments


@pytest.mark.parametrize("length", [1, GSO_SIZE, GSO_SIZE + 1, 5 * GSO_SIZE, 60_000])
@pytest.mark.parametrize("kind", [IPV4, IPV6])
def test_segments_are_frames_of_their_own(linux: Linux, kind: int, length: int) -> None:
    payload = pattern(length, 3)
    frame = unfinished(PEER, payload, kind=kind, flags=FIN | PSH | ACK | CWR, identification=0xFFFE)
    skbs = segments_of(linux, frame, 0, kind)
    sent = [Datagram(content(skb)) for skb in skbs]
    assert b"".join(datagram.payload for datagram in sent) == payload
    assert [len(datagram.payload) for datagram in sent[:-1]] == [GSO_SIZE] * (len(sent) - 1)
    assert all(datagram.header_is_good and datagram.checksum_is_good for datagram in sent)
    assert [datagram.sequence for datagram in sent] == [0x1000_0000 + n * GSO_SIZE for n in range(len(sent))]
    if kind == IPV4:
        assert [datagram.identification for datagram in sent] == [
            (0xFFFE + n) & 0xFFFF for n in range(len(sent))
        ]
    middle = [ACK] * len(sent)
    middle[0] |= CWR
    middle[-1] |= FIN | PSH
    assert [datagram.flags for datagram in sent] == middle
    assert all(datagram.end == len(datagram.frame) for datagram in sent)
    assert all(shared_info(linux, skb).gso_size == 0 for skb in skbs)
    free(linux, *skbs)


def test_a_card_that_sums_gets_the_pseudo_headers_sum(linux: Linux) -> None:
    features = 1 << linux.types.enumerator("NETIF_F_HW_CSUM_BIT")
    skbs = segments_of(linux, unfinished(PEER, pattern(2500, 1)), features, IPV4)
    payloads = [pattern(2500, 1)[at : at + GSO_SIZE] for at in range(0, 2500, GSO_SIZE)]
    for skb, (number, payload) in itertools.zip_longest(skbs, enumerate(payloads)):
        expected = unfinished(
            PEER, payload, sequence=0x1000_0000 + number * GSO_SIZE, identification=0x4000 + number
        )
        assert content(skb) == expected
        assert skb.ip_summed == 3  # CHECKSUM_PARTIAL
        assert (skb.csum_start - HEADROOM, skb.csum_offset) == (34, 16)
    free(linux, *skbs)


def test_what_is_no_tcp_is_refused(linux: Linux) -> None:
    skb = make(linux, unfinished(PEER, pattern(2500, 1), protocol=UDP), 34)
    segment = linux.entry("__skb_gso_segment")
    assert linux.call(segment, skb, 0, 1) == (1 << 64) - EPROTONOSUPPORT
    shared_info(linux, skb).gso_type = linux.types.enumerator("SKB_GSO_TCPV4")
    assert linux.call(segment, skb, 0, 1) == (1 << 64) - EINVAL  # no size
    shared_info(linux, skb).gso_size = 1000
    skb.transport_header = skb.network_header
    assert linux.call(segment, skb, 0, 1) == (1 << 64) - EINVAL
    free(linux, skb)


@pytest.mark.parametrize(
    ("name", "rooms", "headroom"), [("skb_copy", (0,), HEADROOM), ("skb_copy_expand", (96, 200, 0), 96)]
)
def test_a_copy_has_data_of_its_own(linux: Linux, name: str, rooms: tuple[int, ...], headroom: int) -> None:
    frame = unfinished(PEER, pattern(700, 9), protocol=TCP)
    skb = make(linux, frame, 34)
    skb.vlan_tci, skb.queue_mapping, skb.csum_start = 0x123, 2, HEADROOM + 34
    shared_info(linux, skb).gso_size = 77
    copy = Obj(linux.types, "sk_buff", linux.call(linux.entry(name), skb, *rooms))
    store_bytes(int(skb.data), bytes(len(frame)))
    assert content(copy) == frame
    assert int(copy.data) - int(copy.head) == headroom
    assert copy.end - copy.tail >= (rooms[1] if len(rooms) > 1 else 0)
    assert (copy.network_header, copy.transport_header, copy.csum_start) == (
        headroom + 14,
        headroom + 34,
        headroom + 34,
    )
    assert (copy.vlan_tci, copy.queue_mapping, shared_info(linux, copy).gso_size) == (0x123, 2, 77)
    free(linux, skb, copy)


def test_a_clone_shares_the_data_until_one_of_them_needs_its_own(linux: Linux) -> None:
    skb = make(linux, pattern(200, seed=1), 34)
    twin = Obj(linux.types, "sk_buff", linux.call(linux.entry("skb_clone"), skb))
    assert int(twin.data) == int(skb.data)
    assert linux.call_int(linux.entry("pskb_expand_head"), twin, 32, 0, 0) == 0
    assert int(twin.head) != int(skb.head)
    store_bytes(int(twin.data), b"changed")
    assert content(skb) == pattern(200, seed=1)
    third = Obj(linux.types, "sk_buff", linux.call(linux.entry("skb_clone"), skb))
    free(linux, skb)
    assert content(third) == pattern(200, seed=1), "the data stays for who still has it"
    free(linux, third, twin)


def test_more_head_room_is_a_copy_with_its_headers_where_they_were(linux: Linux) -> None:
    skb = make(linux, pattern(200, seed=2), 34)
    roomy = Obj(linux.types, "sk_buff", linux.call(linux.entry("skb_realloc_headroom"), skb, HEADROOM + 100))
    assert content(roomy) == content(skb)
    assert int(roomy.data) - int(roomy.head) >= HEADROOM + 100
    assert roomy.transport_header - (int(roomy.data) - int(roomy.head)) == 34
    free(linux, skb, roomy)
