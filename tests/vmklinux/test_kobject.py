"""Typed views of kernel objects.

Independent: the types are Debian's kernels'; memory is looked at with ctypes and struct; the places of the
fields are those of RFC 791, RFC 9293 and of Linux's user API, and Debian's e1000.ko has a table of structs
to read.
"""

from __future__ import annotations

import ctypes
import io
import struct
from typing import TYPE_CHECKING, Any

import pytest
from elftools.elf.elffile import ELFFile

from vmklinux.btf import Btf, BtfError, NoSuchField
from vmklinux.kernels import read_module
from vmklinux.kobject import (
    NotScalar,
    NullDereference,
    Obj,
    addressof,
    cast,
    container_of,
    typeof,
    zero,
)

if TYPE_CHECKING:
    from vmklinux.kernels import Kernel


class Memory:
    """Some zeroed memory of this process."""

    def __init__(self, content: bytes = b"", size: int = 16384) -> None:
        self.buffer = ctypes.create_string_buffer(content, max(size, len(content) + 64))
        self.address = ctypes.addressof(self.buffer)

    def __getitem__(self, span: slice) -> bytes:
        return self.buffer.raw[span]


def test_bitfields_of_an_ip_header(types: Btf) -> None:
    memory = Memory(struct.pack(">BBHHHBBHII", 0x45, 0, 84, 7, 0, 64, 6, 0, 0x0A000001, 0x0A000002))
    ip = cast(types, "iphdr", memory.address)
    assert (ip.version, ip.ihl, ip.ttl, ip.protocol) == (4, 5, 64, 6)
    ip.ihl = 6
    assert memory[0:1] == b"\x46"
    ip.version = 0x16  # wraps to its four bits
    assert memory[0:1] == b"\x66"


def test_bitfields_of_a_tcp_header(types: Btf) -> None:
    memory = Memory()
    tcp = cast(types, "tcphdr", memory.address)
    tcp.doff, tcp.syn, tcp.ack = 5, 1, 1
    assert memory[12:14] == b"\x50\x12"
    tcp.syn = 0
    assert memory[12:14] == b"\x50\x10"
    assert (tcp.doff, tcp.syn, tcp.ack) == (5, 0, 1)


