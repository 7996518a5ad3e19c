"""The composition root: boots a host of a platform, a Linux kernel and the modules that the HCL names.

This is the one file of vmkernel_core that knows vmklinux and hcl.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import hcl
from hcl.report import Profile
from hcl.rules import taint
from vmkernel_core._core import ffi, lib
from vmkernel_core.cores import one_core
from vmkernel_core.errors import TimedOut, UsageError, VmkError
from vmkernel_core.hotplug import DeviceEvent, Hotplug
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.pci import scan
from vmklinux import kernels
from vmklinux.dd import Binder
from vmklinux.errors import DriverRefused, DriverStopped
from vmklinux.ioremap import Windows
from vmklinux.linux import Linux
from vmklinux.loader import Leak, Loader, excuse
from vmklinux.message_vectors import MessageVectors
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import ModuleError
from vmklinux.module.param import parameters, parse_setting
from vmklinux.netdevice import NetDevice, NetDevices
from vmklinux.pci import PciCore, PciDevice
from vmklinux.sd import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from vmkernel_core.net.uplink import UplinkEvent
    from vmkernel_core.pci import PciFunction
    from vmkernel_core.platform.base import PciAddress, Platform
    from vmkernel_core.storage.adapter import StorageAdapter
    from vmkernel_core.storage.device import StorageDevice
    from vmkernel_core.storage.events import StorageEvent
    from vmklinux.kernels import Kernel
    from vmklinux.kobject import Obj
    from vmklinux.module.param import Parameter

log = logging.getLogger(__name__)


#: Seconds that a driver may wait in its remove function for a device that has gone by itself; and when nothing is left
#: of the platform.
WAIT_GONE, LAST_WAIT = 30.0, 5.0
#: The taint of ``allow_unresolved``.
UNRESOLVED = "modules that need what nobody serves are loaded, since an operator allows it"

#: The taint of a host without the gate.
UNGUARDED = "devices are driven whatever the list says of them"


class NoDriver(VmkError):
    """No module may serve the device: the HCL names none, or the device is unsupported, or the profile wants more."""

    exit_code = 4


@dataclass
class Adapter:
    """A device of the machine, the HCL's verdict on it, and, once bound, its pci_dev and uplink.

    ``taint`` is what an operator overrode for it, a sentence; "" for nothing.
    """

    function: PciFunction
    verdict: hcl.Verdict
    taint: str = ""
    device: PciDevice | None = None
    uplink: Uplink | None = None
    error: VmkError | None = None


class VMkernel:
    """A host: use it as a context manager. ``uplinks`` has its network devices by name (``vmnic0`` ...).

    ``kernel`` is a release or its beginning (``"6.1"``); ``modules`` overrides the HCL, PCI address or
    ``vendor:device`` to module name (the device is then "unsupported", and the host tainted: ``taints``);
    ``settings`` are module parameters, by module or by the PCI address of the device that the module is loaded for.
    ``policy`` is what a device must have to be driven, as ``hcl validate`` judges it: with "default", a module that may
    serve it - of a device that the HCL does not name, one of those that claim it, with a warning in the log; with
    "strict", a certification run. One that is left alone has the reason in its Adapter's error. What is unsupported is
    left alone with either, unless ``modules`` names a module for it.
    ``allow_unresolved`` loads modules that need functions which nobody serves; it taints the host too. So does
    ``gate=False``, where nothing is left alone: a certification run is to find out, whatever the last one did.
    ``core`` puts the platform and the driver on that one core, where waking each other costs least (cores.one_core).
    ``cpus`` are presented to the drivers, which make a queue for each; the code of all runs on one.
    ``seconds`` tells how long the image, loading and probing took.
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
    ) -> None:
        """Note what is wanted; start() boots."""
        self.platform = platform
        self.uplinks: dict[str, Uplink] = {}
        self.adapters: list[Adapter] = []
        self.seconds: dict[str, float] = {}
        self.leaks: list[Leak] = []
        self._release = kernel
        self._size = memory
        self._overrides = dict(modules or {})
        self._settings = {kernels.module_name(name): tuple(given) for name, given in (settings or {}).items()}
        self.policy = Profile(policy)
        self._allow_unresolved = allow_unresolved
        self._gate = gate
        self._taints = dict.fromkeys(
            [*([UNRESOLVED] if allow_unresolved else []), *([] if gate else [UNGUARDED])]
        )
        self._core = core
        self._cpus = cpus
        self._stack = ExitStack()
        self._booted = False
        self._watchers: list[Callable[[UplinkEvent], None]] = []
        self._device_watchers: list[Callable[[DeviceEvent], None]] = []
        self._storage_watchers: list[Callable[[StorageEvent], None]] = []

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
        """Bring up memory, the platform and Linux, then load what the HCL names for the devices found.

        Raises NoKernel, PlatformError, ImageError; a device whose driver fails is reported in its Adapter's error.
        """
        try:
            if self._core is not None:
                self._stack.enter_context(one_core(self._core))
            with self._timed("image"):
                self.kernel: Kernel = kernels.find(self._release)
                self.memory = self._stack.enter_context(MachineMemory(self._size))
                self.idle = IdleLoop(self._on_event, self._on_gone)
                self.linux = self._stack.enter_context(
                    Linux(self.kernel, self.memory, self.idle, kernels.image_dir(), cpus=self._cpus)
                )
            self.linux.on_stopped = self._on_stopped
            self._stack.callback(self.platform.stop)
            lib.vmk_irq_reset()
            with self._timed("platform"):
                self.platform.start(self.memory)
            self.loader = Loader(self.linux, self.settings)
            self._stack.callback(self.loader.close)
            self.linux.state(Windows).bus = self.platform.bus.handle
            lib.vmk_port_bus(self.platform.bus.handle)
            self._stack.callback(lib.vmk_port_bus, ffi.NULL)
            for bus in (self.platform.bus, self.platform.messages):
                if bus is not None:
                    lib.vmk_idle_watch(bus.handle)
                    self._stack.callback(lib.vmk_idle_unwatch, bus.handle)
            self._stack.callback(self.idle.stop)
            self.idle.start()
            self.linux.state(NetDevices).on_register = self._new_uplink
            self.linux.state(Binder).on_failed = self._on_refused
            self._inventory = Inventory(self.linux)
            self._inventory.on_event = self._tell_storage
            self.seconds.update(load=0.0, probe=0.0)
            self.hotplug = Hotplug(self.platform, _Devices(self))
            self._take_in(scan(self.platform))
            self._stack.callback(self.hotplug.stop)
            self.hotplug.start()
            self._booted = True
            atexit.register(
                self.stop
            )  # drivers have threads and hardware, which the interpreter's end would cut off
        except BaseException:
            self._stack.close()
            raise

    def stop(self) -> None:
        """Unload every module, then take everything down. ``leaks`` has what the modules left. May be called twice.

        A program that forgets it has it called at its end.
        """
        try:
            if self._booted:
                self._booted = False
                atexit.unregister(self.stop)
                lib.vmk_traps_install()  # whoever enabled or disabled faulthandler has taken the signals
                self.hotplug.stop()
                self.unload_all()
        finally:
            self._stack.close()

    def _timed(self, what: str) -> _Timed:
        return _Timed(self.seconds, what)

    def _take_in(self, functions: Sequence[PciFunction]) -> None:
        for function in functions:
            self.linux.state(PciCore).add(function, self.platform)
        for function in functions:
            self._add(function)

    def _add(self, function: PciFunction) -> None:
        verdict = hcl.lookup(
            function.vendor, function.device, function.subsystem_vendor, function.subsystem_device,
            function.class_code, kernel=self.kernel.release, claimants=self.kernel.claimants,
            obstacle=None if self._allow_unresolved else self.kernel.obstacle,
        )  # fmt: skip
        adapter = Adapter(function, verdict)
        for way in (str(function.address), f"{function.vendor:04x}:{function.device:04x}"):
            if override := self._overrides.get(way):
                adapter.verdict = verdict.overridden(override)
                adapter.taint = taint(way, override)
                self._taints[adapter.taint] = None
                break
        self.adapters = [*self.adapters, adapter]
        if adapter.verdict.module is None:
            return
        try:
            self.bind(adapter)
        except VmkError as error:
            adapter.error = error
            log.error("%s: %s", function, error)

    @property
    def taints(self) -> tuple[str, ...]:
        """What an operator overrode since the start, a sentence each. A host with any does not stand for the list."""
        return tuple(self._taints)

    @property
    def overrides(self) -> Mapping[str, str]:
        """The operator's: PCI address or ``vendor:device`` to module."""
        return self._overrides

    @property
    def storage(self) -> Mapping[str, StorageDevice]:
        """The storage devices by name (``naa.…``, or ``vmhba0:C0:T1:L0``), as they are now."""
        return self._inventory.devices

    def wait_storage(self, devices: int = 1, *, timeout: float = 30.0) -> None:
        """Wait until there are so many storage devices: some adapters find theirs after their driver has started.

        Raises TimedOut after so many seconds.
        """
        changed = self._inventory.changed
        with changed:
            if not changed.wait_for(lambda: len(self.storage) >= devices, timeout):
                raise TimedOut(
                    f"{len(self.storage)} of {devices} storage devices appeared in {timeout:.0f} s"
                )

    @property
    def storage_adapters(self) -> Mapping[str, StorageAdapter]:
        """The storage adapters by name (``vmhba0``), as they are now."""
        return self._inventory.adapters

    # ---- modules ----

    def bind(self, adapter: Adapter) -> None:
        """Load the module that the verdict names and let its driver probe the device. NoDriver, DriverRefused ...

        For a device that the list does not name, each module that claims it is tried, until one takes the device.
        """
        verdict = adapter.verdict
        if verdict.module is None:
            raise NoDriver(f"no module may serve {adapter.function}", remedy=verdict.reason)
        self._pass(adapter)
        with self.hotplug.changes:
            if verdict.claimants:
                self._bind_unlisted(adapter)
            else:
                self._bind_to(adapter, verdict.module)

    def _pass(self, adapter: Adapter) -> None:
        """The gate: NoDriver for a device that is left alone. What an operator chose a module for is not."""
        verdict = adapter.verdict
        if adapter.taint or not self._gate:
            return
        if verdict.status is hcl.Status.UNSUPPORTED:
            raise NoDriver(
                f"{adapter.function} is unsupported and left alone",
                where=_reason(verdict),
                remedy="an operator may choose a module for it, which taints the host",
            )
        if wanted := self.policy.wants(verdict.status):
            raise NoDriver(
                f"{adapter.function} is {verdict.status} and left alone: {wanted}",
                where=_reason(verdict),
                remedy=f"the profile {Profile.DEFAULT} lets {verdict.module} try",
            )

    def _bind_unlisted(self, adapter: Adapter) -> None:
        verdict = adapter.verdict
        if verdict.status is not hcl.Status.CERTIFIED:
            log.warning("%s: not certified: %s", adapter.function, verdict.reason)
        refusals: dict[str, VmkError] = {}
        for name in dict.fromkeys((str(verdict.module), *verdict.claimants)):
            loaded = set(self.loader.modules)
            try:
                self._bind_to(adapter, name)
            except (DriverRefused, ModuleError, NoDriver) as error:
                log.info("%s: %s", adapter.function, error)
                refusals[name] = error
                for module in [new for new in self.loader.modules if new not in loaded][::-1]:
                    self.leaks += self.unload(module)
            else:
                adapter.verdict = verdict.taken_by(name, list(refusals))
                return
        # That a driver does not know the device says less than what keeps another from running.
        raise min(
            refusals.values(), key=lambda error: getattr(error, "errno", None) in (errno.ENODEV, errno.ENXIO)
        )

    def _bind_to(self, adapter: Adapter, name: str) -> None:
        if self.kernel.builds_in(name):
            self.loader.start(kernels.module_name(name), self.settings(name))
        elif kernels.module_name(name) not in self.loader.modules:
            with self._timed("load"):
                settings = self.settings(name) or self._settings.get(str(adapter.function.address), ())
                self.loader.load(name, settings, allow_unresolved=self._allow_unresolved)
        with self._timed("probe"):
            self._probe(adapter, name)

    def _probe(self, adapter: Adapter, name: str) -> None:
        core = self.linux.state(PciCore)
        device = core.behind(adapter.function)
        if device is None:
            raise UsageError(f"no device at {adapter.function.address}", remedy="plug it in again")
        low, high = self.loader.range(kernels.module_name(name))
        # Another module that is loaded may know the device too: only this one's drivers are asked.
        for driver in [one for one in core.drivers if low <= int(one) < high]:
            if entry := core.match(driver, device):
                error = core.bind(driver, device, entry)
                if error:
                    self._let_go(device, name)
                    raise DriverRefused(
                        f"{name} refused the device: error {-error}", -error, where=str(adapter.function)
                    )
                adapter.device = device
                return
        raise NoDriver(f"{name} does not claim the device", where=str(adapter.function))

    def load(self, name: str) -> None:
        """Load a module with its settings, and let its driver probe the devices for which it is the module.

        Raises ModuleNotFound, UsageError when it is loaded, and what loading raises; a probe that fails is reported in
        the Adapter's error.
        """
        if kernels.module_name(name) in (*self.loader.modules, *self.loader.builtins.started):
            raise UsageError(f"module {name} is loaded already", remedy="unload it first")
        if not (mine := self.adapters_of(name)):
            self.loader.load(name, self.settings(name), allow_unresolved=self._allow_unresolved)
        for adapter in mine:
            try:
                self.bind(adapter)
                adapter.error = None
            except VmkError as error:
                adapter.error = error
                if kernels.module_name(name) not in self.loader.modules:
                    raise
                log.error("%s: %s", adapter.function, error)

    def adapters_of(self, name: str) -> list[Adapter]:
        """The devices for which a module is the one, whether or not its driver has them."""
        return [
            a
            for a in self.adapters
            if a.verdict.module and kernels.module_name(a.verdict.module) == kernels.module_name(name)
        ]

    def module_file(self, name: str) -> tuple[Path, ModuleFile]:
        """A module of the kernel, loaded or not: where its file is, and what is in it. ModuleNotFound."""
        path = self.kernel.find_module(name)
        return path, ModuleFile.read(path)

    def parameters(self, name: str) -> dict[str, Parameter]:
        """The parameters that a module takes. ModuleNotFound."""
        return parameters(self.module_file(name)[1], self.linux.types)

    def settings(self, name: str) -> tuple[str, ...]:
        """The settings (``name=value``) with which the module is loaded the next time."""
        return self._settings.get(kernels.module_name(name), ())

    def set_parameters(self, name: str, settings: Sequence[str]) -> None:
        """Replace them; BadParameter when the module would not take one of them."""
        known = self.parameters(name)
        for setting in settings:
            parse_setting(name, known, setting)
        self._settings[kernels.module_name(name)] = tuple(settings)

    def unload(self, name: str, *, forced: bool = False) -> list[Leak]:
        """Unload one module; what it left behind. Its devices are unbound. ``forced``: see Loader.unload."""
        name = kernels.module_name(name)
        stopped = name in self.loader.modules and self.loader.modules[name].dead
        for adapter in self.adapters_of(name):
            self._wake(adapter)
        leaks: list[Leak] = []
        with self.hotplug.changes:
            try:
                if name in self.loader.builtins.started:
                    leaks += self.loader.stop(name)
                else:
                    leaks += self.loader.unload(name, forced=forced)
            finally:
                for adapter in self.adapters:
                    if adapter.uplink is not None and adapter.uplink.error is not None:
                        adapter.uplink = None
                    if adapter.device is not None and adapter.device.driver is None:
                        left = self._let_go(adapter.device, name)
                        leaks += [] if stopped else left  # one that was stopped could not give it back
                        adapter.device = adapter.uplink = None
                self.uplinks = {
                    n: u for n, u in self.uplinks.items() if any(a.uplink is u for a in self.adapters)
                }
        return leaks

    @staticmethod
    def _wake(adapter: Adapter) -> None:
        """A driver lets go of a device that is awake only."""
        if adapter.uplink is not None and adapter.uplink.is_suspended:
            try:
                adapter.uplink.resume()
            except VmkError as error:
                log.error("%s: %s", adapter.function, error)

    def _let_go(self, device: PciDevice, name: str) -> list[Leak]:
        """What the driver that let go of a device left of it; it is taken back."""
        left = {
            "irq": (self.linux.state(MessageVectors).release(device), "message vectors"),
            "dma": (self.linux.state(PciCore).end_dma(device), "mappings"),
        }
        because = excuse(self.linux, *self.loader.range(kernels.module_name(name)))
        return [
            Leak(kind, f"{count} {what} of {device.function}", name, because)
            for kind, (count, what) in left.items()
            if count
        ]

    def unplug(self, address: PciAddress) -> None:
        """Take a device out of the machine, in order: its driver lets go of it, then the platform removes it.

        In a hot-plug slot, everything that is in it goes. Its uplink is dead from then on (event "removed").
        UsageError where no device is.
        """
        adapter = next((a for a in self.adapters if a.function.address == address), None)
        if adapter is None:
            raise UsageError(f"no device at {address}", remedy="adapters lists those that are there")
        self._wake(adapter)
        slot = self.hotplug.slot_of(address)
        if slot is not None:
            self.hotplug.unplug(slot)
            return
        with self.hotplug.changes:
            _Devices(self).leaving([adapter.function], surprise=False)
        self.platform.unplug(address)
        _Devices(self).left([adapter.function], surprise=False)

    def unload_all(self) -> list[Leak]:
        """Unload every module, those that depend on others first."""
        while self.loader.modules:
            self.leaks += self.unload(self.loader.idle(), forced=True)
        for name in reversed(list(self.loader.builtins.started)):
            self.leaks += self.unload(name)
        return self.leaks

    # ---- what happens ----

    def subscribe(self, watcher: Callable[[UplinkEvent], None]) -> None:
        """Be told of the events of every uplink, now and later; see Uplink.subscribe."""
        self._watchers.append(watcher)

    def watch_devices(self, watcher: Callable[[DeviceEvent], None]) -> None:
        """Be told of devices that come and go, from a thread of the vmkernel; the watcher must not block."""
        self._device_watchers.append(watcher)

    def watch_storage(self, watcher: Callable[[StorageEvent], None]) -> None:
        """Be told of storage adapters and devices, from a thread of the vmkernel; the watcher must not block."""
        self._storage_watchers.append(watcher)

    def _tell_storage(self, event: StorageEvent) -> None:
        log.info("%s %s: %s", event.name, event.kind, event.detail)
        for watcher in self._storage_watchers:
            watcher(event)

    def _tell(self, event: UplinkEvent) -> None:
        for watcher in self._watchers:
            watcher(event)

    def _new_uplink(self, device: NetDevice) -> Uplink:
        number = 0
        while f"vmnic{number}" in self.uplinks:
            number += 1
        uplink = Uplink(f"vmnic{number}", device)
        uplink.subscribe(self._tell)
        self.uplinks = self.uplinks | {uplink.name: uplink}
        below = self.linux.state(PciCore).of(device.obj.dev)
        for adapter in self.adapters:
            if below is not None and adapter.function.address == below.function.address:
                adapter.uplink = uplink
        return uplink

    def _on_event(self, event: object) -> None:
        self.linux.event(event)

    def _on_stopped(self, error: DriverStopped) -> None:
        ranges = [self.loader.range(name) for name in self.loader.stopped_with(error.module)]
        core = self.linux.state(PciCore)
        for device in list(self.linux.state(NetDevices).registered.values()):
            below = core.of(device.obj.dev)
            places = [int(device.obj.netdev_ops), int(below.driver or 0) if below else 0]
            if device.uplink and any(low <= place < high for place in places for low, high in ranges):
                device.uplink.kill("stopped", error)
        for low, high in ranges:
            self._inventory.stopped(low, high, error)
        self.loader.silence(error.module)

    def _on_refused(self, device: Obj, driver: str, error: int) -> None:
        """A driver refused a device that another driver made, virtio_net for example."""
        below = self.linux.state(PciCore).of(device)
        for adapter in self.adapters:
            if below is not None and adapter.function.address == below.function.address:
                adapter.error = DriverRefused(
                    f"{driver} refused the device: {os.strerror(-error)}", -error, where=str(adapter.function)
                )

    def _on_gone(self) -> None:
        for uplink in list(self.uplinks.values()):
            uplink.removed()
        self._inventory.gone()
        self.hotplug.look()


