"""Netlink with nobody to listen. Independent side: the header's layout (include/uapi/linux/netlink.h), which
Debian's image writes; that messages do not stay behind is our allocator's word."""

from __future__ import annotations

import errno
import struct

import pytest

from tests.vmklinux.conftest import objects
from vmkernel_core.memory import load_bytes
from vmklinux.kobject import Obj
from vmklinux.linux import Linux

NETLINK_ISCSI, MAX_LINKS = 8, 32
#: struct nlmsghdr: length, type, flags, sequence number, port.
HEADER = struct.Struct("<IHHII")


def message(linux: Linux, length: int) -> Obj:
    """An sk_buff with a message of that many bytes behind its header."""
    skb = Obj(linux.types, "sk_buff", linux.call(linux.entry("__alloc_skb"), HEADER.size + length, 0, 0, -1))
    assert linux.call("__nlmsg_put", skb, 0x1234, 77, 16, length, 0x301) == skb.data
    return skb


def socket(linux: Linux, unit: int = NETLINK_ISCSI) -> Obj:
    create = linux.entry("__netlink_kernel_create")
    return Obj(linux.types, "sock", linux.call(create, linux.symbols["init_net"], unit, 0, 0))


def test_a_message_has_its_header(linux: Linux) -> None:
    skb = message(linux, 10)
    assert HEADER.unpack(load_bytes(skb.data, HEADER.size)) == (26, 16, 0x301, 77, 0x1234)
    assert skb.len == 28, "padded to four bytes"
    linux.call(linux.entry("consume_skb"), skb)


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("netlink_broadcast", (0, 1, 0), errno.ESRCH),
        ("netlink_unicast", (0x1234, 1), errno.ECONNREFUSED),
    ],
)
def test_what_is_sent_is_freed_and_the_sender_learns_that_nobody_heard(
    linux: Linux, name: str, arguments: tuple[int, ...], error: int
) -> None:
    before = objects()
    kernel = socket(linux)
    assert kernel.sk_protocol == NETLINK_ISCSI
    assert linux.call_int(linux.entry(name), kernel, message(linux, 100), *arguments) == -error
    if name + "_filtered" in linux.symbols:  # what 6.12's inline functions call
        filtered = linux.entry(name + "_filtered")
        assert linux.call_int(filtered, kernel, message(linux, 100), *arguments) == -error
    linux.call(linux.entry("netlink_kernel_release"), kernel)
    assert objects() == before


def test_families_that_cannot_be_are_refused(linux: Linux) -> None:
    assert not socket(linux, MAX_LINKS)
    assert not socket(linux, -1)
    linux.call(linux.entry("netlink_kernel_release"), 0)
