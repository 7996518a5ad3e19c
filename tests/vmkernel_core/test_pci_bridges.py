"""The PCI scan behind bridges. Independent side: QEMU's bridges and devices, its monitor's account of bus numbers,
windows and BARs, and its wiring of interrupt pins.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vmkernel_core.hardware import level, until
from vmkernel_core.bus import Space as BusSpace
from vmkernel_core.memory import MachineMemory
from vmkernel_core.pci import COMMAND, BarKind, PciFunction, Space, scan
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import QemuPlatform

DEVICES = [
    "pcie-root-port,id=port0,chassis=1,addr=3",
    "e1000e,netdev=wire0,bus=port0",
    "ioh3420,id=port1,chassis=2,addr=4",
    "pcie-root-port,id=port2,chassis=3,addr=5,multifunction=on",
    "pcie-root-port,id=port3,chassis=4,addr=5.1,hotplug=off",
    "pcie-pci-bridge,id=bridge,bus=port2",
    "e1000,netdev=wire1,bus=bridge,addr=2",
    "pci-bridge,id=inner,bus=bridge,chassis_nr=7,addr=5",
    "e1000,netdev=wire2,bus=inner,addr=3",
    "virtio-net-pci,netdev=wire3,bus=inner,addr=6,disable-modern=off",
    "e1000,netdev=wire4,addr=6",
]
#: Bridges decode and pass on both spaces and DMA; devices too.
ALL_ON = 0x7
# The 82540EM's and the 82574's interrupt registers (Intel datasheets 317453 and 317694): cause set, mask set, cause.
ICS, IMS, ICR = 0xC8, 0xD0, 0xC0
LINK_CHANGED = 0x4


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[QemuPlatform, list[PciFunction]]]:
    with MachineMemory(64 << 20) as memory:
        platform = QemuPlatform(DEVICES)
        platform.start(memory)
        try:
            functions = scan(platform)
            for function in functions:
                platform.config_write(function.address, COMMAND, 2, ALL_ON)
            yield platform, functions
        finally:
            platform.stop()


def told(platform: QemuPlatform) -> dict[PciAddress, dict[str, Any]]:
    """QEMU's own account of each function."""
    found: dict[PciAddress, dict[str, Any]] = {}

    def walk(devices: list[dict[str, Any]]) -> None:
        for device in devices:
            found[PciAddress(0, device["bus"], device["slot"], device["function"])] = device
            walk(device.get("pci_bridge", {}).get("devices", []))

    buses: Any = platform.monitor("query-pci")
    for bus in buses:
        walk(bus["devices"])
    return found


def by_id(machine: tuple[QemuPlatform, list[PciFunction]], name: str) -> PciFunction:
    platform, functions = machine
    address = next(address for address, device in told(platform).items() if device["qdev_id"] == name)
    return next(f for f in functions if f.address == address)


def test_buses_are_numbered(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    platform, functions = machine
    shown = {address for address in told(platform) if address.bus or address in platform.functions()}
    assert {f.address for f in functions} == shown
    assert [str(f.address) for f in functions] == [
        "0000:00:00.0",
        "0000:00:03.0",
        "0000:01:00.0",
        "0000:00:04.0",
        "0000:00:05.0",
        "0000:05:00.0",
        "0000:06:02.0",
        "0000:06:05.0",
        "0000:07:03.0",
        "0000:07:06.0",
        "0000:00:05.1",
        "0000:00:06.0",
        "0000:00:1f.0",
    ]
    for function in functions:
        bridge = told(platform)[function.address].get("pci_bridge")
        assert (bridge is not None) == (function.bridge is not None)
        if bridge and function.bridge:
            numbers = bridge["bus"]
            assert (numbers["number"], numbers["secondary"], numbers["subordinate"]) == (
                function.address.bus,
                function.bridge.secondary,
                function.bridge.subordinate,
            )


def test_windows_are_what_qemu_says_and_hold_what_is_behind(
    machine: tuple[QemuPlatform, list[PciFunction]],
) -> None:
    platform, functions = machine
    for function in functions:
        if function.bridge is None:
            continue
        bus = told(platform)[function.address]["pci_bridge"]["bus"]
        names = {Space.IO: "io_range", Space.MEMORY: "memory_range", Space.PREFETCHABLE: "prefetchable_range"}
        for space, (start, size) in function.bridge.windows.items():
            window = bus[names[space]]
            if size:
                assert (window["base"], window["limit"]) == (start, start + size - 1)
            else:
                assert window["base"] > window["limit"]
        for inner in functions:
            if function.bridge.secondary <= inner.address.bus <= function.bridge.subordinate:
                for bar in inner.all_bars:
                    spaces = [Space.IO] if bar.kind is BarKind.IO else [Space.MEMORY, Space.PREFETCHABLE]
                    windows = [function.bridge.windows.get(space, (0, 0)) for space in spaces]
                    assert any(s <= bar.address and bar.address + bar.size <= s + n for s, n in windows)


def test_bars_behind_bridges_are_what_qemu_says(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    platform, functions = machine
    account = told(platform)
    for function in functions:
        regions = {(r["bar"], r["address"], r["size"]) for r in account[function.address]["regions"]}
        assert {(bar.index, bar.address, bar.size) for bar in function.bars} == regions
    ranges = sorted(
        (bar.kind is BarKind.IO, bar.address, bar.address + bar.size) for f in functions for bar in f.bars
    )
    assert all(low[0] != high[0] or low[2] <= high[1] for low, high in itertools.pairwise(ranges))


def test_slots_that_devices_may_come_into_have_room(
    machine: tuple[QemuPlatform, list[PciFunction]],
) -> None:
    empty, fixed = by_id(machine, "port1").bridge, by_id(machine, "port3").bridge
    assert empty is not None
    assert fixed is not None
    assert (empty.hotplug, fixed.hotplug) == (True, False)
    assert all(size for _, size in empty.windows.values())
    assert not any(size for _, size in fixed.windows.values())
    assert empty.subordinate > empty.secondary


@pytest.mark.parametrize("name", ["device1", "device6", "device8", "device10"])
def test_a_pin_ends_at_the_line_that_the_scan_tells(
    machine: tuple[QemuPlatform, list[PciFunction]], name: str
) -> None:
    platform, _ = machine
    function = by_id(machine, name)
    registers = function.bar(0)
    assert registers is not None
    platform.bus.write(BusSpace.MEMORY, registers.address + IMS, 4, LINK_CHANGED)
    platform.bus.read(BusSpace.MEMORY, registers.address + ICR, 4)
    until("quiet line", lambda: platform.bus.service() and not level(function.line))
    platform.bus.write(BusSpace.MEMORY, registers.address + ICS, 4, LINK_CHANGED)
    until("interrupt", lambda: platform.bus.service() and level(function.line))
    platform.bus.read(BusSpace.MEMORY, registers.address + ICR, 4)
    until("quiet line", lambda: platform.bus.service() and not level(function.line))


def test_registers_behind_two_bridges_answer(machine: tuple[QemuPlatform, list[PciFunction]]) -> None:
    platform, _ = machine
    registers = by_id(machine, "device8").bar(0)
    assert registers is not None
    assert platform.bus.read(BusSpace.MEMORY, registers.address + 8, 4) & 0x2, "STATUS.LU: link up"
