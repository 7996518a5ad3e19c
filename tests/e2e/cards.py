"""The network cards that the end-to-end tests run on: QEMU's, and our models of some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.e2e.packets import raw_address
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform

MAC = "52:54:00:ab:cd:ef"
AnyPlatform = QemuPlatform | ModelPlatform


@dataclass(frozen=True)
class Card:
    """A card: the platform that has it, its PCI ids, the Linux module that drives it, its best speed in Mb/s.

    ``modules`` and ``settings`` are VMkernel's.
    """

    make: Callable[[], AnyPlatform]
    ids: tuple[int, int]
    module: str
    speed: int
    modules: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, list[str]] = field(default_factory=dict)


def qemu(device: str) -> Callable[[], QemuPlatform]:
    """Makes a machine of QEMU's with that device."""
    return lambda: QemuPlatform([f"{device},netdev=wire0,addr=5,mac={MAC}"])


CARDS = {
    "qemu": Card(qemu("e1000"), (0x8086, 0x100E), "e1000", 1000),
    "model": Card(lambda: ModelPlatform([E1000Model(raw_address(MAC))]), (0x8086, 0x100E), "e1000", 1000),
    "82544gc": Card(qemu("e1000-82544gc"), (0x8086, 0x100C), "e1000", 1000),
    "82545em": Card(qemu("e1000-82545em"), (0x8086, 0x100F), "e1000", 1000),
    "rtl8139": Card(qemu("rtl8139"), (0x10EC, 0x8139), "8139cp", 100, modules={"10ec:8139": "8139cp"}),
}
