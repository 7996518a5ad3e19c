"""Each storage controller with every kind of interrupt that it and its driver have: which one was used, and that data
is right with it.

Independent of us: QEMU's controllers, which raise the interrupts as their configuration space says, Debian's modules,
which choose, and the image file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.e2e.storage import CONTROLLERS, blank, leaks, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmklinux.irq import Interrupts
from vmklinux.kernels import Kernel
from vmklinux.pci import PciCore, PciDevice

#: The controller, options of QEMU's device, parameters by module, and the kind of interrupt that is used then. Of
#: megaraid_sas's, none but MSI-X and the pin are for controllers that speak MFI; QEMU's pvscsi has no MSI-X.
CASES: list[tuple[str, str, dict[str, list[str]], str]] = [
    ("megasas", "", {}, "msi-x"),
    ("megasas", ",msix=off", {}, "pin"),
    ("megasas", "", {"megaraid_sas": ["msix_disable=1"]}, "pin"),
    ("megasas-gen2", "", {}, "msi-x"),
    ("megasas-gen2", ",msix=off,msi=off", {}, "pin"),
    ("mptsas1068", "", {}, "pin"),
    ("mptsas1068", "", {"mptbase": ["mpt_msi_enable_sas=1"]}, "msi"),
    ("mptsas1068", ",msi=off", {"mptbase": ["mpt_msi_enable_sas=1"]}, "pin"),
    ("pvscsi", "", {}, "msi"),
    ("pvscsi", "", {"vmw_pvscsi": ["disable_msi=1"]}, "pin"),
    ("virtio-scsi", "", {}, "msi-x"),
    ("virtio-scsi", ",vectors=0", {}, "pin"),
    ("lsi53c895a", "", {}, "pin"),
    ("lsi53c810", "", {}, "pin"),
    ("am53c974", "", {}, "pin"),
    ("dc390", "", {}, "pin"),
]
INTX_DISABLE, MSI_ENABLE, MSIX_ENABLE = 0x400, 0x0001, 0x8000


def enabled(device: PciDevice) -> str:
    """What the device's configuration space has it raise (PCI Local Bus 3.0, 6.8)."""
    if device.obj.msix_cap and device.read(device.obj.msix_cap + 2, 2) & MSIX_ENABLE:
        return "msi-x"
    if device.obj.msi_cap and device.read(device.obj.msi_cap + 2, 2) & MSI_ENABLE:
        return "msi"
    return "" if device.read(4, 2) & INTX_DISABLE else "pin"


def counts(host: VMkernel) -> dict[int, int]:
    """How often each line's interrupt came."""
    return {line.number: line.count for line in host.linux.state(Interrupts).lines()}


@pytest.mark.parametrize(("name", "options", "settings", "kind"), CASES)
def test_data_comes_with_this_interrupt(
    kernel: Kernel, tmp_path: Path, name: str, options: str, settings: dict[str, list[str]], kind: str
) -> None:
    image = blank(tmp_path / "disk.raw")
    controller = replace(CONTROLLERS[name], device=f"{CONTROLLERS[name].device}{options}")
    platform = controller.platform("hd", *raw_drive(image))
    with VMkernel(platform, kernel=kernel.release, settings=settings) as host:
        disk = only_disk(host)
        [adapter] = [adapter for adapter in host.adapters if adapter.bound]
        device = host.linux.state(PciCore).behind(adapter.function)
        assert device is not None
        assert enabled(device) == kind
        before = counts(host)
        data = Random(name).randbytes(64 * 512)
        for at in range(0, 256, 64):
            disk.write(at, data)
            assert disk.read(at, 64) == data
        disk.flush()
        used = {
            line.kind
            for line in host.linux.state(Interrupts).lines()
            if line.count > before.get(line.number, 0)
        }
        assert used == {kind}
        assert image.read_bytes()[: 4 * len(data)] == 4 * data
        assert host.unload(controller.driver) == []
    assert leaks(host, controller) == []
