"""Where hardware comes from: what every platform offers to the rest of vmkernel_core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    import socket

    from vmkernel_core.bus import Bus
    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.platform.messages import MessageInterrupts

#: Bytes a wire's socket may hold in each direction; the kernel cuts it to net.core.wmem_max.
WIRE_BUFFER = 4 << 20


class PlatformError(VmkError):
    """The platform cannot bring its hardware up, or lost it."""

    exit_code = 4


@dataclass(frozen=True, slots=True, order=True)
class PciAddress:
    """A PCI function's place: domain, bus, device (slot) and function number."""

    domain: int
    bus: int
    device: int
    function: int

    def __str__(self) -> str:
        """Linux's way of writing it, ``0000:00:05.0``."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"

    @property
    def devfn(self) -> int:
        """Device and function in one byte, as Linux's ``PCI_DEVFN`` packs them."""
        return self.device << 3 | self.function


@dataclass(frozen=True, slots=True)
class Apertures:
    """The bus address ranges, as (start, size) in bytes, from which BARs may be given a place."""

    memory: tuple[int, int]
    io: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wire:
    """The far end of a network device's cable: a UNIX datagram socket, one Ethernet frame a datagram.

    ``socket`` may be given to another process (``pass_fds``); frames for a card that does not receive yet
    wait in it. ``name`` is the platform's for it, as in QEMU's ``netdev=``.
    """

    name: str
    socket: socket.socket


class Platform(Protocol):
    """Where hardware comes from: an emulator, a model in this process, a VFIO group.

    Life cycle: ``start`` once, ``stop`` once (also after a failed start; it then frees what there is).
    """

    name: str
    wires: list[Wire]
    apertures: Apertures

    @property
    def bus(self) -> Bus:
        """The way to the registers; there from ``start`` to ``stop``."""

    @property
    def messages(self) -> MessageInterrupts | None:
        """The message interrupts that its devices can send, from ``start`` to ``stop``; None: pins only."""

    def start(self, memory: MachineMemory) -> None:
        """Bring the hardware up on this machine memory; raises PlatformError with its remedy."""

    def stop(self) -> None:
        """Take the hardware down and free all that start took; may be called twice."""

    def functions(self) -> list[PciAddress]:
        """Where a PCI function may answer: the scan asks each of these for its vendor."""

    def config_read(self, address: PciAddress, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of configuration space; all ones where nothing answers."""

    def config_write(self, address: PciAddress, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of configuration space."""

    def interrupt_line(self, address: PciAddress, pin: int) -> int:
        """The interrupt line (a number for vmkernel_core.interrupts) of pin 1…4 (INTA…INTD)."""

    def set_link(self, address: PciAddress, up: bool) -> None:
        """Pull or plug the network cable of the device there."""

    def unplug(self, address: PciAddress) -> None:
        """Remove the device there, as a hot-unplug does; raises TimedOut when it will not go."""
