"""What its driver leaves in a network card, and in the memory that they share, read by the tests themselves.

Places have the names of the cards' manuals: Intel's 8254x family (317453), 8255x (open source manual), AMD's Am79C970A.
Left out is what moves on with each frame, and what reading changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmkernel_core._core import lib
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Bus, Space
from vmkernel_core.pci import BarKind, PciFunction

State = dict[str, int]


@contextmanager
def _alone() -> Iterator[None]:
    """No driver runs meanwhile: some registers are reached through others."""
    lib.vmk_baton_take()
    try:
        yield
    finally:
        lib.vmk_baton_drop()


def card_state(host: VMkernel) -> State:
    """The state of the host's one network card that has a driver."""
    (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
    with _alone():
        driver = adapter.uplink.driver_name if adapter.uplink else ""
        return READERS[driver](host.platform.bus, adapter.function) | _configuration(host, adapter.function)


def _configuration(host: VMkernel, function: PciFunction) -> State:
    """What decodes, masters and interrupts, and where (PCI Local Bus Specification 3.0, 6.2.2)."""
    return {"PCI command": host.platform.config_read(function.address, 4, 2)}


def _bar(function: PciFunction, *, io: bool) -> int:
    return next(bar.address for bar in function.bars if (bar.kind is BarKind.IO) == io)


# ---- 8254x ----

_8254X = {
    "CTRL": 0x0000, "STATUS": 0x0008, "EECD": 0x0010, "CTRL_EXT": 0x0018, "FCAL": 0x0028, "FCAH": 0x002C,
    "FCT": 0x0030, "VET": 0x0038, "ITR": 0x00C4, "IMS": 0x00D0, "RCTL": 0x0100, "FCTTV": 0x0170, "TXCW": 0x0178,
    "TCTL": 0x0400, "TIPG": 0x0410, "AIFS": 0x0458, "LEDCTL": 0x0E00, "PBA": 0x1000, "FCRTL": 0x2160, "FCRTH": 0x2168,
    "RDLEN": 0x2808, "RDTR": 0x2820, "RXDCTL": 0x2828, "RADV": 0x282C, "TDLEN": 0x3808, "TIDV": 0x3820,
    "TXDCTL": 0x3828, "TADV": 0x382C, "TSPMT": 0x3830, "RXCSUM": 0x5000, "WUC": 0x5800, "WUFC": 0x5808, "MANC": 0x5820,
}  # fmt: skip
_8254X_TABLES = {"MTA": (0x5200, 128), "RA": (0x5400, 32), "VFTA": (0x5600, 128)}
_MDIC, _MDIC_READ, _MDIC_READY = 0x0020, 2 << 26 | 1 << 21, 1 << 28


def _read_8254x(bus: Bus, function: PciFunction) -> State:
    base = _bar(function, io=False)
    places = _8254X | {
        f"{name}[{number}]": start + 4 * number
        for name, (start, count) in _8254X_TABLES.items()
        for number in range(count)
    }
    state = {name: bus.read(Space.MEMORY, base + offset, 4) for name, offset in places.items()}
    for number in range(32):
        bus.write(Space.MEMORY, base + _MDIC, 4, _MDIC_READ | number << 16)
        found = bus.read(Space.MEMORY, base + _MDIC, 4)
        state[f"PHY {number}"] = found & 0xFFFF if found & _MDIC_READY else -1
    return state


# ---- 8255x ----

_8255X = {
    "SCB status": (0x00, 2),
    "SCB interrupt mask": (0x03, 1),
    "EEPROM control": (0x0E, 2),
    "PMDR": (0x1B, 1),
}
_MDI, _MDI_READ, _MDI_READY, _MDI_PHY = 0x10, 2 << 26, 1 << 28, 1


def _read_8255x(bus: Bus, function: PciFunction) -> State:
    base = _bar(function, io=False)
    state = {name: bus.read(Space.MEMORY, base + at, size) for name, (at, size) in _8255X.items()}
    for number in range(32):
        bus.write(Space.MEMORY, base + _MDI, 4, _MDI_READ | _MDI_PHY << 21 | number << 16)
        found = bus.read(Space.MEMORY, base + _MDI, 4)
        state[f"PHY {number}"] = found & 0xFFFF if found & _MDI_READY else -1
    return state


# ---- Am79C97x ----

#: CSRs: control, interrupt masks, the filters, the mode, the rings' lengths, polling. BCRs: from the master mode on.
_CSR = (0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 46, 47, 58, 76, 78, 80, 82, 112, 114, 122, 124)
_BCR = (2, 4, 5, 6, 7, 9, 18, 19, 20, 21, 22)
_WORD_PORTS, _LONG_PORTS = (
    (0x10, 0x12, 0x16, 2),
    (0x10, 0x14, 0x1C, 4),
)  # RDP, RAP, BDP, and their width in bytes
_DWIO = 1 << 7  # in BCR18


def _read_79c97x(bus: Bus, function: PciFunction) -> State:
    ports = _bar(function, io=True)
    for rdp, rap, bdp, width in (_WORD_PORTS, _LONG_PORTS):
        before = bus.read(Space.IO, ports + rap, width)
        if before > 0xFFFF:
            continue  # not its width now

        def read(data: int, number: int, rap: int = rap, width: int = width) -> int:
            bus.write(Space.IO, ports + rap, width, number)
            return bus.read(Space.IO, ports + data, width) & 0xFFFF

        if bool(read(bdp, 18) & _DWIO) != (width == 4):
            continue
        state = {f"CSR{number}": read(rdp, number) for number in _CSR}
        state |= {f"BCR{number}": read(bdp, number) for number in _BCR}
        bus.write(Space.IO, ports + rap, width, before)
        return state
    raise AssertionError("the chip is not reached by words nor by double words")


READERS: dict[str, Callable[[Bus, PciFunction], State]] = {
    "e1000": _read_8254x,
    "e100": _read_8255x,
    "pcnet32": _read_79c97x,
}


# ---- descriptors ----


def sent_descriptors(host: VMkernel, count: int) -> list[tuple[int, int]]:
    """Of the last ``count`` transmit descriptors of an 8254x: the frame's length, and what shall be and was done
    (command, status: 3.3.3 of the manual).
    """
    (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
    base, bus = _bar(adapter.function, io=False), host.platform.bus
    with _alone():
        ring, size, head = (bus.read(Space.MEMORY, base + at, 4) for at in (0x3800, 0x3808, 0x3810))
    slots = size // 16
    found = []
    for number in range(head - count, head):
        at = ring + number % slots * 16
        raw = bytes(host.memory.view[at : at + 16])
        found.append((int.from_bytes(raw[8:10], "little"), raw[11] | raw[12] << 8))
    return found
