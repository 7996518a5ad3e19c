"""Device models in this process as a platform: no emulator, no hardware, nothing to install."""

from __future__ import annotations

import os
import select
import socket
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.bus import PythonBus, Space
from vmkernel_core.errors import TimedOut, UsageError
from vmkernel_core.platform.base import WIRE_BUFFER, Apertures, PciAddress, PlatformError, Wire
from vmkernel_core.platform.device_model import NetworkModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.platform.device_model import DeviceModel, Window

#: Below the PC's I/O APIC, above any machine memory that has 32-bit DMA addresses.
_APERTURES = Apertures(memory=(0xC000_0000, 0x3000_0000), io=(0x1000, 0xF000))
#: The first slot; 0 is the host bridge's on a PC.
_FIRST_SLOT = 1
_MOST_DEVICES = 32 - _FIRST_SLOT
#: INTA of slot 1; each pin of each slot has a line of its own, so none is shared.
_FIRST_LINE = 16
#: The longest frame that a datagram may carry.
_LONGEST_FRAME = 65536
#: Frames taken off a wire before the model is locked and given them.
_RECEIVE_BATCH = 64
#: Seconds the thread that serves the wires gets to end.
_STOP_LIMIT = 5.0


class ModelPlatform:
    """Device models as hardware: device ``i`` sits in slot ``i + 1`` of bus 0; each network model has a wire.

    ``wires`` holds the far ends after ``start``, in the order of the network models. The platform's thread
    carries frames from the wires to the models; each model's lock serialises it with register accesses.
    """

    name = "model"
    apertures = _APERTURES
    messages = None
    bus: ModelBus

    def __init__(self, devices: Sequence[DeviceModel]) -> None:
        """Raises UsageError for more than 31 devices, or one that is there twice."""
        if len(devices) > _MOST_DEVICES or len(set(devices)) < len(devices):
            raise UsageError(
                f"a bus has room for {_MOST_DEVICES} device models, each of which sits in one slot"
            )
        self._devices = {
            PciAddress(0, 0, slot, 0): device for slot, device in enumerate(devices, _FIRST_SLOT)
        }
        self._started: dict[PciAddress, DeviceModel] = {}
        self._patch_panel: _PatchPanel | None = None
        self.wires: list[Wire] = []

    def start(self, memory: MachineMemory) -> None:
        """Power the models on; raises PlatformError when the system has no sockets left for their wires."""
        if memory.size > _APERTURES.memory[0]:
            raise UsageError(
                f"device models cannot have {memory.size} bytes of machine memory",
                remedy=f"at most {_APERTURES.memory[0] >> 20} MiB",
            )
        self.bus = ModelBus()
        try:
            self._patch_panel = _PatchPanel()
            for address, device in self._devices.items():
                if isinstance(device, NetworkModel):
                    self.wires.append(self._patch_panel.connect(device, f"wire{len(self.wires)}"))
                line = self.interrupt_line(address, 1)
                device.start(memory.view, partial(lib.vmk_irq_set_level, line))
                self._started[address] = device
            self._patch_panel.start()
        except OSError as error:
            self.stop()
            raise PlatformError(
                f"no wire for a network model: {error.strerror}", remedy="raise the limit of open files"
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Power the models off and cut the wires; close windows on the bus first. May be called twice.

        Raises TimedOut when the thread that serves the wires does not end within 5 seconds.
        """
        if self._patch_panel is not None:
            self._patch_panel.stop()
            self._patch_panel = None
        for device in self._started.values():
            with device.lock:
                device.stop()
        self._started.clear()
        if hasattr(self, "bus"):
            self.bus.decode({})
            self.bus.close()
        for wire in self.wires:
            wire.socket.close()
        self.wires.clear()

    def functions(self) -> list[PciAddress]:
        """The slots that were filled, unplugged ones among them."""
        return list(self._devices)

    def config_read(self, address: PciAddress, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of configuration space; all ones where nothing answers."""
        device = self._started.get(address)
        if device is None:
            return (1 << size * 8) - 1
        with device.lock:
            return device.config_read(offset, size)

    def config_write(self, address: PciAddress, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of configuration space."""
        device = self._started.get(address)
        if device is not None:
            with device.lock:
                device.config_write(offset, size, value)
            self._decode()

    def interrupt_line(self, address: PciAddress, pin: int) -> int:
        """The interrupt line of pin 1…4: four lines for each slot, from 16 up."""
        if not 1 <= pin <= 4:
            raise UsageError(
                f"there is no interrupt pin {pin}", where=str(address), remedy="1 is INTA, 4 INTD"
            )
        return _FIRST_LINE + 4 * (address.device - _FIRST_SLOT) + pin - 1

    def set_link(self, address: PciAddress, up: bool) -> None:
        """Pull or plug the cable of the network model there; UsageError when there is none."""
        device = self._device(address)
        if not isinstance(device, NetworkModel):
            raise UsageError("the device has no network cable", where=str(address))
        with device.lock:
            device.set_link(up)

    def unplug(self, address: PciAddress) -> None:
        """Take the device out at once, without asking it: all of it reads all ones from then on."""
        device = self._device(address)
        with device.lock:
            device.unplug()
        self._decode()

    def _device(self, address: PciAddress) -> DeviceModel:
        device = self._started.get(address)
        if device is None:
            raise UsageError("no device model is there", where=str(address), remedy="start the platform")
        return device

    def _decode(self) -> None:
        self.bus.decode({device: device.windows() for device in self._started.values()})


class ModelBus(PythonBus):
    """The bus of a model platform: register accesses go to the model whose BAR decodes the address."""

    def __init__(self) -> None:
        """A bus on which nothing is decoded yet."""
        super().__init__()
        self._windows: tuple[tuple[tuple[int, int, int, DeviceModel], ...], ...] = ((), ())

    def decode(self, windows: dict[DeviceModel, list[Window]]) -> None:
        """From now on these windows answer."""
        by_space: tuple[list[tuple[int, int, int, DeviceModel]], ...] = ([], [])
        for device, decoded in windows.items():
            for window in decoded:
                by_space[window.space].append((window.start, window.end, window.bar, device))
        self._windows = tuple(map(tuple, by_space))

    def register_read(self, space: Space, address: int, size: int) -> int:
        """Read a model's register; all ones where no BAR decodes."""
        for start, end, bar, device in self._windows[space]:
            if start <= address < end:
                with device.lock:
                    return device.bar_read(bar, address - start, size)
        return (1 << size * 8) - 1

    def register_write(self, space: Space, address: int, size: int, value: int) -> None:
        """Write a model's register; lost where no BAR decodes."""
        for start, end, bar, device in self._windows[space]:
            if start <= address < end:
                with device.lock:
                    device.bar_write(bar, address - start, size, value)
                return


@dataclass(slots=True)
class _Port:
    """A network model's end of its wire, and the frames that came off it and await the model."""

    model: NetworkModel
    socket: socket.socket
    arrived: list[bytes] = field(default_factory=list)

    def interest(self) -> int:
        """What the port waits for, as poll's event mask; nothing while the model holds the other end back."""
        reads = 0 if self.model.receive_paused else select.POLLIN
        return reads | (select.POLLOUT if self.model.transmit_paused else 0)

    def send(self, frames: Sequence[bytes]) -> int:
        """The model's ``wire``: how many frames the socket took. With nobody at the far end all are lost."""
        for taken, frame in enumerate(frames):
            try:
                self.socket.send(frame)
            except BlockingIOError:
                return taken
            except (ConnectionRefusedError, ConnectionResetError):
                return len(frames)
        return len(frames)

    def serve(self, events: int) -> None:
        """Carry what has come to the model, and let it send what it holds back."""
        while events & select.POLLIN and len(self.arrived) < _RECEIVE_BATCH:
            try:
                self.arrived.append(self.socket.recv(_LONGEST_FRAME))
            except (BlockingIOError, ConnectionResetError):
                break
        if not self.arrived and not events & select.POLLOUT:
            return
        with self.model.lock:
            if events & select.POLLOUT and self.model.transmit_paused:
                self.model.resume_transmit()
            del self.arrived[: self.model.receive(self.arrived)]


class _PatchPanel:
    """The platform's thread that serves all wires."""

    def __init__(self) -> None:
        self._ports: dict[int, _Port] = {}
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="model-wires", daemon=True)

    def connect(self, model: NetworkModel, name: str) -> Wire:
        """Give a model its wire; the wire's far end."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WIRE_BUFFER)
        near.setblocking(False)
        port = self._ports[near.fileno()] = _Port(model, near)
        model.connect(port.send, self.wake)
        return Wire(name, far)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def wake(self) -> None:
        """Look again at what the models want; from any thread."""
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """End the thread and close the near ends; TimedOut when it does not end."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(_STOP_LIMIT)
            if self._thread.is_alive():
                raise TimedOut(
                    "the thread that serves the device models' wires did not end", where="a model's lock"
                )
        for port in self._ports.values():
            with port.model.lock:
                port.model.disconnect()
            port.socket.close()
        os.close(self._wake)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while not self._stopping:
            for descriptor, port in self._ports.items():
                poll.register(descriptor, port.interest())
            # No limit: without news there is nothing to do, and stop() brings some.
            news = dict(poll.poll())
            if self._wake in news:
                os.eventfd_read(self._wake)
            for descriptor, port in self._ports.items():
                port.serve(news.get(descriptor, 0))