def test_a_table_of_a_module_is_read(kernel: Kernel, types: Btf) -> None:
    elf: Any = ELFFile(io.BytesIO(read_module(kernel.find_module("e1000"))))
    (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("e1000_pci_tbl")
    memory = Memory(elf.get_section(symbol["st_shndx"]).data()[symbol["st_value"] :][: symbol["st_size"]])
    first = cast(types, "pci_device_id", memory.address)
    assert (first.vendor, first.device, first.subvendor) == (0x8086, 0x1000, 0xFFFFFFFF)
    count = symbol["st_size"] // typeof(first).size
    assert {first[number].vendor for number in range(count - 1)} == {0x8086}
    assert first[count - 1].vendor == 0


def test_integers_have_their_sign_and_wrap(types: Btf) -> None:
    memory = Memory()
    device = cast(types, "net_device", memory.address)
    device.ifindex, device.mtu = -3, -1
    assert (device.ifindex, device.mtu) == (-3, 0xFFFFFFFF)
    place = addressof(device, "ifindex") - memory.address
    assert memory[place : place + 4] == struct.pack("<i", -3)


def test_bool(types: Btf) -> None:
    memory = Memory()
    module = cast(types, "module", memory.address)
    assert module.sig_ok is False
    module.sig_ok = 2
    assert module.sig_ok is True
    place = addressof(module, "sig_ok") - memory.address
    assert memory[place : place + 1] == b"\x01"


def test_pointers_and_nested_structs(types: Btf) -> None:
    memory = Memory()
    device = cast(types, "net_device", memory.address)
    assert not device._tx
    queue = cast(types, "netdev_queue", memory.address + 8192)
    device._tx = queue
    assert device._tx == queue
    assert repr(device._tx) == f"struct netdev_queue @ {memory.address + 8192:#x}"
    assert device._tx[2] == cast(types, "netdev_queue", int(queue) + 2 * typeof(queue).size)
    queue.dev = device
    assert queue.dev.ifindex == 0
    assert hash(queue.dev) == hash(device)
    inner = device.dev
    assert repr(inner).startswith("struct device @ ")
    assert container_of(inner, types, "net_device", "dev") == device
    inner.driver_data = 0x1234
    assert device.dev.driver_data == 0x1234
    device._tx = 0
    assert not device._tx
    # void and function pointers are addresses, and so are those of scalars.
    ops = cast(types, "net_device_ops", memory.address + 8192)
    ops.ndo_open = 0x41000000
    assert ops.ndo_open == 0x41000000
    assert (device != device._tx, device == 5) == (True, False)


def test_a_circular_list(types: Btf) -> None:
    memory = Memory()
    head = cast(types, "list_head", memory.address)
    entry = cast(types, "list_head", memory.address + 16)
    head.next = head.prev = entry
    entry.next = entry.prev = head
    assert head.next.next == head
    assert memory[0:16] == struct.pack("<QQ", memory.address + 16, memory.address + 16)
    zero(head)
    assert memory[0:16] == bytes(16)
    assert int(entry.next) == memory.address


def test_arrays(types: Btf) -> None:
    memory = Memory()
    device = cast(types, "net_device", memory.address)
    name = device.name
    for place, letter in enumerate(b"vmnic0"):
        name[place] = letter
    assert (len(name), name.text(), name[-1], name.raw()) == (16, "vmnic0", 0, b"vmnic0" + bytes(10))
    with pytest.raises(IndexError):
        name[16]
    with pytest.raises(IndexError):
        name[-17]
    assert list(name)[:3] == list(b"vmn")
    pci = cast(types, "pci_dev", memory.address + 4096)
    pci.resource[1].start = 0xC000
    assert [resource.start for resource in pci.resource][:3] == [0, 0xC000, 0]
    assert typeof(pci.resource[1]) is types.struct("resource")


def test_a_flexible_array_takes_any_index(types: Btf) -> None:
    memory = Memory()
    table = cast(types, "rps_map", memory.address)
    table.cpus[3] = 7
    assert len(table.cpus) == 0
    assert list(table.cpus) == []
    assert table.cpus[3] == 7
    with pytest.raises(IndexError):
        table.cpus[-1]


def test_keywords_of_python_as_names(types: Btf) -> None:
    memory = Memory()
    pci = cast(types, "pci_dev", memory.address)
    setattr(pci, "class", 0x020000)
    assert getattr(pci, "class") == 0x020000
    assert "class" in dir(pci)


def test_what_cannot_be_used_says_so(types: Btf) -> None:
    memory = Memory()
    device = cast(types, "net_device", memory.address)
    with pytest.raises(NoSuchField, match=r"struct net_device has no field 'nonesuch'"):
        _ = device.nonesuch
    with pytest.raises(NoSuchField, match="nonesuch"):
        device.nonesuch = 1
    assert not hasattr(device, "nonesuch")
    with pytest.raises(NotScalar, match=r"struct net_device\.dev cannot be assigned"):
        device.dev = device
    with pytest.raises(NotScalar, match=r"struct net_device\.name cannot be assigned"):
        device.name = 1
    with pytest.raises(TypeError):
        device.mtu = "1500"
    with pytest.raises(TypeError):
        iter(device)
    with pytest.raises(BtfError, match="bitfield"):
        addressof(cast(types, "iphdr", memory.address), "ihl")


@pytest.mark.parametrize("address", [0, 8, (1 << 64) - 12])
def test_nothing_is_read_or_written_at_null_or_at_an_error_code(types: Btf, address: int) -> None:
    device = Obj(types, types.struct("net_device"), address)
    assert bool(device) == (address != 0)
    with pytest.raises(NullDereference, match="'mtu' of struct net_device @"):
        _ = device.mtu
    with pytest.raises(NullDereference):
        device.mtu = 1


def test_a_struct_that_is_only_declared(types: Btf) -> None:
    memory = Memory()
    device = cast(types, "net_device", memory.address)
    device.mrp_port = memory.address + 8192
    # The private struct of a module; the kernel itself has only its name.
    port = device.mrp_port
    assert repr(port) == f"struct mrp_port @ {memory.address + 8192:#x}"
    with pytest.raises(NoSuchField, match="struct mrp_port is declared, but not defined"):
        _ = port.anything
    with pytest.raises(NoSuchField, match="declared, but not defined"):
        zero(port)
