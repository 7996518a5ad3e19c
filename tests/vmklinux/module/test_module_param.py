"""Module parameters. Independent side: Debian's modules (symbols say where a variable is), and ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmklinux.btf import Btf
from vmklinux.kernels import Kernel
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import BadParameter, CorruptModule
from vmklinux.module.param import (
    CUSTOM,
    TYPES,
    Parameter,
    Setting,
    StringWrite,
    Write,
    encode,
    parameters,
    parse_setting,
)

C_TYPES: Mapping[str, type[ctypes._SimpleCData[int]]] = {
    "byte": ctypes.c_ubyte,
    "short": ctypes.c_short,
    "ushort": ctypes.c_ushort,
    "int": ctypes.c_int,
    "uint": ctypes.c_uint,
    "long": ctypes.c_long,
    "ulong": ctypes.c_ulong,
    "ullong": ctypes.c_ulonglong,
    "hexint": ctypes.c_uint,
}
WIDEST = 1 << 65


def _parameter(kind: str, capacity: int = 0) -> Parameter:
    return Parameter("module", "value", TYPES[f"param_ops_{kind}"], "", offset=0x100, capacity=capacity)


def _set(parameter: Parameter, text: str) -> list[Write | StringWrite]:
    return encode(parse_setting("module", {"value": parameter}, f"value={text}"))


@pytest.fixture(scope="session")
def known(e1000: ModuleFile, types: Btf) -> dict[str, Parameter]:
    """The parameters of e1000."""
    return parameters(e1000, types)


def test_the_parameters_of_e1000(known: dict[str, Parameter], e1000: ModuleFile) -> None:
    assert known.keys() == e1000.info.parameters.keys()
    assert len(known) == 15
    debug = known["debug"]
    assert (debug.type.name, debug.array, debug.count) == ("int", False, 1)
    assert debug.description == "Debug level (0=none,...,16=all)"
    assert known["copybreak"].type.name == "uint"
    speed = known["Speed"]
    assert (speed.type.name, speed.array, speed.count, speed.stride) == ("int", True, 33, 4)


def test_a_setting_goes_to_the_variable_of_its_name(known: dict[str, Parameter], e1000: ModuleFile) -> None:
    base = 0x60000000
    symbols = e1000.link(base, lambda _name: base).symbols
    assert encode(parse_setting("e1000", known, "debug=16")) == [
        Write(symbols["debug"] - base, b"\x10\0\0\0")
    ]
    assert encode(parse_setting("e1000", known, "Speed=100,0x3e8,012")) == [
        Write(symbols["num_Speed"] - base, b"\x03\0\0\0"),
        Write(symbols["Speed"] - base, b"\x64\0\0\0"),
        Write(symbols["Speed"] + 4 - base, b"\xe8\x03\0\0"),
        Write(symbols["Speed"] + 8 - base, b"\x0a\0\0\0"),
    ]


def test_text_parameters(kernel: Kernel, types: Btf) -> None:
    pointers = parameters(ModuleFile.read(kernel.find_module("myri10ge")), types)
    names = pointers["myri10ge_fw_names"]
    assert names.array
    assert names.count_offset is None
    assert encode(parse_setting("myri10ge", pointers, "myri10ge_fw_names=a,,bc")) == [
        StringWrite(names.offset, b"a\0"),
        StringWrite(names.offset + 8, b"\0"),
        StringWrite(names.offset + 16, b"bc\0"),
    ]
    buffers = parameters(ModuleFile.read(kernel.find_module("scsi_debug")), types)
    vendor = buffers["inq_vendor"]
    assert (vendor.type.name, vendor.capacity) == ("string", 9)
    assert encode(parse_setting("scsi_debug", buffers, "inq_vendor=ABC=D,E")) == [
        Write(vendor.offset, b"ABC=D,E\0")
    ]
    with pytest.raises(BadParameter, match="at most 8 bytes"):
        parse_setting("scsi_debug", buffers, "inq_vendor=123456789")


def test_a_parameter_that_its_driver_reads_itself(kernel: Kernel, types: Btf) -> None:
    known = parameters(ModuleFile.read(kernel.find_module("mptbase")), types)
    assert known["mpt_debug_level"].type is CUSTOM
    with pytest.raises(BadParameter, match="by a function of its own"):
        parse_setting("mptbase", known, "mpt_debug_level=1")
    assert known["mpt_msi_enable_spi"].type.name == "int"


def test_a_module_without_parameters(kernel: Kernel, types: Btf) -> None:
    assert parameters(ModuleFile.read(kernel.find_module("mii")), types) == {}


def test_every_driver_s_parameters_can_be_read(kernel: Kernel, types: Btf) -> None:
    for path in kernel.modules_under("drivers/scsi"):
        module = ModuleFile.read(path)
        for parameter in parameters(module, types).values():
            assert 0 <= parameter.offset < module.layout.size, f"{module.name}.{parameter.name}"


@pytest.mark.parametrize("kind", C_TYPES)
@given(value=st.integers(-WIDEST, WIDEST) | st.integers(-300, 300), form=st.sampled_from(["d", "#x", "o"]))
def test_whole_numbers(kind: str, value: int, form: str) -> None:
    text = f"{value:{form}}" if form != "o" else f"{'-' * (value < 0)}0{abs(value):o}"
    stored = C_TYPES[kind](value)
    parameter = _parameter(kind)
    if stored.value == value:
        assert _set(parameter, text) == [Write(0x100, bytes(stored))]
    else:
        with pytest.raises(BadParameter, match=f"value \\({kind}\\) does not take"):
            _set(parameter, text)


@pytest.mark.parametrize("kind", C_TYPES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "0x",
        "08",
        "1.0",
        "1e3",
        "--1",
        "+-1",
        "1 ",
        " 1",
        "1,2",
        "1_0",
        "\u0661",
        "0b1",
        "9" * 5000,
    ],
)
def test_what_is_no_number(kind: str, text: str) -> None:
    with pytest.raises(BadParameter):
        _set(_parameter(kind), text)


@pytest.mark.parametrize(
    ("kind", "yes", "no"),
    [("bool", b"\1", b"\0"), ("invbool", b"\0", b"\1"), ("bint", b"\1\0\0\0", b"\0\0\0\0")],
)
def test_truth_values(kind: str, yes: bytes, no: bytes) -> None:
    for text in ("y", "Y", "1", "yes", "on", "true"):
        assert _set(_parameter(kind), text) == [Write(0x100, yes)]
    for text in ("n", "N", "0", "no", "off", "false"):
        assert _set(_parameter(kind), text) == [Write(0x100, no)]
    for text in ("", "2", "maybe", "yn", "nope"):
        with pytest.raises(BadParameter, match="give y or n"):
            _set(_parameter(kind), text)


def test_a_name_alone_means_yes_only_for_truth_values() -> None:
    flag = {"value": _parameter("bool")}
    assert parse_setting("module", flag, "value") == Setting(flag["value"], (1,))
    with pytest.raises(BadParameter, match="needs a value"):
        parse_setting("module", {"value": _parameter("int")}, "value")


def test_dashes_and_underscores_are_the_same() -> None:
    known = {"rx_copy_break": _parameter("int")}
    assert parse_setting("module", known, "rx-copy-break=3").values == (3,)


def test_an_unknown_name_is_told_with_its_neighbour(known: dict[str, Parameter]) -> None:
    with pytest.raises(
        BadParameter, match="module e1000: has no parameter 'copybrake'; did you mean copybreak"
    ):
        parse_setting("e1000", known, "copybrake=1")
    with pytest.raises(BadParameter, match="it takes none") as caught:
        parse_setting("mii", {}, "debug=1")
    assert caught.value.exit_code == 3


def test_too_many_values(known: dict[str, Parameter]) -> None:
    assert len(parse_setting("e1000", known, "Speed=" + ",".join("1" * 33)).values) == 33
    with pytest.raises(BadParameter, match="at most 33 values, not 34"):
        parse_setting("e1000", known, "Speed=" + ",".join("1" * 34))
    with pytest.raises(BadParameter, match="debug"):
        parse_setting("e1000", known, "debug=1,2")


def test_a_long_text_is_refused() -> None:
    assert _set(_parameter("charp"), "x" * 1024) == [StringWrite(0x100, b"x" * 1024 + b"\0")]
    with pytest.raises(BadParameter, match="at most 1024 bytes"):
        _set(_parameter("charp"), "x" * 1025)


@given(kind=st.sampled_from(sorted(TYPES)), text=st.text())
def test_any_text_is_a_value_or_a_bad_parameter(kind: str, text: str) -> None:
    parameter = _parameter(kind.removeprefix("param_ops_"), capacity=9)
    with suppress(BadParameter):
        (write,) = _set(parameter, text)
        assert write.offset == 0x100


def test_a_declared_type_that_contradicts_the_code(e1000_bytes: bytes, types: Btf) -> None:
    declared = b"parmtype=debug:"
    assert e1000_bytes.count(declared + b"int\0") == 1
    module = ModuleFile.parse(e1000_bytes.replace(declared + b"int\0", declared + b"xyz\0"), "e1000")
    with pytest.raises(CorruptModule, match="parameter debug is int but declared xyz"):
        parameters(module, types)
