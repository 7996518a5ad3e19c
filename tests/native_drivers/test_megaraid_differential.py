"""Linux's megaraid_sas and the driver in Python do the same work on the same controller, each in its turn.

Independent of us: QEMU's controllers of both generations and their disk, Debian's megaraid_sas.ko, qemu-img, which
compares the images that both wrote, and the controller's registers, read past the drivers.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from native_drivers.scsi.megaraid_sas.driver import CHIPS
from native_drivers.scsi.megaraid_sas.registers import DIAG, IDB, ODCR0, OMSK, OSP0, OSTS
from tests.e2e.storage import CONTROLLERS, SIZE, blank, only_disk, raw_drive
from tests.native_drivers.test_mptscsi_differential import answers, work
from vmkernel_core.boot import VMkernel
from vmkernel_core.storage.command import Status
from vmklinux.kernels import Kernel
from vmklinux.native.device import baton
from vmklinux.native.pci import PciDev, pci_enable_device, pci_iomap
from vmklinux.native.register import Register, Registers

REGISTERS = (IDB, OSTS, OMSK, ODCR0, OSP0, DIAG)
#: What Linux's driver asks of QEMU's model in a way that this refuses (no data in no segment), and ours does not.
WITHOUT_DATA = ("TEST UNIT READY", "no such command")


def registers(host: VMkernel) -> dict[str, Register]:
    """What the controller's registers hold."""
    [adapter] = (one for one in host.adapters if one.function.vendor == 0x1000)
    pdev = PciDev(adapter.function, host.platform, "test", host.memory, host.idle)
    chip = CHIPS[pdev.function.device]
    with baton():
        pci_enable_device(pdev)
        read = Registers(pci_iomap(pdev, chip.bar), "test")
        return {register.__name__: read.read(register) for register in REGISTERS}


def failure(answer: object) -> tuple[int, bytes]:
    """Status and sense data of an answer."""
    assert isinstance(answer, tuple)
    return answer[1], answer[3]


class Turn:
    """What one engine saw, and what it left: while it drove the controller, and after it had let go of it."""

    def __init__(self, device: str, image: Path, **engine: str) -> None:
        with VMkernel(CONTROLLERS[device].platform("hd", *raw_drive(image)), **engine) as host:  # type: ignore[arg-type]  # names of engines
            disk = only_disk(host)
            self.answers = answers(disk)
            work(disk)
            self.stats = disk.stats()
            self.driven = registers(host)
            assert host.unload("megaraid_sas") == []
            self.left = registers(host)


@pytest.mark.parametrize("device", ["megasas", "megasas-gen2"])
def test_both_leave_the_same_behind(kernel: Kernel, tmp_path: Path, device: str) -> None:
    ours, theirs = blank(tmp_path / "native.raw"), blank(tmp_path / "linux.raw")
    native = Turn(device, ours, engine="native")
    linux = Turn(device, theirs, engine="linux", kernel=kernel.release)
    assert native.driven == linux.driven
    assert native.left == linux.left
    compared = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "raw", ours, theirs], check=False, capture_output=True
    )
    assert compared.stdout == b"Images are identical.\n"
    assert ours.stat().st_size == SIZE
    assert native.stats.bytes_written == linux.stats.bytes_written
    # More segments, so longer transfers: 80 pages, 32 of Linux's.
    assert native.answers.pop("transfer") == 80 * 4096
    assert linux.answers.pop("transfer") == 32 * 4096
    for name in WITHOUT_DATA:
        status, sense = failure(linux.answers.pop(name))
        assert (status, sense[2]) == (Status.CHECK_CONDITION, 4)
    assert native.answers.pop("TEST UNIT READY") == (0, Status.GOOD, 0, b"", b"")
    status, sense = failure(native.answers.pop("no such command"))
    assert (status, sense[2], sense[12]) == (Status.CHECK_CONDITION, 5, 0x20)
    assert native.answers == linux.answers
