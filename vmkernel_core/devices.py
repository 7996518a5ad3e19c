"""The devices of a host: which module of which engine has each, as they come and go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import hcl
from vmkernel_core.errors import NoDriver, UsageError, VmkError
from vmkernel_core.hotplug import DeviceEvent
from vmkernel_core.net.uplinks import Uplinks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vmkernel_core.adapter import Adapter, Gate
    from vmkernel_core.engine import Engine, EngineName, Leak
    from vmkernel_core.net.uplink import Uplink
    from vmkernel_core.pci import PciFunction

log = logging.getLogger(__name__)


class Devices:
    """The adapters of a host, and what drivers make of them; hot-plug's host (HotplugHost).

    ``adapters`` is replaced when a device comes or goes, never changed. ``engines`` are those that run; ``engine``
    starts one that a device needs, or raises NoDriver. ``judge`` makes the adapter of a device. ``leaks`` is where is
    told what drivers left of devices that they let go of.
    """

    def __init__(
        self,
        engines: Mapping[EngineName, Engine],
        engine: Callable[[EngineName], Engine],
        gate: Gate,
        judge: Callable[[PciFunction], Adapter],
        leaks: list[Leak],
    ) -> None:
        """None is there yet."""
        self.adapters: list[Adapter] = []
        self.uplinks = Uplinks(self._new_uplink)
        self._engines, self._engine, self._gate, self._judge = engines, engine, gate, judge
        self._leaks = leaks
        self._watchers: list[Callable[[DeviceEvent], None]] = []

    # ---- drivers ----

    def take_in(self, functions: Sequence[PciFunction]) -> None:
        """Devices came: their drivers get them. A driver that fails is reported in its Adapter's error."""
        for engine in self._engines.values():
            for function in functions:
                engine.add(function)
        new = [self._judge(function) for function in functions]
        self.adapters = [*self.adapters, *new]
        for adapter in new:
            if adapter.module is None:
                continue
            try:
                self.bind(adapter)
            except VmkError as error:
                adapter.error = error
                log.error("%s: %s", adapter.function, error)

    def bind(self, adapter: Adapter) -> None:
        """Let the module that is to serve a device have it; of one that the list does not name, each that claims it.

        NoDriver, DriverRefused ...; UsageError when a driver has it.
        """
        verdict = adapter.verdict
        if adapter.bound:
            raise UsageError(
                f"{adapter.function} has a driver, {adapter.module}", remedy="unload that module first"
            )
        if adapter.module is None:
            raise NoDriver(f"no module may serve {adapter.function}", remedy=verdict.reason)
        self._gate.check(adapter)
        engine, unlisted = self._engine(adapter.engine), bool(verdict.claimants)
        if unlisted and verdict.status is not hcl.Status.CERTIFIED:
            log.warning("%s: not certified: %s", adapter.function, verdict.reason)
        ways = list(dict.fromkeys((adapter.module, *verdict.claimants)))
        taken_by = engine.bind(adapter.function, ways, trial=unlisted)
        if unlisted:
            adapter.verdict = verdict.taken_by(taken_by, ways[: ways.index(taken_by)])
        adapter.bound = True

    def served_by(self, module: str, engine: EngineName) -> list[Adapter]:
        """The devices for which a module is the one, whether or not its driver has them."""
        return [one for one in self.adapters if one.engine == engine and one.module_name == module]

    def sweep(self) -> None:
        """Forget what modules had that were unloaded."""
        for adapter in self.adapters:
            if adapter.uplink is not None and adapter.uplink.error is not None:
                adapter.uplink = None
            if adapter.bound and not self._engines[adapter.engine].has(adapter.function):
                adapter.bound, adapter.uplink = False, None
        used = [adapter.uplink for adapter in self.adapters]
        for uplink in self.uplinks.by_name.values():
            if uplink not in used:
                self.uplinks.forget(uplink)

    @staticmethod
    def wake(adapter: Adapter) -> None:
        """A driver lets go of a device that is awake only."""
        if adapter.uplink is not None and adapter.uplink.is_suspended:
            try:
                adapter.uplink.resume()
            except VmkError as error:
                log.error("%s: %s", adapter.function, error)

    # ---- what drivers tell ----

    def _new_uplink(self, uplink: Uplink, function: PciFunction | None) -> None:
        for adapter in self.adapters:
            if function is not None and adapter.function.address == function.address:
                adapter.uplink = uplink

    def refused(self, function: PciFunction, error: VmkError) -> None:
        """A driver refused a device after it had taken what that hangs at."""
        for adapter in self.adapters:
            if adapter.function.address == function.address:
                adapter.error = error

    # ---- HotplugHost ----

    def functions(self) -> list[PciFunction]:
        """All of them."""
        return [adapter.function for adapter in self.adapters]

    def bound(self) -> list[PciFunction]:
        """Those that a driver has."""
        return [adapter.function for adapter in self.adapters if adapter.bound]

    def plugged(self, functions: Sequence[PciFunction]) -> None:
        """Some came."""
        self.take_in(functions)
        for function in functions:
            self._tell(DeviceEvent("added", function.address))

    def _of(self, functions: Sequence[PciFunction]) -> list[Adapter]:
        return [adapter for adapter in self.adapters if adapter.function in functions]

    def gone(self, functions: Sequence[PciFunction]) -> None:
        """Some went by themselves."""
        for adapter in self._of(functions):
            for engine in self._engines.values():
                engine.gone(adapter.function)
            if adapter.uplink is not None:
                adapter.uplink.removed()

    def leaving(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        """Some are to go: drivers let go of them, and they are forgotten; what is behind a bridge before the bridge."""
        for adapter in reversed(self._of(functions)):
            if adapter.bound:
                self._leaks += self._engines[adapter.engine].unbind(adapter.function, surprise=surprise)
            self.adapters = [other for other in self.adapters if other is not adapter]
            self.uplinks.forget(adapter.uplink)
            for engine in self._engines.values():
                engine.remove(adapter.function)

    def left(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        """They are out of the machine."""
        for function in reversed(functions):
            self._tell(DeviceEvent("removed", function.address, surprise))

    def watch(self, watcher: Callable[[DeviceEvent], None]) -> None:
        """Be told of what comes and goes."""
        self._watchers.append(watcher)

    def _tell(self, event: DeviceEvent) -> None:
        log.info("%s %s%s", event.address, event.kind, " by surprise" if event.surprise else "")
        for watcher in self._watchers:
            watcher(event)
