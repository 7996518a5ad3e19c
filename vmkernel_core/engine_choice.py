"""Which engine is to drive a device: what the list prefers, what an operator says, and what there is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmkernel_core.engine import ENGINES, EngineName
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    no such driver.
    """

    def __init__(
        self,
        engine: EngineName | None,
        engines: Mapping[str, EngineName],
        native: Callable[[str, PciFunction], bool | None],
    ) -> None:
        """UsageError for an engine that there is not."""
        for one in (*engines.values(), *([engine] if engine else [])):
            if one not in ENGINES:
                raise UsageError(f"there is no engine {one}", remedy=f"use {' or '.join(ENGINES)}")
        self.engine = engine
        self._engines = dict(engines)
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
        ways = (str(function.address), f"{function.vendor:04x}:{function.device:04x}", driver)
        override = next((self._engines[way] for way in ways if way in self._engines), self.engine)
        known = self._native(driver, function) if driver else None
        wanted = override or policy or "linux"
        if override is None and wanted == "linux" and not linux and "native" in verdict.engines:
            wanted = "native"
        if wanted == "native" and not known:
            if verdict.module:
                log.info("%s: Linux is to drive it: %s", function, _why_not(driver, known))
            wanted = "linux"
        return Choice(wanted, policy, override)


def _why_not(driver: str, known: bool | None) -> str:
    if known is None:
        return f"there is no driver {driver} in Python" if driver else "the list names no driver for it"
    return f"the driver {driver} in Python does not know it"
