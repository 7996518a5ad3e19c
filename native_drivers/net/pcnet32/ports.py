"""The way to a PCnet's registers: RAP selects one, RDP has the CSR and BDP the BCR of that number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from native_drivers.net.pcnet32.registers import BCR33, BCR34, CSR0
from vmkernel_core.errors import NotSupported
from vmklinux.native.register import Registers

if TYPE_CHECKING:
    from vmklinux.native.pci import Window
    from vmklinux.native.register import Register

APROM = 16  # bytes, from offset 0 on
#: A register number that is not there after a reset.
_PROBE = 88


@dataclass(frozen=True)
class Layout:
    """Offsets of the ports, and their size in bytes."""

    size: int
    RDP: int
    RAP: int
    RESET: int
    BDP: int


#: BCR18, bit DWIO. The hardware keeps it in a software reset; QEMU's device falls back to words.
WORDS = Layout(2, 0x10, 0x12, 0x14, 0x16)
DOUBLE_WORDS = Layout(4, 0x10, 0x14, 0x18, 0x1C)


class Ports:
    """The ports of one chip. RAP is written only when another register is wanted."""

    def __init__(self, window: Window, name: str) -> None:
        """Find out how wide they are, and reset the chip. NotSupported when no PCnet answers."""
        self.window = window
        self.name = name
        for self.layout in (WORDS, DOUBLE_WORDS, WORDS):
            self.reset()
            self._select(CSR0.offset)
            if self._read(self.layout.RDP) == CSR0(STOP=1).raw and self._selects():
                return
        raise NotSupported("no PCnet answers", where=name)

    def reset(self) -> None:
        """Software reset: it stops."""
        self._read(self.layout.RESET)
        self._selected = -1

    def _selects(self) -> bool:
        self._select(_PROBE)
        return self._read(self.layout.RAP) == _PROBE

    def _read(self, port: int) -> int:
        return self.window.read(port, self.layout.size) & 0xFFFF

    def _write(self, port: int, value: int) -> None:
        self.window.write(port, self.layout.size, value)

    def _select(self, number: int) -> None:
        if number != self._selected:
            self._write(self.layout.RAP, number)
            self._selected = number

    def read_csr(self, number: int) -> int:
        """A CSR."""
        self._select(number)
        return self._read(self.layout.RDP)

    def write_csr(self, number: int, value: int) -> None:
        """Write one; posted."""
        self._select(number)
        self._write(self.layout.RDP, value)

    def read_bcr(self, number: int) -> int:
        """A BCR."""
        self._select(number)
        return self._read(self.layout.BDP)

    def write_bcr(self, number: int, value: int) -> None:
        """Write one; posted."""
        self._select(number)
        self._write(self.layout.BDP, value)

    def read_aprom(self) -> bytes:
        """The address PROM: the MAC address, and at its end "WW"."""
        step = 4 if self.layout is DOUBLE_WORDS else 1
        return b"".join(self.window.read(at, step).to_bytes(step, "little") for at in range(0, APROM, step))


class Csrs(Registers):
    """The control and status registers."""

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports.window, ports.name)
        self.ports = ports

    def load(self, register: type[Register]) -> int:
        """Read one."""
        return self.ports.read_csr(register.offset)

    def store(self, register: type[Register], raw: int) -> None:
        """Write one."""
        self.ports.write_csr(register.offset, raw)


class Bcrs(Registers):
    """The bus configuration registers."""

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports.window, ports.name)
        self.ports = ports

    def load(self, register: type[Register]) -> int:
        """Read one."""
        return self.ports.read_bcr(register.offset)

    def store(self, register: type[Register], raw: int) -> None:
        """Write one."""
        self.ports.write_bcr(register.offset, raw)


class PhyRegisters(Registers):
    """The registers of the PHY with this address; ``offset`` of a register is its number."""

    def __init__(self, bcr: Bcrs, address: int) -> None:
        super().__init__(bcr.window, f"{bcr.name} PHY {address}")
        self.bcr = bcr
        self.address = address

    def load(self, register: type[Register]) -> int:
        """Read one."""
        self.bcr.write(BCR33(PHYAD=self.address, REGAD=register.offset))
        return self.bcr.read(BCR34).raw

    def store(self, register: type[Register], raw: int) -> None:
        """Write one."""
        self.bcr.write(BCR33(PHYAD=self.address, REGAD=register.offset))
        self.bcr.write(BCR34(raw))