def _reason(verdict: hcl.Verdict) -> str:
    """The verdict's reason, with what its status rests on."""
    proof = f"; {verdict.proof}" if verdict.proof else ""
    return verdict.reason.rstrip(".") + proof


class _Devices:
    """What hot-plug asks of the host (HotplugHost)."""

    def __init__(self, host: VMkernel) -> None:
        self._host = host

    def functions(self) -> list[PciFunction]:
        return [adapter.function for adapter in self._host.adapters]

    def bound(self) -> list[PciFunction]:
        return [adapter.function for adapter in self._host.adapters if adapter.device is not None]

    def plugged(self, functions: Sequence[PciFunction]) -> None:
        self._host._take_in(functions)
        for function in functions:
            self._tell(DeviceEvent("added", function.address))

    def _adapters(self, functions: Sequence[PciFunction]) -> list[Adapter]:
        return [adapter for adapter in self._host.adapters if adapter.function in functions]

    def gone(self, functions: Sequence[PciFunction]) -> None:
        core = self._host.linux.state(PciCore)
        for adapter in self._adapters(functions):
            if (device := core.behind(adapter.function)) is not None:
                core.disconnect(device)
                self._host._inventory.gone(device.obj.dev)
            if adapter.uplink is not None:
                adapter.uplink.removed()

    def leaving(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        host, core = self._host, self._host.linux.state(PciCore)
        for adapter in reversed(self._adapters(functions)):
            device = core.behind(adapter.function)
            if adapter.device is not None:
                try:
                    if surprise:
                        core.unbind_gone(adapter.device, LAST_WAIT if host.platform.bus.gone else WAIT_GONE)
                    else:
                        core.unbind(adapter.device)
                except DriverStopped as error:
                    if not surprise:
                        raise
                    log.error("%s: %s", adapter.function, error)
                    host._let_go(
                        adapter.device, str(adapter.verdict.module)
                    )  # no leak: it could not give it back
                else:
                    host.leaks += host._let_go(adapter.device, str(adapter.verdict.module))
            host.adapters = [other for other in host.adapters if other is not adapter]
            host.uplinks = {
                name: uplink for name, uplink in host.uplinks.items() if uplink is not adapter.uplink
            }
            if device is not None:
                core.remove(device)

    def left(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        for function in reversed(functions):
            self._tell(DeviceEvent("removed", function.address, surprise))

    def _tell(self, event: DeviceEvent) -> None:
        log.info("%s %s%s", event.address, event.kind, " by surprise" if event.surprise else "")
        for watcher in self._host._device_watchers:
            watcher(event)


class _Timed:
    """Adds the seconds that a block takes to a table."""

    def __init__(self, table: dict[str, float], key: str) -> None:
        self.table, self.key = table, key

    def __enter__(self) -> None:
        self.began = perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.table[self.key] = self.table.get(self.key, 0.0) + perf_counter() - self.began
