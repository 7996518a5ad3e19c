"""A device of QEMU's as a driver in Python gets it, with no kernel image in the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from vmkernel_core._core import lib
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.pci import scan
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.native.device import baton
from vmklinux.native.pci import PciDev


@pytest.fixture
def plug() -> Iterator[Callable[[str, tuple[int, int]], PciDev]]:
    """Makes a PciDev of a device of QEMU's; at the end what was taken of it is given back, and nothing is left."""
    with MachineMemory(64 << 20) as memory:
        idle = IdleLoop(lambda _event: None, lambda: None)
        lib.vmk_irq_reset()
        made: list[tuple[QemuPlatform, PciDev]] = []

        def make(device: str, ids: tuple[int, int]) -> PciDev:
            platform = QemuPlatform([device])
            platform.start(memory)
            lib.vmk_idle_watch(platform.bus.handle)
            assert platform.messages is not None
            lib.vmk_idle_watch(platform.messages.handle)
            idle.start()
            function = next(one for one in scan(platform) if (one.vendor, one.device) == ids)
            made.append((platform, PciDev(function, platform, "driver", memory, idle)))
            return made[-1][1]

        yield make
        for platform, pdev in made:
            with baton():
                pdev.devres.release_all()
            idle.stop()
            lib.vmk_idle_unwatch(platform.bus.handle)
            assert platform.messages is not None
            lib.vmk_idle_unwatch(platform.messages.handle)
            platform.stop()
            assert len(pdev.devres) == 0
