"""The BTF parser against Debian's kernels.

Independent: the BTF is what Debian's build wrote; what is read from it is compared with the same facts in
Debian's e1000.ko (sizes, relocations and tables that the C compiler made) and in Python's socket module.
The small BTF data at the end is written by hand after Linux Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import io
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from vmklinux.btf import (
    ArrayType,
    Btf,
    BtfError,
    EnumType,
    ForwardType,
    IntType,
    Kind,
    NoSuchField,
    NoSuchType,
    PointerType,
    Prototype,
    StructType,
    VoidType,
)
from vmklinux.kernels import read_module

if TYPE_CHECKING:
    from vmklinux.kernels import Kernel


@pytest.fixture(scope="module")
def e1000(kernel: Kernel) -> Any:
    return ELFFile(io.BytesIO(read_module(kernel.find_module("e1000"))))


@pytest.fixture(scope="module")
def module_types(e1000: Any, types: Btf) -> Btf:
    return Btf(e1000.get_section_by_name(".BTF").data(), base=types, origin="module e1000")


def test_struct_module_is_what_the_compiler_laid_out(types: Btf, e1000: Any) -> None:
    this_module = e1000.get_section_by_name(".gnu.linkonce.this_module")
    assert types.sizeof("module") == this_module["sh_size"]
    name = types.offsetof("module", "name")
    assert this_module.data()[name : name + 6] == b"e1000\0"
    symbols = e1000.get_section_by_name(".symtab")
    relocations = {
        symbols.get_symbol(entry["r_info_sym"]).name: entry["r_offset"]
        for entry in e1000.get_section_by_name(".rela.gnu.linkonce.this_module").iter_relocations()
    }
    assert relocations == {
        "init_module": types.offsetof("module", "init"),
        "cleanup_module": types.offsetof("module", "exit"),
    }


def test_a_table_of_the_module_has_the_struct_of_the_types(types: Btf, e1000: Any) -> None:
    (table,) = e1000.get_section_by_name(".symtab").get_symbol_by_name("e1000_pci_tbl")
    data = e1000.get_section(table["st_shndx"]).data()[table["st_value"] :][: table["st_size"]]
    size, vendor = types.sizeof("pci_device_id"), types.offsetof("pci_device_id", "vendor")
    assert len(data) % size == 0
    vendors = [struct.unpack_from("<I", data, start + vendor)[0] for start in range(0, len(data), size)]
    assert set(vendors[:-1]) == {0x8086}
    assert vendors[-1] == 0


def test_enumerators_of_the_user_api_have_the_values_that_python_knows(types: Btf) -> None:
    for name in ("IPPROTO_ICMP", "IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_ESP", "IPPROTO_RAW"):
        assert types.enumerator(name) == getattr(socket, name)
    with pytest.raises(NoSuchType, match="enumerator NAPI_STATE_NONESUCH"):
        types.enumerator("NAPI_STATE_NONESUCH")


def test_typedefs_and_integers(types: Btf) -> None:
    assert types.named("u8") == IntType("unsigned char", 1, signed=False, boolean=False)
    assert types.named("s64") == IntType("long long int", 8, signed=True, boolean=False)
    assert types.named("bool") == IntType("_Bool", 1, signed=False, boolean=True)
    assert types.sizeof("size_t") == struct.calcsize("N")
    irqreturn = types.named("irqreturn_t")
    assert isinstance(irqreturn, EnumType)
    assert irqreturn.enumerators["IRQ_HANDLED"] == 1
    with pytest.raises(NoSuchType, match="no type nonesuch_t"):
        types.sizeof("nonesuch_t")


def test_members_of_anonymous_structs_and_unions_are_flattened(types: Btf) -> None:
    skb = types.struct("sk_buff")
    assert types.offsetof("sk_buff", "next") == 0
    assert types.offsetof(skb, "prev") == 8
    # next, prev, and a union of the device with scratch space: the three pointers that sk_buff_list overlays.
    assert types.offsetof(skb, "dev") == types.offsetof(skb, "dev_scratch") == 16
    assert skb.field("pkt_type").bitfield_size == 3
    with pytest.raises(BtfError, match="'pkt_type' is a bitfield"):
        types.offsetof(skb, "pkt_type")


def test_paths(types: Btf) -> None:
    assert types.offsetof("pci_dev", "dev.driver_data") == types.offsetof("pci_dev", "dev") + types.offsetof(
        "device", "driver_data"
    )
    with pytest.raises(NoSuchField, match=r"struct device has no field 'nonesuch'.*kernel 6\.1"):
        types.offsetof("pci_dev", "dev.nonesuch")
    with pytest.raises(NoSuchField, match="nothing is inside 'x'"):
        types.offsetof("pci_dev", "vendor.x")
    with pytest.raises(NoSuchType, match=r"struct or union nonesuch \(kernel 6\.1"):
        types.offsetof("nonesuch", "x")


def test_prototypes(types: Btf) -> None:
    snprintf = types.function("snprintf")
    assert snprintf is not None
    assert [parameter.name for parameter in snprintf.parameters] == ["buf", "size", "fmt"]
    assert snprintf.variadic
    assert snprintf.result == IntType("int", 4, signed=True, boolean=False)
    register = types.function("__pci_register_driver")
    assert register is not None
    driver = register.parameters[0].type
    assert isinstance(driver, PointerType)
    assert driver.target is types.struct("pci_driver")
    assert not register.variadic
    kfree = types.function("kfree")
    assert kfree is not None
    assert kfree.result == VoidType()
    assert types.function("nonesuch") is None
    probe = types.struct("pci_driver").field("probe").type
    assert isinstance(probe, PointerType)
    assert isinstance(probe.target, Prototype)
    assert [parameter.type.size for parameter in probe.target.parameters] == [8, 8]


def test_a_module_adds_to_its_kernel(types: Btf, module_types: Btf) -> None:
    adapter = module_types.struct("e1000_adapter")
    netdev, pdev = adapter.field("netdev").type, adapter.field("pdev").type
    assert isinstance(netdev, PointerType)
    assert isinstance(pdev, PointerType)
    assert netdev.target is types.struct("net_device")
    assert pdev.target is types.struct("pci_dev")
    assert module_types.function("e1000_probe") is not None
    assert module_types.sizeof("u32") == 4
    assert module_types.enumerator("IPPROTO_TCP") == socket.IPPROTO_TCP
    with pytest.raises(NoSuchType):
        types.struct("e1000_adapter")


def test_types_are_decoded_once(types: Btf) -> None:
    assert types.struct("net_device") is types.struct("net_device")
    assert types.struct("net_device").fields is types.struct("net_device").fields


def test_every_type_of_a_kernel_decodes(types: Btf) -> None:
    structs, refused = 0, []
    for type_id in range(1, types.end_id):
        try:
            found = types.type(type_id)
        except BtfError as error:
            refused.append(str(error))
            continue
        if isinstance(found, StructType):
            structs += 1
            # A flexible array member may end the struct, so a field may begin at its end, but never beyond.
            assert all(member.offset_bits <= found.size * 8 for member in found.fields.values())
    assert structs > 5000
    # Functions, variables and tags are no types of values.
    assert all("is not the type of a value" in message for message in refused)


# ---- written by hand ------------------------------------------------------------------------------------


def record(kind: int, name: int, size: int, *more: int, count: int = 0, flag: bool = False) -> bytes:
    """A type record: its head, and the words that follow."""
    words = (name, flag << 31 | kind << 24 | count, size, *more)
    return struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words))


def blob(*records: bytes, names: bytes = b"") -> bytes:
    types, strings = b"".join(records), b"\0" + names
    return (
        struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    )


INT = record(Kind.INT, 1, 4, 1 << 24 | 32)
NAMES = b"int\0point\0x\0y\0"
#: 1: int, 2: struct point {int x; int y:3}, 3: pointer to 2, 4: const 2, 5: int[7]
SAMPLE = blob(
    INT,
    record(Kind.STRUCT, 5, 8, 11, 1, 0, 13, 1, 3 << 24 | 32, count=2, flag=True),
    record(Kind.PTR, 0, 2),
    record(Kind.CONST, 0, 2),
    record(Kind.ARRAY, 0, 0, 1, 1, 7),
    names=NAMES,
)


def test_a_sample_written_by_hand() -> None:
    types = Btf(SAMPLE)
    point = types.struct("point")
    assert (point.size, str(point), list(point.fields)) == (8, "struct point", ["x", "y"])
    y = point.field("y")
    assert (y.offset_bits, y.bitfield_size) == (32, 3)
    assert types.type(4) is point
    array = types.type(5)
    assert isinstance(array, ArrayType)
    assert (array.size, array.element) == (28, types.named("int"))


def test_signed_and_64_bit_enums() -> None:
    types = Btf(
        blob(
            record(Kind.ENUM, 0, 4, 1, -5, count=1, flag=True),
            record(Kind.ENUM, 0, 4, 3, -5, count=1),
            record(Kind.ENUM64, 0, 8, 5, 2, 1, 7, -1, -1, count=2, flag=True),
            record(Kind.ENUM64, 0, 8, 9, -1, -1, count=1),
            names=b"A\0B\0C\0D\0E\0",
        )
    )
    values = {name: types.enumerator(name) for name in "ABCDE"}
    assert values == {"A": -5, "B": (1 << 32) - 5, "C": (1 << 32) + 2, "D": -1, "E": (1 << 64) - 1}


def test_a_declaration_resolves_to_the_definition_of_the_same_name() -> None:
    base = Btf(blob(record(Kind.FWD, 1, 0), record(Kind.STRUCT, 7, 0), names=b"later\0known\0"))
    assert isinstance(base.type(1), ForwardType)
    assert str(base.type(1)) == "struct later"
    # The module's ids go on at 3, its string offsets at 13.
    module = Btf(
        blob(
            record(Kind.FWD, 14, 0),
            record(Kind.STRUCT, 20, 4),
            record(Kind.PTR, 0, 1),
            names=b"known\0later\0",
        ),
        base=base,
    )
    assert module.type(3) is base.struct("known")
    pointer = module.type(5)
    assert isinstance(pointer, PointerType)
    assert pointer.target is module.struct("later")
    assert module.struct("later").size == 4


def test_the_index_can_be_kept(types: Btf) -> None:
    first = Btf(SAMPLE)
    again = Btf(SAMPLE, index=first.index())
    assert again.struct("point").fields.keys() == {"x", "y"}
    with pytest.raises(BtfError, match="belongs to other BTF"):
        Btf(SAMPLE + b"\0", index=first.index())
    with pytest.raises(BtfError, match="index is damaged"):
        Btf(SAMPLE, index=first.index()[:-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends inside the header.*byte 0x0"),
        (b"\xeb\x9f" + SAMPLE[2:], "magic number.*byte 0x0"),
        (SAMPLE[:2] + b"\x02" + SAMPLE[3:], "version 2.*byte 0x2"),
        (SAMPLE[:-1], f"ends before.*byte {len(SAMPLE) - 1:#x}"),
        (blob(names=b"x"), "do not end with a zero byte"),
        (blob(INT, INT[:8], names=NAMES), "cut off.*byte 0x28"),
        (blob(record(31, 0, 0)), "unknown kind 31.*byte 0x18"),
        (blob(INT, record(Kind.STRUCT, 0, 8, count=3), names=NAMES), r"type 2 \(STRUCT\).*byte 0x28"),
        (blob(record(Kind.STRUCT, 99, 0)), "string offset 0x63.*byte 0x18"),
    ],
)
def test_malformed_data_is_told_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(BtfError, match=message):
        Btf(data)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(Kind.TYPEDEF, 0, 1)], "TYPEDEF.*not the type of a value"),
        ([record(Kind.CONST, 0, 9)], "no type 9"),
        ([record(Kind.ARRAY, 0, 0, 1, 1, 2)], "the array itself"),
        ([record(Kind.STRUCT, 0, 8, 0, 1, 0, count=1)], "struct type 1 contains itself"),
        ([record(Kind.FUNC, 0, 0)], "FUNC.*not the type of a value"),
        ([record(Kind.INT, 0, 4, 3)], "bitfield by itself"),
    ],
)
def test_types_that_make_no_sense(records: list[bytes], message: str) -> None:
    with pytest.raises(BtfError, match=message):
        touch(Btf(blob(*records)))


def touch(types: Btf) -> None:
    """Look at all there is."""
    for type_id in range(types.end_id):
        found = types.type(type_id)
        assert found.size >= 0
        match found:
            case StructType():
                assert isinstance(found.fields, dict)
            case PointerType():
                assert found.target is not None
            case _:
                pass


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SAMPLE)),
)
def test_damaged_data_gives_a_btf_error_or_some_types(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SAMPLE)
    for place, value in changes:
        data[place] = value
    for candidate in (bytes(data), bytes(data[:length])):
        with suppress(BtfError):
            touch(Btf(candidate))
