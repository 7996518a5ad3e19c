"""The composition root: boots a host of a platform, its engines, and the drivers that the HCL names.

This is the one file of vmkernel_core that knows vmklinux and native_drivers.
"""

from __future__ import annotations

import atexit
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import native_drivers
from hcl.report import Profile
from hcl.unlisted import is_driven
from vmkernel_core._core import ffi, lib
from vmkernel_core.adapter import Adapter, Gate
from vmkernel_core.cores import one_core
from vmkernel_core.devices import Devices
from vmkernel_core.engine import Engine, EngineName, Leak, Seat
from vmkernel_core.engine_choice import EngineChoice
from vmkernel_core.errors import NoDriver, UsageError, VmkError
from vmkernel_core.host import Host
from vmkernel_core.hotplug import Hotplug
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.module_settings import ModuleSettings
from vmkernel_core.pci import scan
from vmkernel_core.storage.inventory import Inventory
from vmkernel_core.time import timed
from vmklinux import kernels
from vmklinux.engine import LinuxEngine
from vmklinux.native.engine import NativeEngine
from vmklinux.native.pci import PciDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from vmkernel_core.pci import PciFunction
    from vmkernel_core.platform.base import Platform
    from vmkernel_core.storage.events import StorageEvent
    from vmklinux.kernels import Kernel, NoKernel
    from vmklinux.linux import Linux
    from vmklinux.loader import Loader

log = logging.getLogger(__name__)


