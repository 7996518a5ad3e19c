"""A host as a program has it: its uplinks, its storage, its modules, whatever engines run them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from vmkernel_core.engine import ENGINES, engine_name, module_name
from vmkernel_core.errors import TimedOut, UsageError, VmkError
from vmkernel_core.module_settings import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hcl.report import Profile
    from vmkernel_core.adapter import Adapter, Gate
    from vmkernel_core.devices import Devices
    from vmkernel_core.engine import Engine, EngineName, Leak, LoadedModule, ModuleInfo, ModuleParameter
    from vmkernel_core.hotplug import DeviceEvent, Hotplug
    from vmkernel_core.module_settings import ModuleSettings
    from vmkernel_core.net.uplink import Uplink, UplinkEvent
    from vmkernel_core.platform.base import PciAddress, Platform
    from vmkernel_core.storage.adapter import StorageAdapter
    from vmkernel_core.storage.device import StorageDevice
    from vmkernel_core.storage.events import StorageEvent
    from vmkernel_core.storage.inventory import Inventory

log = logging.getLogger(__name__)


class Host(ABC):
    """What there is to see of a host that runs, and to do with it. ``leaks``: what drivers and modules left behind.

    Who boots it sets the rest: ``hotplug``, and which engines there are.
    """

    platform: Platform
    hotplug: Hotplug
    leaks: list[Leak]
    _devices: Devices
    _gate: Gate
    _inventory: Inventory
    _engines: dict[EngineName, Engine]
    _settings: ModuleSettings
    _storage_watchers: list[Callable[[StorageEvent], None]]

    @abstractmethod
    def _engine(self, name: EngineName) -> Engine:
        """An engine, which is started if it is not running. NoDriver, with the remedy, when it cannot be."""

    @abstractmethod
    def _engine_with(self, name: str) -> EngineName:
        """The engine that has a module of that name, which is not loaded and which no device is to have. UsageError."""

    # ---- what there is ----

    @property
    def adapters(self) -> list[Adapter]:
        """The devices of the machine, as they are now."""
        return self._devices.adapters

    @property
    def uplinks(self) -> Mapping[str, Uplink]:
        """The network devices by name (``vmnic0``), as they are now."""
        return self._devices.uplinks.by_name

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
                    f"{len(self.storage)} of {devices} storage devices appeared in {timeout:g} s",
                    remedy=""
                    if self.storage_adapters
                    else "no device has a storage driver: see `adapters` for errors",
                )

    @property
    def storage_adapters(self) -> Mapping[str, StorageAdapter]:
        """The storage adapters by name (``vmhba0``), as they are now."""
        return self._inventory.adapters

    @property
    def policy(self) -> Profile:
        """What a device must have to be driven."""
        return self._gate.policy

    @property
    def taints(self) -> tuple[str, ...]:
        """What an operator overrode since the start, a sentence each. A host with any does not stand for the list."""
        return self._gate.taints

    @property
    def overrides(self) -> Mapping[str, str]:
        """The operator's: PCI address or ``vendor:device`` to module."""
        return self._gate.overrides

    @property
    def engines(self) -> tuple[EngineName, ...]:
        """Those that run."""
        return tuple(self._engines)

    # ---- modules ----

    # Two engines may have modules of one name: ``engine`` says which is meant, where that is not plain.

    def bind(self, adapter: Adapter) -> None:
        """Load the module that is to serve a device and let its driver probe it. NoDriver, DriverRefused ..., UsageError
        when one has it.

        For a device that the list does not name, each module that claims it is tried, until one takes the device.
        """
        with self.hotplug.changes:
            self._devices.bind(adapter)

    def modules(self) -> list[LoadedModule]:
        """Those that are loaded, each engine's in the order of loading."""
        return [module for engine in self._engines.values() for module in engine.modules()]

    def load(self, name: str, settings: Sequence[str] = (), *, engine: EngineName | None = None) -> None:
        """Load a module with its settings, and let its driver probe the devices for which it is the module.

        ``settings``, when there are any, replace those that it had. Raises ModuleNotFound, BadParameter, UsageError when
        it is loaded, and what loading raises; a probe that fails is reported in the Adapter's error.
        """
        engine = self._meant(name, engine)
        if self._is_loaded(name, engine):
            raise UsageError(f"module {name} is loaded already", remedy="unload it first")
        if settings:
            self.set_parameters(name, settings, engine=engine)
        if not (mine := self._devices.served_by(module_name(name), engine)):
            self._engine(engine).load(name)
        for adapter in mine:
            try:
                self.bind(adapter)
                adapter.error = None
            except VmkError as error:
                adapter.error = error
                if not self._is_loaded(name, engine):
                    raise
                log.error("%s: %s", adapter.function, error)

    def _is_loaded(self, name: str, engine: EngineName) -> bool:
        wanted = engine, module_name(name)
        return any((module.engine, module.name) == wanted for module in self.modules())

    def _meant(self, name: str, engine: EngineName | None) -> EngineName:
        """The engine whose module is meant: which has it loaded, else that of its devices, else which has such a one."""
        if engine is not None:
            return engine_name(engine)
        loaded = [one for one in ENGINES if self._is_loaded(name, one)]
        found = loaded or sorted({adapter.engine for adapter in self.adapters_of(name)})
        if len(found) > 1:
            raise UsageError(
                f"{' and '.join(found)} have a module {name}", remedy="say which engine is meant"
            )
        return found[0] if found else self._engine_with(name)

    def adapters_of(self, name: str, engine: EngineName | None = None) -> list[Adapter]:
        """The devices for which a module is the one, of either engine or of one, whether or not its driver has them."""
        return [
            one
            for each in ((engine,) if engine else ENGINES)
            for one in self._devices.served_by(module_name(name), each)
        ]

    def module_info(self, name: str, *, engine: EngineName | None = None) -> ModuleInfo:
        """What a module says of itself, loaded or not. ModuleNotFound."""
        return self._engine(self._meant(name, engine)).info(name)

    def parameters(self, name: str, *, engine: EngineName | None = None) -> list[ModuleParameter]:
        """The parameters that a module takes. ModuleNotFound."""
        return self._engine(self._meant(name, engine)).parameters(name)

    def settings(self, name: str, *, engine: EngineName | None = None) -> tuple[str, ...]:
        """The settings (``name=value``) with which the module is loaded the next time for its own sake."""
        return self._settings.of(self._meant(name, engine), name)

    def set_parameters(self, name: str, settings: Sequence[str], *, engine: EngineName | None = None) -> None:
        """Replace them, those for single devices too; BadParameter when the module would not take one of them.

        They are those of this engine's module only.
        """
        engine = self._meant(name, engine)
        self._engine(engine).check(name, checked(name, settings))
        self._settings.set(engine, name, settings)

    def unload(self, name: str, *, forced: bool = False, engine: EngineName | None = None) -> list[Leak]:
        """Unload one module; what it left behind. Its devices are unbound.

        ``forced`` disregards references to it, whose holder may have been stopped.
        """
        engine = self._meant(name, engine)
        for adapter in self.adapters_of(name, engine):
            self._devices.wake(adapter)
        with self.hotplug.changes:
            try:
                return self._engine(engine).unload(module_name(name), forced=forced)
            finally:
                self._devices.sweep()

    def unload_all(self) -> list[Leak]:
        """Unload every module, those that depend on others first."""
        for engine, running in self._engines.items():
            while (name := running.next_to_unload()) is not None:
                self.leaks += self.unload(name, forced=True, engine=engine)
        return self.leaks

    def unplug(self, address: PciAddress) -> None:
        """Take a device out of the machine, in order: its driver lets go of it, then the platform removes it.

        In a hot-plug slot, everything that is in it goes. Its uplink is dead from then on (event "removed").
        UsageError where no device is.
        """
        adapter = next((a for a in self.adapters if a.function.address == address), None)
        if adapter is None:
            raise UsageError(f"no device at {address}", remedy="adapters lists those that are there")
        self._devices.wake(adapter)
        slot = self.hotplug.slot_of(address)
        if slot is not None:
            self.hotplug.unplug(slot)
            return
        with self.hotplug.changes:
            self._devices.leaving([adapter.function], surprise=False)
        self.platform.unplug(address)
        self._devices.left([adapter.function], surprise=False)

    # ---- what happens ----

    def subscribe(self, watcher: Callable[[UplinkEvent], None]) -> None:
        """Be told of the events of every uplink, now and later; see Uplink.subscribe."""
        self._devices.uplinks.watch(watcher)

    def watch_devices(self, watcher: Callable[[DeviceEvent], None]) -> None:
        """Be told of devices that come and go, from a thread of the vmkernel; the watcher must not block."""
        self._devices.watch(watcher)

    def watch_storage(self, watcher: Callable[[StorageEvent], None]) -> None:
        """Be told of storage adapters and devices, from a thread of the vmkernel; the watcher must not block."""
        self._storage_watchers.append(watcher)

    def _tell_storage(self, event: StorageEvent) -> None:
        log.info("%s %s: %s", event.name, event.kind, event.detail)
        for watcher in self._storage_watchers:
            watcher(event)
