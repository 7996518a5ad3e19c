"""The engine whose drivers are Linux's modules: an image, a loader, and the devices that the modules' drivers have."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from vmkernel_core.engine import Leak, LoadedModule, ModuleInfo, ModuleParameter, module_name
from vmkernel_core.errors import NoDriver, UsageError, VmkError
from vmkernel_core.time import timed
from vmklinux.dd import Binder
from vmklinux.errors import DriverRefused, DriverStopped
from vmklinux.ioremap import Windows
from vmklinux.kernels import image_dir
from vmklinux.linux import Linux
from vmklinux.loader import Loader, excuse
from vmklinux.message_vectors import MessageVectors
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import ModuleError
from vmklinux.module.param import parameters, parse_setting
from vmklinux.netdevice import NetDevices
from vmklinux.pci import PciCore
from vmklinux.sd import Disks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.engine import EngineName, Seat
    from vmkernel_core.net.uplink import Uplink
    from vmkernel_core.pci import PciFunction
    from vmklinux.kernels import Kernel
    from vmklinux.kobject import Obj
    from vmklinux.module.param import Parameter
    from vmklinux.netdevice import NetDevice
    from vmklinux.pci import PciDevice

log = logging.getLogger(__name__)

#: Seconds that a driver may wait in its remove function for a device that has gone by itself; and when nothing is left
#: of the platform.
WAIT_GONE, LAST_WAIT = 30.0, 5.0


class LinuxEngine:
    """One Linux kernel and its modules (Engine). ``linux`` is the kernel, ``loader`` has the modules."""

    name: EngineName = "linux"

    def __init__(self, seat: Seat, kernel: Kernel, *, cpus: int, allow_unresolved: bool) -> None:
        """Map the image; no driver runs yet. ImageError, UsageError for too many CPUs."""
        self.kernel = kernel
        self._seat = seat
        self._allow_unresolved = allow_unresolved
        self._bound: list[tuple[PciDevice, str]] = []  # with the module whose driver has it
        with timed(seat.seconds, "image"):
            self.linux = Linux(kernel, seat.memory, seat.idle, image_dir(), cpus=cpus)

    # ---- life ----

    def start(self) -> None:
        """The platform runs: from now on modules may be loaded."""
        linux = self.linux
        linux.on_stopped = self._on_stopped
        self.loader = Loader(linux, lambda name: self._seat.settings(self.name, name, None))
        linux.state(Windows).bus = self._seat.platform.bus.handle
        linux.state(NetDevices).on_register = self._new_uplink
        linux.state(Binder).on_failed = self._on_refused
        self._disks = Disks(linux, self._seat.storage)

    def stop(self) -> None:
        """Free every module."""
        self.loader.close()

    def close(self) -> None:
        """Unmap the kernel."""
        self.linux.close()

    # ---- devices ----

    def add(self, function: PciFunction) -> None:
        """Make its pci_dev."""
        self.linux.state(PciCore).add(function, self._seat.platform)

    def remove(self, function: PciFunction) -> None:
        """Free its pci_dev."""
        core = self.linux.state(PciCore)
        if (device := core.behind(function)) is not None:
            core.remove(device)

    def bind(self, function: PciFunction, modules: Sequence[str], *, trial: bool = False) -> str:
        """Load one module after the other, until a driver takes the device."""
        refusals: dict[str, VmkError] = {}
        for name in modules:
            loaded = set(self.loader.modules)
            try:
                self._bind_to(function, name)
            except (DriverRefused, ModuleError, NoDriver) as error:
                if not trial:
                    raise
                log.info("%s: %s", function, error)
                refusals[name] = error
                for module in [new for new in self.loader.modules if new not in loaded][::-1]:
                    self._seat.leaks.extend(self.unload(module))
            else:
                return name
        # That a driver does not know the device says less than what keeps another from running.
        raise min(
            refusals.values(), key=lambda error: getattr(error, "errno", None) in (errno.ENODEV, errno.ENXIO)
        )

    def _bind_to(self, function: PciFunction, name: str) -> None:
        self._check_runs(function, name)
        settings = self._seat.settings(self.name, name, function)
        if self.kernel.builds_in(name):
            self.loader.start(module_name(name), settings)
        elif module_name(name) not in self.loader.modules:
            with timed(self._seat.seconds, "load"):
                self.loader.load(name, settings, allow_unresolved=self._allow_unresolved)
        with timed(self._seat.seconds, "probe"):
            self._probe(function, name)

    def _check_runs(self, function: PciFunction, name: str) -> None:
        """NoDriver for a module that was stopped: none of its drivers would answer."""
        if self.kernel.builds_in(name) and self.loader.builtins.dead:
            raise NoDriver(
                f"{name} is built into the kernel, of which a driver was stopped, and takes no device any more",
                where=str(function),
                remedy="boot the host anew",
            )
        module = self.loader.modules.get(module_name(name))
        if module is not None and module.dead:
            raise NoDriver(
                f"the module {name} was stopped and takes no device any more",
                where=str(function),
                remedy="unload it and load it again",
            )

    def _probe(self, function: PciFunction, name: str) -> None:
        core = self.linux.state(PciCore)
        device = core.behind(function)
        if device is None:
            raise UsageError(f"no device at {function.address}", remedy="plug it in again")
        low, high = self.loader.range(module_name(name))
        # Another module that is loaded may know the device too: only this one's drivers are asked.
        for driver in [one for one in core.drivers if low <= int(one) < high]:
            if entry := core.match(driver, device):
                error = core.bind(driver, device, entry)
                if error:
                    self._let_go(device, name)
                    raise DriverRefused(
                        f"{name} refused the device: error {-error}", -error, where=str(function)
                    )
                self._bound.append((device, name))
                return
        raise NoDriver(f"{name} does not claim the device", where=str(function))

    def has(self, function: PciFunction) -> bool:
        """Whether a driver took it and has not let go of it by order of this side."""
        return any(device.function is function for device, _ in self._bound)

    def gone(self, function: PciFunction) -> None:
        """Its driver can see it, its commands end."""
        core = self.linux.state(PciCore)
        if (device := core.behind(function)) is not None:
            core.disconnect(device)
            self._disks.gone(device.obj.dev)

    def unbind(self, function: PciFunction, *, surprise: bool) -> list[Leak]:
        """Run the driver's remove function; take back what it left."""
        bound = next((one for one in self._bound if one[0].function is function), None)
        if bound is None:
            return []
        core, (device, name) = self.linux.state(PciCore), bound
        try:
            if surprise:
                core.unbind_gone(device, LAST_WAIT if self._seat.platform.bus.gone else WAIT_GONE)
            else:
                core.unbind(device)
        except DriverStopped as error:
            if not surprise:
                raise
            log.error("%s: %s", function, error)
            self._bound.remove(bound)
            self._let_go(device, name)  # no leak: it could not give it back
            return []
        self._bound.remove(bound)
        return self._let_go(device, name)

    def all_gone(self) -> None:
        """Every command ends."""
        self._disks.gone()

    def _let_go(self, device: PciDevice, name: str) -> list[Leak]:
        """What the driver that let go of a device left of it; it is taken back."""
        left = {
            "irq": (self.linux.state(MessageVectors).release(device), "message vectors"),
            "dma": (self.linux.state(PciCore).end_dma(device), "mappings"),
        }
        because = excuse(self.linux, *self.loader.range(module_name(name)))
        return [
            Leak(kind, f"{count} {what} of {device.function}", name, because)
            for kind, (count, what) in left.items()
            if count
        ]

    # ---- modules ----

    def modules(self) -> list[LoadedModule]:
        """The built-in ones that were started, and those that were loaded."""
        started = [
            LoadedModule(self.name, name, is_stopped=self.loader.builtins.dead)
            for name in self.loader.builtins.started
        ]
        return started + [
            LoadedModule(
                self.name, one.name, one.end - one.base, one.dead, tuple(self.loader.users(one.name))
            )
            for one in self.loader.modules.values()
        ]

    def load(self, name: str) -> None:
        """Load a module."""
        settings = self._seat.settings(self.name, name, None)
        self.loader.load(name, settings, allow_unresolved=self._allow_unresolved)

    def unload(self, name: str, *, forced: bool = False) -> list[Leak]:
        """Run its exit function, and take back what it left. ``forced``: see Loader.unload."""
        name = module_name(name)
        stopped = name in self.loader.modules and self.loader.modules[name].dead
        leaks: list[Leak] = []
        try:
            if name in self.loader.builtins.started:
                leaks += self.loader.stop(name)
            else:
                leaks += self.loader.unload(name, forced=forced)
        finally:
            for bound in [one for one in self._bound if one[0].driver is None]:
                self._bound.remove(bound)
                left = self._let_go(bound[0], name)
                leaks += [] if stopped else left  # one that was stopped could not give it back
        return leaks

    def next_to_unload(self) -> str | None:
        """A module, then the built-in ones, the last that was started first."""
        if self.loader.modules:
            return self.loader.idle()
        return next(reversed(self.loader.builtins.started), None)

    def info(self, name: str) -> ModuleInfo:
        """Its .modinfo."""
        path = self.kernel.find_module(name)
        file = ModuleFile.read(path)
        info = file.info
        return ModuleInfo(
            self.name, file.name, str(path), info.built_for, info.license, info.version, info.description,
            tuple(info.depends), tuple(info.firmware),
        )  # fmt: skip

    def parameters(self, name: str) -> list[ModuleParameter]:
        """What it declared with module_param."""
        return [
            ModuleParameter(
                one.name, f"array of {one.type.name}" if one.array else one.type.name, one.description
            )
            for one in self._parameters(name).values()
        ]

    def _parameters(self, name: str) -> dict[str, Parameter]:
        return parameters(ModuleFile.read(self.kernel.find_module(name)), self.linux.types)

    def check(self, name: str, settings: Sequence[str]) -> None:
        """Parse settings."""
        known = self._parameters(name)
        for setting in settings:
            parse_setting(name, known, setting)

    # ---- what happens ----

    def _new_uplink(self, device: NetDevice) -> Uplink:
        below = self.linux.state(PciCore).of(device.obj.dev)
        return self._seat.uplinks.register(device, below.function if below else None)

    def _on_stopped(self, error: DriverStopped) -> None:
        ranges = [self.loader.range(name) for name in self.loader.stopped_with(error.module)]
        core = self.linux.state(PciCore)
        for device in list(self.linux.state(NetDevices).registered.values()):
            below = core.of(device.obj.dev)
            places = [int(device.obj.netdev_ops), int(below.driver or 0) if below else 0]
            if device.uplink and any(low <= place < high for place in places for low, high in ranges):
                device.uplink.kill("stopped", error)
        for low, high in ranges:
            self._disks.stopped(low, high, error)
        self.loader.silence(error.module)

    def _on_refused(self, device: Obj, driver: str, error: int) -> None:
        """A driver refused a device that another driver made, virtio_net for example."""
        below = self.linux.state(PciCore).of(device)
        if below is not None:
            refused = DriverRefused(
                f"{driver} refused the device: {os.strerror(-error)}", -error, where=str(below.function)
            )
            self._seat.refused(below.function, refused)
