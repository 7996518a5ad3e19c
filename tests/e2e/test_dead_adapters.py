"""Fibre Channel adapters that are there and answer nothing: the drivers that QEMU has no card for probe them all the
same, up to where they ask their firmware, and leave nothing behind. Independent: Debian's own modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.platform.device_model import Bar, DeviceModel, PciIdentity, power_management
from vmkernel_core.platform.model import ModelPlatform
from vmklinux.errors import DriverRefused

if TYPE_CHECKING:
    from vmklinux.kernels import Kernel

FIBRE_CHANNEL = 0x0C0400


@dataclass(frozen=True)
class Kind:
    """What the card is, its BARs, what its registers read (0, or -1: all ones), and the module that claims it.

    Which it is decides how long a driver goes on asking.
    """

    vendor: int
    device: int
    bars: tuple[Bar, ...]
    reads: int
    module: str


KINDS = {
    "ISP2432": Kind(0x1077, 0x2432, (Bar(0, 0x100, Space.IO), Bar(1, 0x4000, Space.MEMORY)), 0, "qla2xxx"),
    "FC949E": Kind(0x1000, 0x0646, (Bar(0, 0x100, Space.IO), Bar(1, 0x10000, Space.MEMORY)), 0, "mptfc"),
    "LPe12000": Kind(
        0x10DF, 0xF100, (Bar(0, 0x1000, Space.MEMORY), Bar(2, 0x1000, Space.MEMORY)), -1, "lpfc"
    ),
    "LPe31000": Kind(
        0x10DF,
        0xE300,
        (Bar(0, 0x4000, Space.MEMORY), Bar(2, 0x4000, Space.MEMORY), Bar(4, 0x20000, Space.MEMORY)),
        -1,
        "lpfc",
    ),
}


class DeadAdapter(DeviceModel):
    """A card with a configuration space and nothing behind its BARs."""

    def __init__(self, kind: Kind) -> None:
        identity = PciIdentity(kind.vendor, kind.device, 2, FIBRE_CHANNEL, kind.vendor, 0x1234)
        super().__init__(identity, kind.bars, [power_management(0x80)])
        self._reads = kind.reads

    def power_on(self) -> None:
        pass

    def reset(self) -> None:
        pass

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        return self._reads & (1 << 8 * size) - 1

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        pass


@pytest.mark.parametrize("name", KINDS)
def test_its_driver_gives_up_and_leaves_nothing(kernel: Kernel, name: str) -> None:
    kind = KINDS[name]
    with VMkernel(ModelPlatform([DeadAdapter(kind)]), kernel=kernel.release) as host:
        (card,) = (adapter for adapter in host.adapters if adapter.verdict.module)
        assert card.verdict.module == kind.module
        assert isinstance(card.error, DriverRefused)
        assert host.storage_adapters == {}
    assert host.leaks == []
