"""A booted machine whose devices are programmed by hand, with drivers' functions and handlers that count."""

from __future__ import annotations

from tests.e2e.machine_code import COUNT_ARG2, IRQ_HANDLED, IRQ_NONE, Code, returns
from tests.vmkernel_core.hardware import until
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.memory import load
from vmklinux.irq import Interrupts, LineInfo
from vmklinux.kobject import Obj
from vmklinux.linux import Linux
from vmklinux.pci import PciCore, PciDevice

#: Registers of QEMU's edu device (docs/specs/edu.txt) that raise its interrupt and take it back.
EDU_RAISE, EDU_ACKNOWLEDGE, EDU_STATUS = 0x60, 0x64, 0x24


class Bench:
    """A booted machine with devices that no driver has, and handlers that count."""

    def __init__(self, host: VMkernel) -> None:
        self.host = host
        self.linux: Linux = host.linux
        code = Code(host.linux)
        self.handler = code.add(COUNT_ARG2 + returns(IRQ_HANDLED))
        self.careless = code.add(COUNT_ARG2 + returns(IRQ_NONE))

    def device(self, id: int) -> PciDevice:
        devices = self.linux.state(PciCore).devices.values()
        return next(device for device in devices if device.function.device == id)

    def call(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call_int(self.linux.entry(name), *arguments)

    def listen(self, irq: int, handler: int = 0) -> int:
        """Install the counting handler, or another one; where it counts, which is also its cookie."""
        counter = self.linux.allocate(4)
        name = self.linux.new_string("bench")
        assert self.call("request_threaded_irq", irq, handler or self.handler, 0, 0, name, counter) == 0
        return counter

    def unlisten(self, irq: int, counter: int) -> None:
        self.call("free_irq", irq, counter)
        self.linux.free(counter)

    def enable(self, device: PciDevice) -> None:
        assert self.call("pci_enable_device", device.obj) == 0
        self.call("pci_set_master", device.obj)

    def write(self, device: PciDevice, register: int, value: int) -> None:
        bar = device.function.bar(0)
        assert bar is not None
        self.host.platform.bus.write(Space.MEMORY, bar.address + register, 4, value)

    def read(self, device: PciDevice, register: int) -> int:
        bar = device.function.bar(0)
        assert bar is not None
        return self.host.platform.bus.read(Space.MEMORY, bar.address + register, 4)

    def lines(self) -> dict[int, LineInfo]:
        return {line.number: line for line in self.linux.state(Interrupts).lines()}


def counts_to(counter: int, value: int) -> None:
    """Wait until a handler has counted so far."""
    until(f"{value} interrupts", lambda: load(counter, 4) == value)


def counts_to_at_least(counter: int, value: int) -> None:
    """Wait until a handler has counted so far or further."""
    until(f"{value} interrupts", lambda: load(counter, 4) >= value)
