"""The PCI scan. Independent side: QEMU's device models, and its monitor's own account of their BARs.
For configuration space that no sane device has, a function made here (ours) stands in.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkernel_core.bus import Bus, Space
from vmkernel_core.memory import MachineMemory
from vmkernel_core.pci import COMMAND, Bar, BarKind, Capability, PciError, PciFunction, scan
from vmkernel_core.platform.base import Apertures, PciAddress, Wire
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.platform.qemu_doorbell import ADDRESS as DOORBELL

DEVICES = [
    "e1000,netdev=wire0,addr=3",
    "e1000e,netdev=wire1,addr=4",
    "pcnet,addr=5",
    "megasas,addr=6",
    "virtio-net-pci,addr=7",
    "pcie-root-port,chassis=1,addr=8",
    "ich9-usb-uhci1,multifunction=on,addr=9.0",
    "ich9-usb-uhci2,addr=9.1",
    "mptsas1068,addr=a",
]


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[QemuPlatform, list[PciFunction]]]:
    with MachineMemory(64 << 20) as memory:
        platform = QemuPlatform(DEVICES)
        platform.start(memory)
        try:
            yield platform, scan(platform)
        finally:
            platform.stop()


def at(functions: list[PciFunction], device: int, function: int = 0) -> PciFunction:
    return next(f for f in functions if f.address == PciAddress(0, 0, device, function))


def test_what_is_there(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    _, functions = machine
    assert [str(f) for f in functions] == [
        "0000:00:00.0 [8086:29c0]",
        "0000:00:03.0 [8086:100e]",
        "0000:00:04.0 [8086:10d3]",
        "0000:00:05.0 [1022:2000]",
        "0000:00:06.0 [1000:0060]",
        "0000:00:07.0 [1af4:1000]",
        "0000:00:08.0 [1b36:000c]",
        "0000:00:09.0 [8086:2934]",
        "0000:00:09.1 [8086:2935]",
        "0000:00:0a.0 [1000:0054]",
        "0000:00:1f.0 [8086:2918]",
    ]
    e1000 = at(functions, 3)
    assert (e1000.subsystem_vendor, e1000.subsystem_device) == (0x1AF4, 0x1100)
    assert (e1000.class_code, e1000.revision, e1000.header_type, e1000.interrupt_pin) == (0x020000, 3, 0, 1)
    assert at(functions, 9, 1).interrupt_pin == 2
    root_port = at(functions, 8)
    assert (root_port.class_code, root_port.header_type, len(root_port.bars)) == (0x060400, 1, 1)


def test_bars_are_what_qemu_says(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    platform, functions = machine
    for function in functions:
        assert platform.config_read(function.address, COMMAND, 2) & 3 == 0 or not function.bars
    for function in functions:  # QEMU tells a region's address only while it is decoded
        command = platform.config_read(function.address, COMMAND, 2)
        platform.config_write(function.address, COMMAND, 2, command | 3)
    buses: Any = platform.monitor("query-pci")
    told = {
        (device["slot"], device["function"]): {
            (
                r["bar"],
                r["type"],
                r["address"],
                r["size"],
                r.get("prefetch", False),
                r.get("mem_type_64", False),
            )
            for r in device["regions"]
        }
        for device in buses[0]["devices"]
        if (device["slot"], device["function"]) != (DOORBELL.device, DOORBELL.function)
    }
    found = {
        (f.address.device, f.address.function): {
            (
                bar.index,
                "io" if bar.kind == BarKind.IO else "memory",
                bar.address,
                bar.size,
                bar.prefetchable,
                bar.kind == BarKind.MEMORY64,
            )
            for bar in f.bars
        }
        for f in functions
    }
    assert found == told
    assert {bar.kind for f in functions for bar in f.bars} == set(BarKind)


def test_addresses_do_not_overlap(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    platform, functions = machine
    for kinds, (start, length) in (
        ({BarKind.IO}, platform.apertures.io),
        ({BarKind.MEMORY32, BarKind.MEMORY64}, platform.apertures.memory),
    ):
        ranges = sorted((b.address, b.address + b.size) for f in functions for b in f.bars if b.kind in kinds)
        assert ranges[0][0] >= start
        assert ranges[-1][1] <= start + length
        assert all(low[1] <= high[0] for low, high in itertools.pairwise(ranges))


def test_capabilities(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    _, functions = machine
    assert at(functions, 3).capabilities == ()
    # Intel 82574 datasheet 317694, 9.2: power management, MSI, PCI Express, MSI-X; 9.3: AER, serial number.
    assert set(at(functions, 4).capabilities) == {
        Capability(0x01, 0xC8, False),
        Capability(0x05, 0xD0, False),
        Capability(0x10, 0xE0, False),
        Capability(0x11, 0xA0, False),
        Capability(0x0001, 0x100, True),
        Capability(0x0003, 0x140, True),
    }
    assert at(functions, 4).capability(0x05) == Capability(0x05, 0xD0, False)
    assert at(functions, 4).capability(0x03, extended=True) == Capability(0x03, 0x140, True)
    assert at(functions, 4).capability(0x03) is None
    assert len([c for c in at(functions, 7).capabilities if c.id == 0x09]) == 5, "virtio 1.2, 4.1.4"


def test_registers_answer_where_the_bar_was_put(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    platform, functions = machine
    for device in (3, 4):
        function = at(functions, device)
        platform.config_write(function.address, COMMAND, 2, 3)
        bar = function.bar(0)
        assert bar is not None
        status = platform.bus.read(Space.MEMORY, bar.address + 8, 4)
        assert status & 0x3 == 0x3, "STATUS.FD and STATUS.LU: full duplex, link up"
        if (
            device == 4
        ):  # the 82574's I/O BAR: IOADDR, then IODATA (datasheet 317694, 10.1.1); e1000's is mute
            ports = function.bar(2)
            assert ports is not None
            platform.bus.write(Space.IO, ports.address, 4, 8)
            assert platform.bus.read(Space.IO, ports.address + 4, 4) == status


class Function:
    """A function's configuration space: bytes, and the writable bits of its BARs."""

    def __init__(self, **dwords: int) -> None:
        self.space = bytearray(4096)
        self.masks = [0] * 6
        self.flags = [0] * 6
        self.set(0x00, 0x1234_8086)
        for name, value in dwords.items():
            self.set(int(name.removeprefix("at_"), 16), value)

    def set(self, offset: int, value: int) -> None:
        self.space[offset : offset + 4] = value.to_bytes(4, "little")

    def bar(self, index: int, mask: int, flags: int = 0) -> Function:
        self.masks[index], self.flags[index] = mask, flags
        self.set(0x10 + 4 * index, flags)
        return self

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.space[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        if 0x10 <= offset < 0x28:
            index = (offset - 0x10) // 4
            self.set(offset, value & self.masks[index] | self.flags[index])
        elif offset == COMMAND:
            self.space[offset : offset + size] = value.to_bytes(size, "little")


class Board:
    """A platform of such functions."""

    name = "board"
    messages = None
    bus: Bus
    wires: list[Wire]

    def __init__(self, functions: dict[int, Function], apertures: Apertures | None = None) -> None:
        self.by_devfn = functions
        self.apertures = apertures or Apertures(memory=(0xC000_0000, 1 << 24), io=(0x1000, 0xF000))
        self.asked: set[int] = set()

    def start(self, memory: MachineMemory) -> None:
        raise AssertionError

    def stop(self) -> None:
        raise AssertionError

    def interrupt_line(self, address: PciAddress, pin: int) -> int:
        return 16 + pin

    def set_link(self, address: PciAddress, up: bool) -> None:
        raise AssertionError

    def unplug(self, address: PciAddress) -> None:
        raise AssertionError

    def functions(self) -> list[PciAddress]:
        return [PciAddress(0, 0, device, function) for function in range(8) for device in range(32)]

    def config_read(self, address: PciAddress, offset: int, size: int) -> int:
        self.asked.add(address.devfn)
        function = self.by_devfn.get(address.devfn) if address.bus == 0 else None
        return function.read(offset, size) if function else (1 << size * 8) - 1

    def config_write(self, address: PciAddress, offset: int, size: int, value: int) -> None:
        self.by_devfn[address.devfn].write(offset, size, value)


def only(function: Function, caplog: pytest.LogCaptureFixture) -> tuple[PciFunction, list[str]]:
    with caplog.at_level(logging.WARNING):
        (found,) = scan(Board({0x28: function}))
    return found, [record.getMessage() for record in caplog.records]


def test_functions_are_asked_only_beside_a_multi_function_device() -> None:
    board = Board({0x08: Function(at_0c=0x80_0000), 0x0B: Function(), 0x10: Function(), 0x13: Function()})
    assert [str(f.address) for f in scan(board)] == ["0000:00:01.0", "0000:00:01.3", "0000:00:02.0"]
    assert 0x12 not in board.asked


def test_bars_get_addresses_by_size(caplog: pytest.LogCaptureFixture) -> None:
    function = Function().bar(0, 0xFFFF_FF00).bar(1, 0xFFF0_0000, 8).bar(2, 0xFFFC, 1)
    function.bar(3, 0xFFFF_0000, 4).bar(4, 0xFFFF_FFFF)
    function.set(COMMAND, 0x7)
    found, warnings = only(function, caplog)
    assert found.bars == (
        Bar(0, BarKind.MEMORY32, False, 0xC011_0000, 0x100),
        Bar(1, BarKind.MEMORY32, True, 0xC000_0000, 0x10_0000),
        Bar(2, BarKind.IO, False, 0x1000, 4),
        Bar(3, BarKind.MEMORY64, False, 0xC010_0000, 0x1_0000),
    )
    assert warnings == []
    assert [function.read(0x10 + 4 * i, 4) for i in range(5)] == [
        0xC011_0000,
        0xC000_0008,
        0x1001,
        0xC010_0004,
        0,
    ]
    assert function.read(COMMAND, 2) == 0x4, "decoding is off, bus mastering as it was"


def test_a_function_without_bars_keeps_its_command(caplog: pytest.LogCaptureFixture) -> None:
    function = Function(at_04=0x7)
    assert only(function, caplog)[0].bars == ()
    assert function.read(COMMAND, 2) == 0x7


@pytest.mark.parametrize(
    ("index", "mask", "flags", "text"),
    [
        (0, 0xFFFF_0FF0, 0, "BAR 0 answers the size probe with 0xffff0ff0, which is no size; ignored"),
        (1, 0x0FFF_F000, 0, "BAR 1 answers the size probe with 0xffff000, which is no size; ignored"),
        (2, 0, 1, "BAR 2 answers the size probe with 0x1, which is no size; ignored"),
        (3, 0xFFFF_F000, 6, "BAR 3 is of the impossible type 3, ignored"),
        (5, 0xFFFF_F000, 4, "BAR 5 is of the impossible type 2, ignored"),
    ],
)
def test_a_bar_that_makes_no_sense(
    index: int, mask: int, flags: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, warnings = only(Function().bar(index, mask, flags), caplog)
    assert found.bars == ()
    assert warnings == [f"0000:00:05.0: {text}"]


def test_no_room_names_the_function_and_the_bar() -> None:
    board = Board({0: Function(), 0x28: Function().bar(2, 0xFE00_0000)})
    with pytest.raises(PciError, match=r"no room for BAR 2 .*0x2000000 bytes.*0000:00:05.0 \[8086:1234\]"):
        scan(board)


@pytest.mark.parametrize(
    ("dwords", "offsets", "text"),
    [
        ({"at_34": 0x50, "at_50": 0x5005}, [0x50], "leads back to 0x50; cut there"),
        ({"at_34": 0x50, "at_50": 0x6005, "at_60": 0x5001}, [0x50, 0x60], "leads back to 0x50; cut there"),
        ({"at_34": 0x3C}, [], "leads to 0x3c, where none can be; cut there"),
        ({"at_34": 0x43, "at_40": 0x0001}, [0x40], None),
        (
            {"at_34": 0x40, "at_40": 0x5001},
            [0x40],
            "the capability at 0x50 reads as 0x0; the list is cut there",
        ),
        (
            {"at_34": 0x40, "at_40": 0x10, "at_100": 0x1001_0003},
            [0x40, 0x100],
            "leads back to 0x100; cut there",
        ),
        (
            {"at_34": 0x40, "at_40": 0x10, "at_100": 0x0401_0001},
            [0x40, 0x100],
            "leads to 0x40, where none can be",
        ),
        ({"at_34": 0x40, "at_40": 0x10, "at_100": 0}, [0x40], None),
        ({"at_34": 0x40, "at_40": 0x10, "at_100": 0xFFFF_FFFF}, [0x40], None),
    ],
)
def test_capability_lists_that_make_no_sense(
    dwords: dict[str, int], offsets: list[int], text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    found, warnings = only(Function(at_04=0x10_0000, **dwords), caplog)
    assert [c.offset for c in found.capabilities] == offsets
    assert len(warnings) == (text is not None)
    assert all(w.startswith("0000:00:05.0: ") and text is not None and text in w for w in warnings)


def test_header_and_pin_that_make_no_sense(caplog: pytest.LogCaptureFixture) -> None:
    function = Function(at_0c=0x05_0000, at_3c=0x0900).bar(0, 0xFFFF_F000)
    found, warnings = only(function, caplog)
    assert (found.interrupt_pin, found.bars) == (0, ())
    assert warnings == [
        "0000:00:05.0: interrupt pin 9 does not exist, taken for none",
        "0000:00:05.0: header type 0x5 is unknown, its BARs are left alone",
    ]


def test_a_bridge_that_takes_no_bus_numbers(caplog: pytest.LogCaptureFixture) -> None:
    found, warnings = only(Function(at_0c=0x01_0000), caplog)
    assert found.bridge is None
    assert warnings == [
        "0000:00:05.0: this bridge takes no bus numbers, what is behind it is not reached",
    ]


@settings(max_examples=150)
@given(
    head=st.binary(min_size=256, max_size=256),
    extended=st.binary(min_size=256, max_size=256),
    masks=st.lists(st.integers(0, (1 << 32) - 1), min_size=6, max_size=6),
)
def test_any_configuration_space_is_survived(head: bytes, extended: bytes, masks: list[int]) -> None:
    function = Function()
    function.space[4:256] = head[4:]
    function.space[256:512] = extended
    function.masks = masks
    board = Board({0x28: function}, Apertures(memory=(0, 1 << 40), io=(0, 1 << 34)))
    (found,) = scan(board)
    assert len({c.offset for c in found.capabilities}) == len(found.capabilities)
    assert all(c.offset % 4 == 0 and 0x40 <= c.offset < 0x1000 for c in found.capabilities)
    assert all(bar.size & (bar.size - 1) == 0 and bar.address % bar.size == 0 for bar in found.bars)
