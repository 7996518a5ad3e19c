"""Where the headers of a frame end. Independent side: Debian's own flow dissector, which says where the transport header
begins; how long that is, the RFCs say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.vmklinux.conftest import code
from vmkernel_core.memory import load, store_bytes

if TYPE_CHECKING:
    from vmklinux.linux import Linux

PAYLOAD = b"x" * 100
ADDRESSES = bytes.fromhex("525400000001525400000002")
TCP, UDP, ICMP, SCTP, UNKNOWN = 6, 17, 1, 132, 200
HEADERS = {
    TCP: struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 5 << 4, 16, 5, 6, 0),
    UDP: struct.pack(">HHHH", 1, 2, 108, 0),
    ICMP: struct.pack(">BBHHH", 8, 0, 0, 1, 1),
    SCTP: struct.pack(">HHII", 1, 2, 3, 4),
    UNKNOWN: b"",
}


def ipv4(protocol: int, *, options: bytes = b"", fragment: int = 0) -> bytes:
    words = 5 + len(options) // 4
    return (
        struct.pack(
            ">BBHHHBBH4s4s", 4 << 4 | words, 0, 0, 0, fragment, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
        )
        + options
    )


def ipv6(protocol: int) -> bytes:
    return struct.pack(">IHBB16s16s", 6 << 28, 100, protocol, 64, bytes(15) + b"\1", bytes(15) + b"\2")


def tags(*ids: int) -> bytes:
    return b"".join(b"\x81\x00" + struct.pack(">H", number) for number in ids)


#: What lies before the transport header, and which one that is.
FRAMES = {
    "tcp": (ADDRESSES + b"\x08\x00" + ipv4(TCP), TCP),
    "udp": (ADDRESSES + b"\x08\x00" + ipv4(UDP), UDP),
    "icmp": (ADDRESSES + b"\x08\x00" + ipv4(ICMP), ICMP),
    "sctp": (ADDRESSES + b"\x08\x00" + ipv4(SCTP), SCTP),
    "ip-options": (ADDRESSES + b"\x08\x00" + ipv4(UDP, options=b"\x01\x01\x01\x00"), UDP),
    "vlan": (ADDRESSES + tags(7) + b"\x08\x00" + ipv4(TCP), TCP),
    "two-vlans": (ADDRESSES + tags(7, 8) + b"\x86\xdd" + ipv6(TCP), TCP),
    "ipv6": (ADDRESSES + b"\x86\xdd" + ipv6(UDP), UDP),
    "unknown-transport": (ADDRESSES + b"\x08\x00" + ipv4(UNKNOWN), UNKNOWN),
}


@pytest.mark.parametrize("name", FRAMES)
def test_the_headers_end_where_the_payload_begins(linux: Linux, name: str) -> None:
    before, transport = FRAMES[name]
    frame = before + HEADERS[transport] + PAYLOAD
    assert _headers(linux, frame) == len(frame) - len(PAYLOAD)
    assert _transport_begins(linux, frame) == len(before)


def test_tcps_options_are_header(linux: Linux) -> None:
    header = bytearray(HEADERS[TCP]) + bytes(12)
    header[12] = 8 << 4
    before, _ = FRAMES["tcp"]
    assert _headers(linux, before + header + PAYLOAD) == len(before) + 32


def test_a_later_fragment_has_no_transport_header(linux: Linux) -> None:
    before = ADDRESSES + b"\x08\x00" + ipv4(UDP, fragment=10)
    assert _headers(linux, before + PAYLOAD) == len(before)


def test_no_more_than_there_is(linux: Linux) -> None:
    before, transport = FRAMES["two-vlans"]
    whole = before + HEADERS[transport]
    for length in range(len(whole) + 1):
        assert _headers(linux, whole[:length]) <= length
    assert _headers(linux, ADDRESSES + b"\x08\x06" + PAYLOAD) == 14


def _headers(linux: Linux, frame: bytes) -> int:
    address = linux.allocate(256)
    store_bytes(address, frame)
    try:
        return linux.call(linux.entry("eth_get_headlen"), 0, address, len(frame))
    finally:
        linux.free(address)


def _transport_begins(linux: Linux, frame: bytes) -> int:
    """Where it begins: what the image's dissector writes to flow_dissector_key_control.thoff."""
    dissector, keys = linux.new("flow_dissector"), linux.allocate(64)
    wanted, data = linux.allocate(32), linux.allocate(256)
    store_bytes(data, frame)
    kinds = [linux.types.enumerator(f"FLOW_DISSECTOR_KEY_{name}") for name in ("CONTROL", "BASIC")]
    size = linux.types.sizeof("flow_dissector_key")
    for number, kind in enumerate(kinds):  # enum flow_dissector_key_id key_id; size_t offset
        store_bytes(wanted + number * size, struct.pack("<IxxxxQ", kind, number * 16))
    linux.call("skb_flow_dissector_init", dissector, wanted, 2)
    protocol = int.from_bytes(frame[12:14], "little")
    # It takes four more arguments than a call can have: push them here. net, skb, dissector, keys, data, proto, then
    # nhoff, hlen, flags.
    function = code(
        b"\x68", bytes(4), b"\x68", len(frame).to_bytes(4, "little"), b"\x68", (14).to_bytes(4, "little"),
        b"\xb8", linux.symbols["__skb_flow_dissect"].to_bytes(4, "little"), b"\xff\xd0\x48\x83\xc4\x18",
    )  # fmt: skip
    assert linux.call(function, linux.symbols["init_net"], 0, dissector, keys, data, protocol) & 0xFF == 1
    begins = load(keys + linux.types.offsetof("flow_dissector_key_control", "thoff"), 2)
    for memory in (dissector, keys, wanted, data):
        linux.free(memory)
    return begins
