"""A device of the machine as a host has it, and the gate that says whether its drivers may be let at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import hcl
from hcl.report import Profile
from hcl.rules import taint
from vmkernel_core.errors import NoDriver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hcl.unlisted import Claimants, Obstacle
    from vmkernel_core.engine import EngineName
    from vmkernel_core.errors import VmkError
    from vmkernel_core.net.uplink import Uplink
    from vmkernel_core.pci import PciFunction

#: The taint of ``allow_unresolved``.
UNRESOLVED = "modules that need what nobody serves are loaded, since an operator allows it"
#: The taint of a host without the gate.
UNGUARDED = "devices are driven whatever the list says of them"


@dataclass
class Adapter:
    """A device of the machine, the HCL's verdict on it, and what came of it.

    ``engine`` is the one that is to drive it; ``bound``: a driver of it has the device; ``uplink`` is what that made of
    it, None when that is no network device; ``error`` is why no driver has it. ``taint`` is what an operator overrode
    for it, a sentence; "" for nothing.
    """

    function: PciFunction
    verdict: hcl.Verdict
    taint: str = ""
    engine: EngineName = "linux"
    bound: bool = False
    uplink: Uplink | None = None
    error: VmkError | None = None

    @property
    def module(self) -> str | None:
        """The module that is to serve it, as the list writes its name; None when there is none."""
        return self.verdict.module

    @property
    def module_name(self) -> str:
        """The same as it is called once it is loaded."""
        return (self.module or "").replace("-", "_")


class Gate:
    """What the list says of devices, what an operator overrides of it, and what a host makes of both.

    ``policy``, ``modules``, ``allow_unresolved`` and ``on`` are VMkernel's; ``taints`` tells what was overridden.
    """

    def __init__(
        self, policy: Profile, modules: Mapping[str, str], *, allow_unresolved: bool, on: bool
    ) -> None:
        """Nothing was judged yet."""
        self.policy = policy
        self.overrides = dict(modules)
        self._allow_unresolved = allow_unresolved
        self._on = on
        self._taints = dict.fromkeys(
            [*([UNRESOLVED] if allow_unresolved else []), *([] if on else [UNGUARDED])]
        )

    @property
    def taints(self) -> tuple[str, ...]:
        """What an operator overrode since the start, a sentence each."""
        return tuple(self._taints)

    def judge(
        self, function: PciFunction, *, kernel: str, claimants: Claimants | None, obstacle: Obstacle | None
    ) -> Adapter:
        """The adapter of a device that came, with the list's verdict or the operator's."""
        verdict = hcl.lookup(
            function.vendor, function.device, function.subsystem_vendor, function.subsystem_device,
            function.class_code, kernel=kernel, claimants=claimants,
            obstacle=None if self._allow_unresolved else obstacle,
        )  # fmt: skip
        adapter = Adapter(function, verdict)
        for way in (str(function.address), f"{function.vendor:04x}:{function.device:04x}"):
            if override := self.overrides.get(way):
                adapter.verdict = verdict.overridden(override)
                adapter.taint = taint(way, override)
                self._taints[adapter.taint] = None
                break
        return adapter

    def check(self, adapter: Adapter) -> None:
        """NoDriver for a device that is left alone. What an operator chose a module for is not."""
        verdict = adapter.verdict
        if adapter.taint or not self._on:
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


def _reason(verdict: hcl.Verdict) -> str:
    """The verdict's reason, with what its status rests on."""
    proof = f"; {verdict.proof}" if verdict.proof else ""
    return verdict.reason.rstrip(".") + proof