class VMkernel(Host):
    """A host: use it as a context manager. ``uplinks`` has its network devices by name (``vmnic0`` ...).

    ``kernel`` is a release or its beginning (``"6.1"``); ``modules`` overrides the HCL, PCI address or
    ``vendor:device`` to module name (the device is then "unsupported", and the host tainted: ``taints``);
    ``settings`` are module parameters, by module (``e1000``: of either engine; ``native:e1000``, ``linux:e1000``) or by
    the PCI address of the device that the module is loaded for; what is nearest counts.
    ``policy`` is what a device must have to be driven, as ``hcl validate`` judges it: with "default", a module that may
    serve it - of a device that the HCL does not name, one of those that claim it, with a warning in the log; with
    "strict", a certification run. One that is left alone has the reason in its Adapter's error. What is unsupported is
    left alone with either, unless ``modules`` names a module for it.
    ``allow_unresolved`` loads modules that need functions which nobody serves; it taints the host too. So does
    ``gate=False``, where nothing is left alone: a certification run is to find out, whatever the last one did.
    ``core`` puts the platform and the driver on that one core, where waking each other costs least (cores.one_core).
    ``cpus`` are presented to the drivers, which make a queue for each; the code of all runs on one.
    ``engine`` says what drives the devices: "linux", modules of a kernel; "native", drivers in Python, for what these do
    not know Linux's, which is booted when a device first needs it; None: what the list prefers, and drivers in Python
    where no kernel is. ``engines`` says it of one device or some: PCI address, ``vendor:device`` or ESX driver name
    (``net/e1000``) to engine. An Adapter's ``choice`` tells what came of it.
    ``seconds`` tells how long the image, loading and probing took; ``leaks`` what drivers and modules left behind.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        kernel: str | None = None,
        memory: int = 256 << 20,
        modules: Mapping[str, str] | None = None,
        settings: Mapping[str, Sequence[str]] | None = None,
        policy: Profile | Literal["default", "strict"] = Profile.DEFAULT,
        allow_unresolved: bool = False,
        gate: bool = True,
        core: int | None = None,
        cpus: int = 1,
        engine: EngineName | None = None,
        engines: Mapping[str, EngineName] | None = None,
    ) -> None:
        """Note what is wanted; start() boots. UsageError for what there is not: engines, devices, drivers, modules."""
        self.platform = platform
        self.seconds: dict[str, float] = {}
        self.leaks: list[Leak] = []
        self._engines: dict[EngineName, Engine] = {}
        self._release = kernel
        self._size = memory
        self._settings = ModuleSettings(settings or {})
        self._allow_unresolved = allow_unresolved
        self._choice = EngineChoice(engine, engines or {}, _knows, _listed)
        self._gate = Gate(
            _profile(policy), modules or {}, self._choice, allow_unresolved=allow_unresolved, on=gate
        )
        self._core = core
        self._cpus = cpus
        self._kernel: Kernel | None = None
        self._no_kernel: NoKernel | None = None
        self._linux: LinuxEngine | None = None
        self._devices = Devices(self._engines, self._engine, self._gate, self._judge, self.leaks)
        self._inventory = Inventory()
        self._inventory.on_event = self._tell_storage
        self._storage_watchers: list[Callable[[StorageEvent], None]] = []
        self._stack = ExitStack()
        self._booted = False

    def __repr__(self) -> str:
        """Its platform, and what runs on it."""
        engines = " and ".join(self._engines) or "not started"
        return f"<VMkernel on {self.platform.name}: {engines}, {len(self.adapters)} devices>"

    def __enter__(self) -> VMkernel:
        """Boot."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        self.stop()

    # ---- life cycle ----

    def start(self) -> None:
        """Bring up memory, the platform and the engines, then load what the HCL names for the devices found.

        Raises NoKernel, PlatformError, ImageError; a device whose driver fails is reported in its Adapter's error.
        """
        if self._booted:
            raise UsageError("the host runs already", remedy="stop it first")
        try:
            if self._core is not None:
                self._stack.enter_context(one_core(self._core))
            self._find_kernel()
            self.memory = self._stack.enter_context(MachineMemory(self._size))
            self.idle = IdleLoop(self._on_event, self._on_gone)
            self._seat = Seat(
                self.platform, self.memory, self.idle, self._devices.uplinks, self._inventory,
                self._settings.of, self._devices.refused, self.seconds, self.leaks,
            )  # fmt: skip
            self._stack.callback(self._each_engine, "close")
            self._engines["native"] = NativeEngine(self._seat, native_drivers.find, native_drivers.names())
            self.seconds.update(image=0.0, load=0.0, probe=0.0)
            if self._kernel is not None and self._choice.engine != "native":
                self._make_linux(self._kernel)
            self._stack.callback(self.platform.stop)
            lib.vmk_irq_reset()
            with timed(self.seconds, "platform"):
                self.platform.start(self.memory)
            for engine in self._engines.values():
                engine.start()
            self._stack.callback(self._each_engine, "stop")
            self._watch_buses()
            self.hotplug = Hotplug(self.platform, self._devices)
            self._devices.take_in(scan(self.platform))
            self._check_kernel()
            self._stack.callback(self.hotplug.stop)
            self.hotplug.start()
            self._booted = True
            atexit.register(
                self.stop
            )  # drivers have threads and hardware, which the interpreter's end would cut off
        except BaseException:
            self._stack.close()
            raise

    def _find_kernel(self) -> None:
        """NoKernel where one was asked for."""
        try:
            self._kernel = kernels.find(self._release)
        except kernels.NoKernel as error:
            if self._choice.needs_linux or (self._release is not None and self._choice.engine is None):
                raise
            self._no_kernel = error

    def _make_linux(self, kernel: Kernel) -> LinuxEngine:
        linux = LinuxEngine(self._seat, kernel, cpus=self._cpus, allow_unresolved=self._allow_unresolved)
        self._engines["linux"] = self._linux = linux
        return linux

    def _engine(self, name: EngineName) -> Engine:
        """An engine, which is started if it is not running. NoDriver, with the remedy, when no kernel is there."""
        if not self._engines:
            raise UsageError("the host was not started", remedy="call start, or use it as a context manager")
        if name not in self._engines:
            if self._kernel is None:
                raise self._kernel_wanted("this takes a module of a Linux kernel, and no kernel is here")
            linux = self._make_linux(self._kernel)
            linux.start()
            for adapter in self.adapters:
                linux.add(adapter.function)
        return self._engines[name]

    def _kernel_wanted(self, what: str) -> NoDriver:
        why = self._no_kernel
        return NoDriver(what, where=why.where if why else "", remedy=why.remedy if why else "")

    def _check_kernel(self) -> None:
        """NoKernel for a host that drives nothing since it has none, but where drivers in Python were asked for."""
        others = (one.bound or one.engine == "native" for one in self.adapters)
        if self._no_kernel and self._choice.engine is None and not any(others):
            raise self._no_kernel

    def _each_engine(self, what: Literal["stop", "close"]) -> None:
        for engine in reversed(list(self._engines.values())):
            getattr(engine, what)()

    def _watch_buses(self) -> None:
        lib.vmk_port_bus(self.platform.bus.handle)
        self._stack.callback(lib.vmk_port_bus, ffi.NULL)
        for bus in (self.platform.bus, self.platform.messages):
            if bus is not None:
                lib.vmk_idle_watch(bus.handle)
                self._stack.callback(lib.vmk_idle_unwatch, bus.handle)
        self._stack.callback(self.idle.stop)
        self.idle.start()

    def stop(self) -> None:
        """Unload every module, then take everything down. ``leaks`` has what the modules left. May be called twice.

        A program that forgets it has it called at its end.
        """
        try:
            if self._booted:
                self._booted = False
                atexit.unregister(self.stop)
                if self._linux is not None:
                    lib.vmk_traps_install()  # whoever enabled or disabled faulthandler has taken the signals
                self.hotplug.stop()
                self.unload_all()
        finally:
            self._stack.close()

    def _judge(self, function: PciFunction) -> Adapter:
        adapter = self._gate.judge(function, self._kernel)
        if self._kernel is None and adapter.module is None and is_driven(f"{function.class_code:06x}"):
            # Which modules claim it, only a kernel knows.
            adapter.error = self._kernel_wanted(
                "no driver in Python knows the device, and no kernel is here whose module might"
            )
        return adapter

    @property
    def kernel(self) -> Kernel:
        """The kernel whose modules drive devices, or would. NoKernel where there is none."""
        if self._kernel is None:
            raise self._no_kernel or UsageError("the host was not started")
        return self._kernel

    @property
    def linux(self) -> Linux:
        """That kernel as it runs. UsageError while no device needs it."""
        return self._booted_linux.linux

    @property
    def loader(self) -> Loader:
        """Its loader. UsageError likewise."""
        return self._booted_linux.loader

    @property
    def _booted_linux(self) -> LinuxEngine:
        if self._linux is None:
            raise UsageError("no Linux kernel runs on this host", remedy="boot it with the engine linux")
        return self._linux

    def _engine_with(self, name: str) -> EngineName:
        native = native_drivers.find(name) is not None
        if self._kernel is None and not native:
            raise UsageError(
                f"there is no driver {name} in Python, and no kernel is here whose module it might be",
                remedy=self._no_kernel.remedy if self._no_kernel else "",
            )
        return "native" if native and not self._has_module(name) else "linux"

    def _has_module(self, name: str) -> bool:
        try:
            self.kernel.find_module(name)
        except VmkError:
            return False
        return True

    def _on_event(self, event: Any) -> None:
        if self._linux is not None:  # no other engine has kernel code
            self._linux.linux.event(event)

    def _on_gone(self) -> None:
        self._devices.uplinks.all_gone()
        for engine in list(self._engines.values()):
            engine.all_gone()
        self.hotplug.look()


def _profile(name: str) -> Profile:
    try:
        return Profile(name)
    except ValueError as error:
        raise UsageError(f"there is no policy {name!r}", remedy=f"use {' or '.join(Profile)}") from error


def _listed() -> Mapping[str, Sequence[EngineName]]:
    from hcl.reading import installed

    return {name: driver.engines for name, driver in installed().drivers.items()}


def _knows(driver: str, function: PciFunction) -> bool | None:
    """Whether the driver in Python of an ESX driver knows a device; None when there is none."""
    found = native_drivers.find(driver)
    return None if found is None else issubclass(found, PciDriver) and found.claims(function)
