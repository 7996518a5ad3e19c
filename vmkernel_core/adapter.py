"""A device of the machine as a host has it, and the gate that says whether its drivers may be let at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import hcl
from hcl.report import Profile
from hcl.rules import taint
from vmkernel_core.engine import module_name
from vmkernel_core.errors import NoDriver, UsageError
from vmkernel_core.operator_keys import DEVICE_FORMS, device_key, device_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hcl.judging import KernelModules
    from vmkernel_core.engine import EngineName
    from vmkernel_core.engine_choice import Choice, EngineChoice
    from vmkernel_core.errors import VmkError
    from vmkernel_core.net.uplink import Uplink
    from vmkernel_core.pci import PciFunction

#: The taint of ``allow_unresolved``.
UNRESOLVED = "modules that need what nobody serves are loaded, since an operator allows it"
#: The series for which the list is asked where no kernel is.
SERIES = "6.1"
#: The taint of a host without the gate.
UNGUARDED = "devices are driven whatever the list says of them"


@dataclass(repr=False)
class Adapter:
    """A device of the machine, the HCL's verdict on it, and what came of it.

    ``choice`` tells the engine that is to drive it, and why; ``bound``: a driver of it has the device; ``uplink`` is
    what that made of it, None when that is no network device; ``error`` is why no driver has it. ``taint`` is what an
    operator overrode for it, a sentence; "" for nothing.
    """

    function: PciFunction
    verdict: hcl.Verdict
    choice: Choice
    taint: str = ""
    bound: bool = False
    uplink: Uplink | None = None
    error: VmkError | None = None

    def __repr__(self) -> str:
        """The device, and what became of it."""
        what = f"{self.module} ({self.engine})" if self.bound else self.error or "no driver"
        return f"<Adapter {self.function}: {what}>"

    @property
    def engine(self) -> EngineName:
        """The engine that is to drive it."""
        return self.choice.engine

    @property
    def module(self) -> str | None:
        """The engine's module that is to serve it, as the list writes its name; None when there is none."""
        return self.verdict.module

    @property
    def module_name(self) -> str:
        """The same as it is called once it is loaded."""
        return module_name(self.module or "")


class Gate:
    """What the list says of devices, what an operator overrides of it, and what a host makes of both.

    ``policy``, ``modules``, ``allow_unresolved`` and ``on`` are VMkernel's; ``taints`` tells what was overridden.
    """

    def __init__(
        self,
        policy: Profile,
        modules: Mapping[str, str],
        engines: EngineChoice,
        *,
        allow_unresolved: bool,
        on: bool,
    ) -> None:
        """Nothing was judged yet. UsageError for what names no device."""
        self._engines = engines
        self.policy = policy
        self.overrides = {_device(key): module for key, module in modules.items()}
        self._allow_unresolved = allow_unresolved
        self._on = on
        self._taints = dict.fromkeys(
            [*([UNRESOLVED] if allow_unresolved else []), *([] if on else [UNGUARDED])]
        )

    @property
    def taints(self) -> tuple[str, ...]:
        """What an operator overrode since the start, a sentence each."""
        return tuple(self._taints)

    def judge(self, function: PciFunction, kernel: KernelModules | None) -> Adapter:
        """The adapter of a device that came, with the list's verdict on the driver of its engine, or the operator's;
        without a kernel, the list alone is asked."""
        way = next((way for way in device_keys(function) if self.overrides.get(way)), "")
        release = kernel.release if kernel else SERIES
        choice = self._engines.of(
            function, self._lookup(function, release), linux=kernel is not None, module=bool(way)
        )
        of_linux = kernel if choice.engine == "linux" else None
        adapter = Adapter(function, self._lookup(function, release, of_linux, choice.engine), choice)
        if way and kernel is not None:
            adapter.verdict = adapter.verdict.overridden(self.overrides[way])
            adapter.taint = taint(way, self.overrides[way])
            self._taints[adapter.taint] = None
        return adapter

    def _lookup(
        self,
        function: PciFunction,
        release: str,
        kernel: KernelModules | None = None,
        engine: EngineName | None = None,
    ) -> hcl.Verdict:
        """The list's verdict; with a kernel, with what its modules claim and lack."""
        obstacle = kernel.obstacle if kernel and not self._allow_unresolved else None
        return hcl.lookup(
            function.vendor,
            function.device,
            function.subsystem_vendor,
            function.subsystem_device,
            function.class_code,
            kernel=release,
            claimants=kernel.claimants if kernel else None,
            obstacle=obstacle,
            engine=engine,
        )

    def check(self, adapter: Adapter) -> None:
        """NoDriver for a device that is left alone. What an operator chose a module for is not."""
        verdict = adapter.verdict
        if adapter.taint or not self._on:
            return
        if verdict.status is hcl.Status.UNSUPPORTED:
            raise NoDriver(
                f"{adapter.function} is unsupported and left alone",
                where=_reason(verdict),
                remedy="an operator may choose a module of Linux's for it, which taints the host",
            )
        if wanted := self.policy.wants(verdict.status):
            raise NoDriver(
                f"{adapter.function} is {verdict.status} and left alone: {wanted}",
                where=_reason(verdict),
                remedy=f"the profile {Profile.DEFAULT} lets {verdict.module} try",
            )


def _device(text: str) -> str:
    key = device_key(text)
    if key is None:
        raise UsageError(f"{text!r} names no device", where="modules", remedy=f"write {DEVICE_FORMS}")
    return key


def _reason(verdict: hcl.Verdict) -> str:
    """The verdict's reason, with what its status rests on."""
    proof = f"; {verdict.proof}" if verdict.proof else ""
    return verdict.reason.rstrip(".") + proof
