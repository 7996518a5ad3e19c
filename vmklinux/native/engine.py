"""The engine whose drivers are written in Python: it needs no kernel, and none of its files.

A driver is a class of native_drivers: a PciDriver, or one that has no hardware, as a software initiator. To load it
means that its devices get instances of it; what an instance took is given back when its device or the driver goes.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from vmkernel_core._core import lib
from vmkernel_core.engine import LoadedModule, ModuleInfo, ModuleParameter
from vmkernel_core.errors import NoDriver, UsageError, VmkError
from vmkernel_core.time import timed
from vmklinux.errors import DriverStopped
from vmklinux.module.param import parse_setting
from vmklinux.native.device import Device, baton
from vmklinux.native.pci import PciDev, PciDriver
from vmklinux.native.sd import Disks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmkernel_core.engine import EngineName, Leak, Seat
    from vmkernel_core.net.uplink import Uplink, UplinkDriver
    from vmkernel_core.pci import PciFunction
    from vmklinux.module.param import Parameter

log = logging.getLogger(__name__)

#: Seconds that a driver gets to let go of a device that has gone: before time runs faster for it, before its sleeps are
#: cut short, and then.
PATIENCE, HURRY, LAST = 1.0, 30.0, 5.0


class SoftwareDriver(Protocol):
    """A driver without hardware, made of a Device and the parameters that were given; all it takes is in devres."""

    name: ClassVar[str]
    known_parameters: ClassVar[Sequence[Parameter]]

    def __init__(self, device: Device, parameters: Mapping[str, str], /) -> None: ...

    def probe(self) -> None:
        """Make known what it has. A VmkError says why there is nothing."""


Driver: TypeAlias = type[PciDriver] | type[SoftwareDriver]


@dataclass(eq=False)
class _Bound:
    """A device that a driver has; ``function`` is None for one that is no hardware."""

    driver: Driver
    device: Device
    function: PciFunction | None
    uplinks: list[Uplink] = field(default_factory=list)
    instance: PciDriver | SoftwareDriver | None = None


class NativeEngine:
    """Drivers in Python, and their devices (Engine). ``find`` gives a driver by its name, None when there is none;
    ``names`` are those of all.
    """

    name: EngineName = "native"

    def __init__(self, seat: Seat, find: Callable[[str], Driver | None], names: Sequence[str]) -> None:
        """No driver is loaded."""
        self._seat = seat
        self._find = find
        self._names = names
        self._loaded: dict[str, Driver] = {}
        self._bound: list[_Bound] = []
        self._bridges: list[PciFunction] = []

    # ---- life ----

    def start(self) -> None:
        """The platform runs."""
        self._disks = Disks(self._seat.storage)

    def stop(self) -> None:
        """Leave devices quiet and take back what drivers have, without asking them to let go of it."""
        for bound in reversed(self._bound):
            device, instance = bound.device, bound.instance
            if isinstance(instance, PciDriver) and not (device.gone or device.stopped):
                try:
                    with device.calling(), device.exclusive():
                        instance.shutdown()
                except VmkError as error:
                    log.warning("%s: %s", device.name, error)
            self._take_back(bound)

    def close(self) -> None:
        """There is nothing more."""

    # ---- devices ----

    def add(self, function: PciFunction) -> None:
        """Devices are made for drivers, but bridges are noted."""
        if function.bridge:
            self._bridges.append(function)

    def remove(self, function: PciFunction) -> None:
        """Nothing is kept of a device that no driver has."""
        self._bridges = [bridge for bridge in self._bridges if bridge is not function]

    def _above(self, function: PciFunction) -> list[PciFunction]:
        """The bridges above it."""
        bus = function.address.bus
        return [
            one
            for one in self._bridges
            if one.bridge and one.bridge.secondary <= bus <= one.bridge.subordinate
        ]

    def bind(self, function: PciFunction, modules: Sequence[str], *, trial: bool = False) -> str:
        """Let a driver probe a function: one, since only the list names drivers in Python."""
        (name,) = modules
        driver, seat = self._driver(name), self._seat
        if not (issubclass(driver, PciDriver) and driver.claims(function)):
            raise NoDriver(f"the driver {name} in Python does not know the device", where=str(function))
        parameters = self._parse(driver, seat.settings(self.name, name, function))
        self._loaded.setdefault(driver.name, driver)
        bridges = self._above(function)
        pdev = PciDev(function, seat.platform, driver.name, seat.memory, seat.idle, bridges)
        self._probe(_Bound(driver, pdev, function), lambda: driver(pdev, parameters))
        return name

    def _probe(self, bound: _Bound, make: Callable[[], PciDriver | SoftwareDriver]) -> None:
        device = bound.device
        device.on_uplink = partial(self._new_uplink, bound)
        device.on_stopped = partial(self._on_stopped, bound)
        self._bound.append(bound)
        try:
            with timed(self._seat.seconds, "probe"), device.calling():
                bound.instance = make()
                bound.instance.probe()
        except BaseException:
            self._take_back(bound)
            raise

    def _take_back(self, bound: _Bound) -> None:
        with baton():
            bound.device.devres.release_all()
        for uplink in bound.uplinks:
            self._seat.uplinks.forget(uplink)
        self._bound = [other for other in self._bound if other is not bound]

    def _of(self, function: PciFunction) -> _Bound | None:
        return next((bound for bound in self._bound if bound.function is function), None)

    def has(self, function: PciFunction) -> bool:
        """Whether a driver took it."""
        return self._of(function) is not None

    def gone(self, function: PciFunction) -> None:
        """Its registers read as ones, its commands end."""
        if (bound := self._of(function)) is not None:
            self._gone(bound.device)

    def _gone(self, device: Device) -> None:
        device.gone = True
        self._disks.gone(device)

    def all_gone(self) -> None:
        """The same for all of them; what is no hardware is there still."""
        for bound in self._bound:
            if bound.function is not None:
                self._gone(bound.device)

    def unbind(self, function: PciFunction, *, surprise: bool) -> list[Leak]:
        """Run the driver's remove function and take back the rest: nothing is left."""
        bound = self._of(function)
        if bound is None:
            return []
        if not surprise:
            self._let_go(bound)
            return []
        self._gone(bound.device)
        try:
            self._let_go_of_gone(bound)
        except DriverStopped as error:
            log.error("%s: %s", function, error)
        return []

    def _let_go(self, bound: _Bound) -> None:
        """Remove; all is taken back whatever comes of it. DriverStopped."""
        device, instance = bound.device, bound.instance
        try:
            if isinstance(instance, PciDriver) and device.stopped is None:
                with device.calling():
                    instance.remove()
        except DriverStopped:
            raise
        except VmkError as error:
            log.warning("%s: %s", device.name, error)
        finally:
            self._take_back(bound)

    def _let_go_of_gone(self, bound: _Bound) -> None:
        """The same in a world of its own, where what it waits for will not come. DriverStopped."""
        tasks, failed = list[int](), list[DriverStopped]()

        def remove() -> None:
            with baton(), bound.device.inside():
                # With the baton: before, Linux's engine may not know the world.
                tasks.append(lib.vmk_world_task())
                try:
                    self._let_go(bound)
                except DriverStopped as error:
                    failed.append(error)

        thread = threading.Thread(target=remove, name=f"remove-{bound.device.name}", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if thread.is_alive():
            with baton():
                bound.device.hurry()
            thread.join(HURRY)
        if thread.is_alive():
            for task in tasks:
                lib.vmk_world_end(task)
            thread.join(LAST)
            name = bound.driver.name
            raise DriverStopped(
                name,
                f"it waited for its device, which has gone, for {HURRY:.0f} s",
                reason="gone",
                site="remove",
            )
        if failed:
            raise failed[0]

    # ---- modules ----

    def _driver(self, name: str) -> Driver:
        driver = self._find(name)
        if driver is None:
            raise UsageError(
                f"there is no driver {name} in Python", remedy=f"there are {', '.join(self._names)}"
            )
        return driver

    def modules(self) -> list[LoadedModule]:
        """The drivers that have devices, and those that were asked for."""
        stopped = {bound.driver.name for bound in self._bound if bound.device.stopped}
        return [LoadedModule(self.name, name, is_stopped=name in stopped) for name in self._loaded]

    def load(self, name: str) -> None:
        """Let a driver without hardware begin; one that has some waits for it."""
        driver, seat = self._driver(name), self._seat
        parameters = self._parse(driver, seat.settings(self.name, driver.name, None))
        if not issubclass(driver, PciDriver):
            device = Device(driver.name, driver.name, seat.memory, seat.idle)
            self._probe(_Bound(driver, device, None), lambda: driver(device, parameters))
        self._loaded[driver.name] = driver

    def unload(self, name: str, *, forced: bool = False) -> list[Leak]:
        """Let it go of its devices, the latest first: nothing is left."""
        driver = self._loaded.get(name)
        if driver is None:
            raise UsageError(f"the driver {name} in Python is not loaded")
        try:
            for bound in [one for one in reversed(self._bound) if one.driver is driver]:
                try:
                    self._let_go(bound)
                except DriverStopped as error:
                    log.error("%s: %s", bound.device.name, error)
        finally:
            del self._loaded[name]
        return []

    def next_to_unload(self) -> str | None:
        """The latest."""
        return next(reversed(self._loaded), None)

    def info(self, name: str) -> ModuleInfo:
        """What its package says."""
        driver = self._driver(name)
        package = sys.modules[driver.__module__.rpartition(".")[0]]
        about = (inspect.getdoc(package) or "").partition("\n")[0]
        return ModuleInfo(self.name, driver.name, str(package.__file__), "", "GPL-2.0-or-later", "", about)

    def parameters(self, name: str) -> list[ModuleParameter]:
        """Those that its class tells of."""
        return [
            ModuleParameter(one.name, one.type.name, one.description)
            for one in self._driver(name).known_parameters
        ]

    def check(self, name: str, settings: Sequence[str]) -> None:
        """Parse settings."""
        self._parse(self._driver(name), settings)

    @staticmethod
    def _parse(driver: Driver, settings: Sequence[str]) -> dict[str, str]:
        """What a driver is given: the text of each parameter that was set."""
        known = {one.name: one for one in driver.known_parameters}
        parsed = [parse_setting(f"native:{driver.name}", known, setting) for setting in settings]
        return {one.parameter.name: str(one.values[0]) for one in parsed}

    # ---- what happens ----

    def _new_uplink(self, bound: _Bound, driver: UplinkDriver) -> Uplink:
        uplink = self._seat.uplinks.register(driver, bound.function)
        bound.uplinks.append(uplink)
        return uplink

    def _on_stopped(self, bound: _Bound, error: DriverStopped) -> None:
        for uplink in bound.uplinks:
            uplink.kill("stopped", error)
        self._disks.stopped(bound.device)
