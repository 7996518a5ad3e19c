"""The network cards that the end-to-end tests run on: QEMU's, and our models of some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tests.e2e.packets import raw_address
from vmkernel_core.engine import EngineName
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform

MAC = "52:54:00:ab:cd:ef"
AnyPlatform = QemuPlatform | ModelPlatform


@dataclass(frozen=True)
class Card:
    """A card: the platform that has it, its PCI ids, the Linux module that drives it, and what that can do.

    ``speed`` in Mb/s as the driver tells it; ``most_mtu`` in bytes; ``burst``: frames that it receives while nobody
    looks; ``live_mac``: Linux's driver lets its address change while it is open; ``counters``: its driver's own counters
    of frames sent and received. ``modules`` and ``settings`` are VMkernel's. ``native``: the driver in
    Python that drives it, too.
    """

    make: Callable[[], AnyPlatform]
    ids: tuple[int, int]
    module: str
    speed: int
    most_mtu: int = 1500
    burst: int = 60
    live_mac: bool = True
    counters: tuple[str, str] | None = ("tx_packets", "rx_packets")
    modules: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, list[str]] = field(default_factory=dict)
    native: str = ""

    def by(self, engine: EngineName) -> Card:
        """The card as that engine drives it."""
        return self if engine == "linux" else replace(self, module=self.native, settings={}, live_mac=True)


def qemu(device: str) -> Callable[[], QemuPlatform]:
    """Makes a machine of QEMU's with that device."""
    return lambda: QemuPlatform([f"{device},netdev=wire0,addr=5,mac={MAC}"])


def e1000(make: Callable[[], AnyPlatform], device: int) -> Card:
    """One of the cards that e1000.ko drives."""
    return Card(make, (0x8086, device), "e1000", 1000, most_mtu=16110, native="e1000")


#: QEMU's cards of the 8255x family, and their device ids.
E100 = {
    "i82550": 0x1209, "i82551": 0x1209, "i82557a": 0x1229, "i82557b": 0x1229, "i82557c": 0x1229, "i82558a": 0x1229,
    "i82558b": 0x1229, "i82559a": 0x1229, "i82559b": 0x1229, "i82559c": 0x1229, "i82559er": 0x1209, "i82562": 0x1209,
    "i82801": 0x2449,
}  # fmt: skip
CARDS = {
    "qemu": e1000(qemu("e1000"), 0x100E),
    "model": e1000(lambda: ModelPlatform([E1000Model(raw_address(MAC))]), 0x100E),
    "82544gc": e1000(qemu("e1000-82544gc"), 0x100C),
    "82545em": e1000(qemu("e1000-82545em"), 0x100F),
    **{name: Card(qemu(name), (0x8086, device), "e100", 100, native="e100") for name, device in E100.items()},
    # A PCnet-PCI II has no MII: the driver does not know better than 10 Mb/s.
    "pcnet": Card(
        qemu("pcnet"),
        (0x1022, 0x2000),
        "pcnet32",
        10,
        burst=20,
        live_mac=False,
        counters=None,
        native="pcnet32",
    ),
    "e1000e": Card(
        qemu("e1000e"),
        (0x8086, 0x10D3),
        "e1000e",
        1000,
        most_mtu=9212,
        settings={"e1000e": ["IntMode=0"]},
        native="e1000",
    ),
    "e1000e-msix": Card(qemu("e1000e"), (0x8086, 0x10D3), "e1000e", 1000, most_mtu=9212),
    "vmxnet3": Card(
        qemu("vmxnet3"),
        (0x15AD, 0x07B0),
        "vmxnet3",
        1000,
        most_mtu=9000,
        counters=("  ucast pkts tx", "  ucast pkts rx"),
    ),
    "rtl8139": Card(
        qemu("rtl8139"),
        (0x10EC, 0x8139),
        "8139cp",
        100,
        most_mtu=4096,
        counters=("tx_ok", "rx_ok_phys"),
        modules={"10ec:8139": "8139cp"},
    ),
}
