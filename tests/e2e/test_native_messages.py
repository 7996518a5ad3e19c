"""Drivers in Python that take messages as interrupts: which kind was used, through sleep too, and that data comes.

Independent of us: QEMU's e1000e and controllers, which raise the interrupts as their configuration space says, the peer
on the wire and the image file.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.e2e.conftest import exchange
from tests.e2e.storage import blank, only_disk
from vmkernel_core._core import ffi, lib
from vmkernel_core.boot import VMkernel
from vmkernel_core.pci_function import PciFunction
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.pci_regs import (
    PCI_CAP_ID_MSI,
    PCI_CAP_ID_MSIX,
    PCI_COMMAND,
    PCI_COMMAND_INTX_DISABLE,
    PCI_MSI_FLAGS,
    PCI_MSI_FLAGS_ENABLE,
    PCI_MSIX_FLAGS,
    PCI_MSIX_FLAGS_ENABLE,
)

_KINDS = (
    ("msi-x", PCI_CAP_ID_MSIX, PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE),
    ("msi", PCI_CAP_ID_MSI, PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE),
)


def enabled(host: VMkernel, function: PciFunction) -> str:
    """What the device's configuration space has it raise (PCI Local Bus 3.0, 6.8)."""
    for kind, id, offset, bit in _KINDS:
        found = function.capability(id)
        if found and host.platform.config_read(function.address, found.offset + offset, 2) & bit:
            return kind
    command = host.platform.config_read(function.address, PCI_COMMAND, 2)
    return "" if command & PCI_COMMAND_INTX_DISABLE else "pin"


def delivered(lines: range) -> int:
    """How many interrupts came on these lines."""
    stats, total = ffi.new("struct vmk_irq_stats *"), 0
    for line in lines:
        assert lib.vmk_irq_stats(line, stats) == 0
        total += stats.delivered
    return total


PINS, MESSAGES = range(64), range(64, 256)


def test_an_82574l_interrupts_by_msi() -> None:
    with VMkernel(QemuPlatform(["e1000e,netdev=wire0"]), engine="native") as host:
        [adapter] = [adapter for adapter in host.adapters if adapter.bound]
        for _ in range(2):
            assert enabled(host, adapter.function) == "msi"
            before = delivered(MESSAGES)
            exchange(host)
            assert delivered(MESSAGES) > before
            with host.uplinks["vmnic0"] as nic:
                nic.suspend()
                nic.resume()
        assert delivered(PINS) == 0
        assert host.unload("e1000") == []
        assert enabled(host, adapter.function) == "pin"


@pytest.mark.parametrize(
    ("device", "options", "kind"),
    [("megasas", "", "msi-x"), ("megasas-gen2", "", "msi-x"), ("megasas", ",msix=off", "pin")],
)
def test_a_controller_interrupts_by_msix(tmp_path: Path, device: str, options: str, kind: str) -> None:
    image = blank(tmp_path / "disk.raw")
    platform = QemuPlatform([f"{device}{options}"], disks=[str(image)])
    with VMkernel(platform, engine="native") as host:
        [adapter] = [adapter for adapter in host.adapters if adapter.bound]
        assert enabled(host, adapter.function) == kind
        used, other = (PINS, MESSAGES) if kind == "pin" else (MESSAGES, PINS)
        before, disk, data = delivered(used), only_disk(host), Random(device).randbytes(64 * 512)
        for at in range(0, 256, 64):
            disk.write(at, data)
            assert disk.read(at, 64) == data
        disk.flush()
        assert delivered(used) > before
        assert delivered(other) == 0
        assert image.read_bytes()[: 4 * len(data)] == 4 * data
        assert host.unload("megaraid_sas") == []
        assert enabled(host, adapter.function) == "pin"
