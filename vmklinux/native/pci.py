"""PCI for drivers in Python (Linux drivers/pci/pci.c, pci-driver.c): devices, drivers, configuration space, BARs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from vmkernel_core._core import lib
from vmkernel_core.bus import Space
from vmkernel_core.errors import DeviceGone, NotSupported, UsageError
from vmkernel_core.pci_function import COMMAND, COMMAND_IO, COMMAND_MEMORY, BarKind
from vmklinux.native.device import Device
from vmklinux.pci_regs import PCI_COMMAND_INTX_DISABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vmkernel_core.idle import IdleLoop
    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.pci_function import Bar, PciFunction
    from vmkernel_core.platform.base import Platform
    from vmklinux.module.param import Parameter
    from vmklinux.msi_registers import Vectors

COMMAND_MASTER = 0x4  # PCI Local Bus Specification 3.0, 6.2.2
#: What a bridge is told to pass on both ways.
_PASSES_ON = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER
#: PCI Bus Power Management Interface Specification 1.2, 3.2: its capability, and PMCSR in it.
CAPABILITY_POWER, POWER_CONTROL, POWER_STATE = 0x01, 0x04, 0x3
#: Likewise: PMC, with a bit from _PME_SUPPORT on for each state; PME_En and PME_Status, cleared by writing it, of PMCSR.
_POWER_CAPABILITIES, _PME_SUPPORT, _PME_ENABLE, _PME_STATUS = 0x02, 11, 0x0100, 0x8000
PowerState: TypeAlias = Literal["D0", "D3hot"]
_STATES: dict[PowerState, int] = {"D0": 0, "D3hot": 3}
#: The bytes of configuration space that sleep may lose: header type 0 up to the interrupt line.
_HEADER = range(0x00, 0x40, 4)
_COMMAND_WORD = 0x04
#: What is read as a vendor where there is no device.
_NOBODY = 0xFFFF


class PciDev(Device):
    """A PCI function and what its driver took of it; Linux's pci_dev. ``bridges`` are those above it, which pass on what
    is for it once it is enabled. ``vectors`` are those of pci_alloc_irq_vectors, None for its pin.
    """

    def __init__(
        self,
        function: PciFunction,
        platform: Platform,
        driver_name: str,
        memory: MachineMemory,
        idle: IdleLoop,
        bridges: Sequence[PciFunction] = (),
    ) -> None:
        super().__init__(str(function.address), driver_name, memory, idle)
        self.function = function
        self.bridges = bridges
        self.platform = platform
        self.driver: PciDriver | None = None
        self.saved_state: dict[int, int] = {}
        self.vectors: Vectors | None = None

    def quiesce(self) -> None:
        """No DMA any more, which messages are, and no interrupt by the pin: others may have the line, too."""
        self.command(set=PCI_COMMAND_INTX_DISABLE, clear=COMMAND_MASTER)

    def answers(self) -> bool:
        """Whether the device is there (pci_device_is_present)."""
        return not self.platform.bus.gone and self.read(0, 2) != _NOBODY

    def read(self, offset: int, size: int) -> int:
        """Read configuration space; all ones when the device has gone: another one may have its place."""
        if self.gone:
            return (1 << size * 8) - 1
        return self.platform.config_read(self.function.address, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write configuration space; nothing when the device has gone."""
        if not self.gone:
            self.platform.config_write(self.function.address, offset, size, value)

    def command(self, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear bits of the command register, if the device is there."""
        if not (self.gone or self.platform.bus.gone):
            self.write(COMMAND, 2, self.read(COMMAND, 2) & ~clear | set)

    def capability(self, id: int) -> int:
        """Offset of a capability, or 0."""
        found = self.function.capability(id)
        return found.offset if found else 0


class PciDriver(ABC):
    """A driver of PCI devices; each device that it takes gets an instance. ``pdev`` is the device.

    ``name`` is that of its folder. ``known_parameters`` are those that may be set when it is loaded, the description of
    each with its default; ``self.parameters`` has the values that were given, as text: numbers in decimal, truth as 1
    and 0. Every method runs with the baton.
    """

    name: ClassVar[str]
    known_parameters: ClassVar[Sequence[Parameter]] = ()

    def __init__(self, pdev: PciDev, parameters: Mapping[str, str]) -> None:
        self.pdev = pdev
        self.parameters = parameters
        pdev.driver = self

    @classmethod
    @abstractmethod
    def claims(cls, function: PciFunction) -> bool:
        """Whether it knows the device."""

    @abstractmethod
    def probe(self) -> None:
        """Take the device and make it known (register_netdev, scsi_add_host). A VmkError says why it cannot be driven;
        what was taken is given back then.
        """

    def remove(self) -> None:  # noqa: B027  # most drivers need none: what they took is given back after it
        """Before what was taken is given back, in reverse order. The hardware may have gone (``pdev.gone``)."""

    def shutdown(self) -> None:  # noqa: B027  # likewise
        """The machine goes down, with the driver still at its device: leave that quiet, with its data safe."""

    def suspend(self) -> None:
        """Get ready for D3hot: no DMA, no interrupt. NotSupported."""
        raise NotSupported(f"{self.name} cannot put its device to sleep", where=self.pdev.name)

    def resume(self) -> None:
        """The device is in D0 again, with its configuration space restored. NotSupported."""
        raise NotSupported(f"{self.name} cannot wake its device up", where=self.pdev.name)


class Window:
    """A BAR: registers by their offset in bytes. Reads of a device that has gone give all ones. UsageError for an offset
    outside: what is there is another device's.
    """

    def __init__(self, pdev: PciDev, bar: Bar) -> None:
        """``pci_iomap`` makes it."""
        self.length = bar.size
        self._pdev = pdev
        self._bus = pdev.platform.bus
        self._space = Space.IO if bar.kind is BarKind.IO else Space.MEMORY
        self._address = bar.address

    @property
    def gone(self) -> bool:
        """Whether nothing answers any more."""
        return self._pdev.gone or self._bus.gone

    def _at(self, offset: int, size: int) -> int:
        if not 0 <= offset <= self.length - size:
            raise UsageError(
                f"the {size} bytes at {offset:#x} are not in a BAR of {self.length:#x}", where=self._pdev.name
            )
        return self._address + offset

    def read(self, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes (8 in memory space). Writes before it have reached the device."""
        if self._pdev.gone:
            return (1 << size * 8) - 1
        return self._bus.read(self._space, self._at(offset, size), size)

    def read_rep(self, offset: int, size: int, count: int) -> list[int]:
        """Read the same register, a FIFO, ``count`` times (ioread32_rep): hardly slower than once."""
        if self._pdev.gone:
            return [(1 << size * 8) - 1] * count
        return self._bus.read_rep(self._space, self._at(offset, size), size, count)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes (8 in memory space), wrapped to the size. It is posted: ``flush`` waits for it."""
        if not self._pdev.gone:
            self._bus.write(self._space, self._at(offset, size), size, value)

    def write_rep(self, offset: int, size: int, values: Sequence[int]) -> None:
        """Write the same register, a FIFO, several times (iowrite32_rep), posted: corked, they go out together."""
        if not self._pdev.gone:
            self._bus.write_rep(self._space, self._at(offset, size), size, values)

    def flush(self) -> None:
        """Wait until the device has all writes."""
        if not self._pdev.gone:
            lib.vmk_bus_flush(self._bus.handle)

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Collect writes, to send them together."""
        lib.vmk_bus_cork(self._bus.handle, 1)
        try:
            yield
        finally:
            lib.vmk_bus_cork(self._bus.handle, 0)


def pci_read_config(pdev: PciDev, offset: int, size: int) -> int:
    """Read 1, 2 or 4 bytes of configuration space."""
    return pdev.read(offset, size)


def pci_write_config(pdev: PciDev, offset: int, size: int, value: int) -> None:
    """Write 1, 2 or 4 bytes of configuration space."""
    pdev.write(offset, size, value)


def pci_enable_device(pdev: PciDev) -> None:
    """Have the device decode its BARs, until the driver lets go of it. DeviceGone when it does not answer."""
    for bridge in pdev.bridges:
        command = pdev.platform.config_read(bridge.address, COMMAND, 2)
        pdev.platform.config_write(bridge.address, COMMAND, 2, command | _PASSES_ON)
    if not pdev.answers():
        raise DeviceGone("nothing answers there", where=pdev.name, remedy="plug the device in")
    kinds = {bar.kind is BarKind.IO for bar in pdev.function.bars}
    bits = (COMMAND_IO if True in kinds else 0) | (COMMAND_MEMORY if False in kinds else 0)
    pdev.command(set=bits, clear=PCI_COMMAND_INTX_DISABLE)
    pdev.devres.add(lambda: pdev.command(clear=bits))


def pci_set_master(pdev: PciDev) -> None:
    """Let the device use DMA, until the driver lets go of it."""
    pdev.command(set=COMMAND_MASTER)
    pdev.devres.add(lambda: pci_clear_master(pdev))


def pci_clear_master(pdev: PciDev) -> None:
    """No DMA any more."""
    pdev.command(clear=COMMAND_MASTER)


def pci_iomap(pdev: PciDev, bar: int) -> Window:
    """The registers behind a BAR. UsageError when the device has no such BAR."""
    found = pdev.function.bar(bar)
    if found is None:
        raise UsageError(f"the device has no BAR {bar}", where=pdev.name)
    return Window(pdev, found)


def pci_find_capability(pdev: PciDev, id: int) -> int:
    """Where a capability lies in configuration space; 0 when the device has none such."""
    return pdev.capability(id)


def pci_save_state(pdev: PciDev) -> None:
    """Keep what of the configuration space a sleeping device may lose."""
    pdev.saved_state = {offset: pci_read_config(pdev, offset, 4) for offset in _HEADER}


def pci_restore_state(pdev: PciDev) -> None:
    """Write it again: the BARs first, what makes them decode last; and the interrupt vectors, if it has some."""
    saved, pdev.saved_state = pdev.saved_state, {}
    for offset in sorted(saved, key=lambda offset: offset == _COMMAND_WORD):
        if pci_read_config(pdev, offset, 4) != saved[offset]:
            pci_write_config(pdev, offset, 4, saved[offset])
    if pdev.vectors is not None:
        pdev.vectors.enable()


def pci_set_power_state(pdev: PciDev, state: PowerState) -> None:
    """Put the device to sleep or wake it, if it has the power management capability; else nothing happens."""
    if at := pci_find_capability(pdev, CAPABILITY_POWER):
        control = pci_read_config(pdev, at + POWER_CONTROL, 2) & ~(POWER_STATE | _PME_STATUS)
        pci_write_config(pdev, at + POWER_CONTROL, 2, control | _STATES[state])


def pci_pme_capable(pdev: PciDev, state: PowerState) -> bool:
    """Whether the device can ask to be woken when it is in that state."""
    at = pci_find_capability(pdev, CAPABILITY_POWER)
    able = pci_read_config(pdev, at + _POWER_CAPABILITIES, 2) >> _PME_SUPPORT if at else 0
    return bool(able >> _STATES[state] & 1)


def pci_enable_wake(pdev: PciDev, enable: bool) -> None:
    """Let the device ask to be woken, or not; that it has asked is forgotten. Nothing without the capability."""
    if at := pci_find_capability(pdev, CAPABILITY_POWER):
        control = pci_read_config(pdev, at + POWER_CONTROL, 2) & ~_PME_ENABLE
        pci_write_config(pdev, at + POWER_CONTROL, 2, control | _PME_STATUS | (_PME_ENABLE if enable else 0))
