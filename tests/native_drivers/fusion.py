"""A Fusion-MPT controller of QEMU's under its driver in Python, with no kernel image in the process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType

from native_drivers.scsi.mptscsi_2xx.driver import MptSas
from tests.e2e.storage import WWN
from vmkernel_core._core import lib
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.pci import scan
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.adapter import StorageAdapter
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.inventory import Inventory
from vmkernel_core.storage.sg_array import SgArray
from vmklinux.errors import DriverStopped
from vmklinux.native.device import baton
from vmklinux.native.pci import PciDev
from vmklinux.native.scsi import ScsiHosts, scsi_hosts
from vmklinux.native.sd import Disks

IDS = (0x1000, 0x0054)
#: Seconds until what was to come has failed to come.
LIMIT = 30.0


class Fusion:
    """The machine: the ``storage`` that a host has by its ``driver``.

    ``images`` become disks 0, 1 …, each with a wwn; ``drives`` are QEMU's arguments for other drives of these names.
    """

    def __init__(
        self, images: Sequence[Path] = (), *, drives: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> None:
        names = [*drives, *(f"hd{number}" for number in range(len(images)))]
        disks = [
            f"scsi-hd,id=disk{number},drive={name},bus=hba.0,scsi-id={number},wwn={WWN + number:#x},serial=0815"
            for number, name in enumerate(names)
        ]
        files = [
            part
            for number, image in enumerate(images)
            for part in ("-drive", f"if=none,id=hd{number},file={image},format=raw")
        ]
        self.platform = QemuPlatform(["mptsas1068,id=hba", *disks], arguments=[*files, *arguments])
        self.storage = Inventory()
        self.stopped: list[DriverStopped] = []

    def __enter__(self) -> Fusion:
        """Start QEMU; the driver probes its device."""
        with ExitStack() as stack:
            memory = stack.enter_context(MachineMemory(128 << 20))
            lib.vmk_irq_reset()
            self.platform.start(memory)
            stack.callback(self.platform.stop)
            lib.vmk_idle_watch(self.platform.bus.handle)
            stack.callback(lib.vmk_idle_unwatch, self.platform.bus.handle)
            idle = IdleLoop(lambda _event: None, lambda: None)
            idle.start()
            stack.callback(idle.stop)
            function = next(f for f in scan(self.platform) if (f.vendor, f.device) == IDS)
            self.pdev = PciDev(function, self.platform, MptSas.name, memory, idle)
            disks = self._disks = Disks(self.storage)
            stack.callback(vars(scsi_hosts).update, {**vars(ScsiHosts()), "numbers": scsi_hosts.numbers})

            def stopped(error: DriverStopped) -> None:
                self.stopped.append(error)
                disks.stopped(self.pdev)

            self.pdev.on_stopped = stopped
            self.driver = MptSas(self.pdev, {})
            stack.callback(self.remove)
            with baton():
                self.driver.probe()
            self._stack = stack.pop_all()
        return self

    @property
    def adapter(self) -> StorageAdapter:
        """The controller, as the host has it."""
        return self.storage.adapters["vmhba0"]

    @property
    def disk(self) -> StorageDevice:
        """The only disk."""
        [disk] = self.storage.devices.values()
        return disk

    def unplug(self) -> None:
        """Take the controller out, without a word to the driver before."""
        self.platform.pull(self.pdev.function.address)
        self.pdev.gone = True
        self._disks.gone(self.pdev)

    def remove(self) -> None:
        """Take the driver away from its device."""
        with baton():
            self.pdev.devres.release_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it all down."""
        self._stack.close()


def check_pieces(fusion: Fusion, image: Path, counts: Sequence[int]) -> None:
    """Write from so many pieces, and read into as many, by one command each."""
    disk, chance, most = fusion.disk, Random(42), fusion.driver.io.segments
    with disk.buffer(2 * most * 512) as store, disk.buffer(2 * most * 512) as back:
        for count in counts:
            store.view[:] = chance.randbytes(store.length)
            # Every other block of the store, so that no two pieces are one.
            places = [2 * n * 512 for n in range(count)]
            before = disk.stats().commands
            disk.write(100, SgArray(fusion.pdev.memory, [(store.machine_address + at, 512) for at in places]))
            assert disk.stats().commands == before + 1
            expected = b"".join(bytes(store.view[at : at + 512]) for at in places)
            assert image.read_bytes()[100 * 512 :][: count * 512] == expected
            chance.shuffle(places)
            disk.read_into(
                100, SgArray(fusion.pdev.memory, [(back.machine_address + at, 512) for at in places])
            )
            assert b"".join(bytes(back.view[at : at + 512]) for at in places) == expected
