"""Which engine is to drive a device: what the list prefers, what an operator says, and what there is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core.engine import EngineName, engine_name
from vmkernel_core.errors import UsageError
from vmkernel_core.operator_keys import DEVICE_FORMS, device_key, device_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import hcl
    from vmkernel_core.pci import PciFunction

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """``engine`` drives the device; ``policy`` is what the list prefers, None when it names nothing that drives it;
    ``override`` what an operator said, None for nothing."""

    engine: EngineName
    policy: EngineName | None = None
    override: EngineName | None = None


class EngineChoice:
    """An operator's choices: ``engine`` of all devices, ``engines`` of some, by PCI address, ``vendor:device`` or ESX
    driver name.

    ``native(driver, function)`` tells whether the driver in Python of an ESX driver knows a device; None when there is
    no such driver. ``listed()`` gives the list's drivers, each with its engines.
    """

    def __init__(
        self,
        engine: EngineName | None,
        engines: Mapping[str, EngineName],
        native: Callable[[str, PciFunction], bool | None],
        listed: Callable[[], Mapping[str, Sequence[EngineName]]],
    ) -> None:
        """UsageError for an engine that there is not, or that a driver has not, and for what names no device."""
        self.engine = None if engine is None else engine_name(engine)
        self._engines = {
            device_key(key) or _driver(key, name, listed()): engine_name(name)
            for key, name in engines.items()
        }
        self._native = native

    @property
    def needs_linux(self) -> bool:
        """Whether it asks for Linux by name."""
        return "linux" in (self.engine, *self._engines.values())

    def of(self, function: PciFunction, verdict: hcl.Verdict, *, linux: bool, module: bool = False) -> Choice:
        """The engine for a device. ``linux``: there is a kernel; ``module``: an operator named a module of Linux's.

        What cannot be as it was wanted is logged.
        """
        policy = verdict.engines[0] if verdict.engines else None
        if module:
            return Choice("linux", policy)
        driver = verdict.driver or ""
        ways = (*device_keys(function), driver)
        of_this = next((self._engines[way] for way in ways if way in self._engines), None)
        override = of_this or self.engine
        known = self._native(driver, function) if driver else None
        wanted = override or policy or "linux"
        if override is None and wanted == "linux" and not linux and "native" in verdict.engines:
            wanted = "native"
        if wanted == "native" and not known:
            if verdict.module:
                level = logging.INFO if of_this is None else logging.WARNING
                log.log(level, "%s: Linux is to drive it: %s", function, _why_not(driver, known))
            wanted = "linux"
        return Choice(wanted, policy, override)


def _driver(key: str, engine: str, listed: Mapping[str, Sequence[EngineName]]) -> str:
    """A driver of the list that has such an engine. UsageError."""
    if key not in listed:
        near = next((name for name in listed if name.endswith(f"/{key}")), "")
        forms = f"{DEVICE_FORMS}, or the name of a driver of the list (net/e1000)"
        raise UsageError(
            f"{key!r} names neither a device nor a driver of the list",
            where="engines",
            remedy=f"did you mean {near}?" if near else f"write {forms}",
        )
    if engine_name(engine) not in listed[key]:
        raise UsageError(
            f"{key} cannot be had with the engine {engine}",
            where="engines",
            remedy=f"it has {' and '.join(listed[key])}",
        )
    return key


def _why_not(driver: str, known: bool | None) -> str:
    if known is None:
        return f"there is no driver {driver} in Python" if driver else "the list names no driver for it"
    return f"the driver {driver} in Python does not know it"
