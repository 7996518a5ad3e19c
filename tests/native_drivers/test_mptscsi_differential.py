"""Linux's mptsas and Fusion-MPT's driver in Python do the same work on the same controller, each in its turn.

Independent of us: QEMU's mptsas1068 and its disk, Debian's mptsas.ko, qemu-img, which compares the images that both
wrote, and what the IOC says of how it was set up.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from native_drivers.scsi.mptscsi_2xx.ioc import Ioc
from native_drivers.scsi.mptscsi_2xx.messages import IOC_FACTS, IOC_FACTS_REPLY
from native_drivers.scsi.mptscsi_2xx.registers import (
    DIAGNOSTIC,
    DOORBELL,
    HOST_INTERRUPT_MASK,
    HOST_INTERRUPT_STATUS,
    FusionRegisters,
)
from tests.e2e.storage import BAD, CONTROLLERS, ENODATA, SIZE, blank, failing, only_disk, raw_drive
from tests.native_drivers.fusion import IDS, LIMIT, Fusion
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import Direction
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import ScsiError
from vmklinux.kernels import Kernel
from vmklinux.native.device import baton
from vmklinux.native.pci import PciDev, pci_iomap, pci_read_config

#: Commands that end in several ways: well, with a residual, with sense data of each kind; whether they fetch data.
COMMANDS = {
    "INQUIRY": (bytes([0x12, 0, 0, 0, 255, 0]), 255),
    "its name": (bytes([0x12, 1, 0x83, 0, 255, 0]), 255),
    "a page that it does not have": (bytes([0x12, 1, 0xC7, 0, 255, 0]), 255),
    "MODE SENSE": (bytes([0x1A, 0, 0x3F, 0, 255, 0]), 255),
    "READ CAPACITY(16)": (bytes([0x9E, 0x10, *bytes(11), 32, 0, 0]), 32),
    "TEST UNIT READY": (bytes(6), 0),
    "no such command": (bytes([0xC1, *bytes(9)]), 0),
    "a read beyond the end": (bytes([0x28, 0, 0x7F, 0, 0, 0, 0, 0, 1, 0]), 512),
    "a read of a bad block": (bytes([0x28, 0, *BAD.to_bytes(4, "big"), 0, 0, 1, 0]), 512),
}  # fmt: skip


def answers(disk: StorageDevice) -> dict[str, object]:
    """How the disk answers each of COMMANDS, and what it is."""
    found: dict[str, object] = {"name": disk.name, "path": disk.path, "transfer": disk.limits.transfer}
    for name, (cdb, length) in COMMANDS.items():
        way = Direction.FROM_DEVICE if length else Direction.NONE
        request = disk.submit(cdb, way, length, retries=0)
        end = request.wait(LIMIT)
        data = bytes(request.buffer.view[: length - end.residual]) if request.buffer and end.good else b""
        found[name] = (end.host, end.status, end.residual, end.sense, data)
    return found


def work(disk: StorageDevice) -> None:
    """Write here and there, in many sizes, with many commands under way, also from pieces; read it all back."""
    chance = Random(1068)
    for _ in range(30):
        count = chance.choice([1, 2, 7, 8, 64, 255, 256, 257, 1024])
        disk.write(chance.randrange(disk.blocks - count), chance.randbytes(count * 512))
    with disk.buffer(64 * 512) as buffer:
        buffer.view[:] = chance.randbytes(buffer.length)
        places = [chance.randrange(disk.blocks) for _ in range(64)]
        for request in disk.start(
            [
                command
                for n, at in enumerate(places)
                for command in disk.write_commands(at, 1, buffer, n * 512)
            ]
        ):
            request.wait(LIMIT)
    disk.discard(4096, 512)
    disk.flush()


class State(dict[str, object]):
    """What an engine left in the controller: configuration space, registers, and what the IOC was told."""

    def __init__(self, pdev: PciDev) -> None:
        super().__init__()
        with baton():
            registers = FusionRegisters(pci_iomap(pdev, 1), pdev.name)
            for register in (DOORBELL, HOST_INTERRUPT_MASK, HOST_INTERRUPT_STATUS, DIAGNOSTIC):
                self[register.__name__] = registers.read(register)
            self["memory and DMA"] = pci_read_config(pdev, 4, 2) & 0x6
            ioc = Ioc(pdev, pci_iomap(pdev, 1), lambda _contexts, _replies: None, lambda _event: None)
            facts = ioc.handshake(IOC_FACTS(), IOC_FACTS_REPLY)
            # Their own are MsgContext and CurReplyFrameSize, in which Linux leaves less room for events.
            for name in ("WhoInit", "MaxDevices", "MaxBuses", "EventState", "CurrentHostMfaHighAddr"):
                self[name] = getattr(facts, name)


def by_linux(platform: QemuPlatform, kernel: Kernel) -> tuple[dict[str, object], State]:
    with VMkernel(platform, kernel=kernel.release) as host:
        disk = only_disk(host)
        found = answers(disk)
        work(disk)
        [adapter] = (one for one in host.adapters if (one.function.vendor, one.function.device) == IDS)
        return found, State(PciDev(adapter.function, platform, "mptsas", host.memory, host.idle))


def by_python(fusion: Fusion) -> tuple[dict[str, object], State]:
    with fusion:
        found = answers(fusion.disk)
        work(fusion.disk)
        return found, State(fusion.pdev)


def test_both_leave_the_same_behind(kernel: Kernel, tmp_path: Path) -> None:
    ours, theirs = blank(tmp_path / "native.raw"), blank(tmp_path / "linux.raw")
    controller = CONTROLLERS["mptsas1068"]
    found, state = by_python(Fusion(drives=["hd"], arguments=raw_drive(ours)))
    expected, linux_state = by_linux(controller.platform("hd", *raw_drive(theirs)), kernel)
    assert found == expected
    assert state == linux_state
    compared = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "raw", ours, theirs], check=False, capture_output=True
    )
    assert compared.stdout == b"Images are identical.\n"
    assert ours.stat().st_size == SIZE


def test_bad_blocks_are_the_same_to_both(kernel: Kernel, tmp_path: Path) -> None:
    image = blank(tmp_path / "disk.raw")
    drive = failing(image, "read_aio", ENODATA)
    ours = answers_of_bad(Fusion(drives=["hd"], arguments=drive))
    with VMkernel(CONTROLLERS["mptsas1068"].platform("hd", *drive), kernel=kernel.release) as host:
        assert answers(only_disk(host)) == ours


def answers_of_bad(fusion: Fusion) -> dict[str, object]:
    with fusion:
        found = answers(fusion.disk)
        with pytest.raises(ScsiError):
            fusion.disk.read(BAD, 1)
        return found
