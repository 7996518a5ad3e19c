"""What the list answers: the verdict on one device, as plain data that any JSON encoder can write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from hcl.firmware import Firmware

_log = logging.getLogger(__name__)

Engine: TypeAlias = Literal["linux", "native"]
"""Whose code drives a device: a module of Linux's, or a driver of ours in Python."""


class Rung(StrEnum):
    """The step of the ladder at which a device was found, the most telling first."""

    EXACT = "exact"
    """Vendor, device, subsystem vendor and subsystem device are all named."""
    VENDOR_DEVICE = "vendor:device"
    """Vendor and device are named (and perhaps the subsystem vendor)."""
    CLASS = "class"
    """The vendor is named, and the class code under a mask."""
    COMPATIBLE = "compatible"
    """No row of the registry matches, but a module of the running kernel claims the device."""
    UNKNOWN = "unknown"
    """No row of the registry matches."""


RUNG_NAMES = {
    Rung.EXACT: "its exact ids",
    Rung.VENDOR_DEVICE: "vendor and device",
    Rung.CLASS: "vendor and class",
}
"""The rungs at which a row matches, in words."""


class Status(StrEnum):
    """How well it is proven that a device is driven."""

    CERTIFIED = "certified"
    """A certification run proved it; the verdict's evidence names the run."""
    COMPATIBLE = "compatible"
    """It was seen working, with no certification run yet, or a module of the running kernel claims a device that
    the registry does not name; the evidence says which.
    """
    UNSUPPORTED = "unsupported"
    """Nothing drives it, or an operator chose another module than the registry does."""
    UNKNOWN = "unknown"
    """It could not be told: nobody has tried, or the source does not say what it depends on."""
    SKIPPED = "skipped"
    """Not judged: a rule left it out, or it is no device of the kinds that the list is about."""


class Proof(msgspec.Struct, frozen=True):
    """The certification run that a status rests on."""

    run: str
    """Its name; ``hcl show`` tells what it looked at."""
    status: Status
    """certified, or unsupported when it failed."""
    kernel: str
    """The kernel release that it ran; "" for a driver in Python."""
    counterpart: str
    """The device that it ran on."""
    started: datetime
    checks: tuple[str, ...] = ()
    """What the run looked at."""
    failed: tuple[str, ...] = ()
    """Those of the checks that did not pass."""
    file: str = ""
    """Where the evidence is."""
    engine: Engine = "linux"
    """Whose driver it ran."""
    driver: str = ""
    """That driver in words, with the release that it belongs to."""
    module_sha256: str = ""
    """Of the module's file, or over the sources of a driver in Python."""

    def age(self, now: datetime | None = None) -> int:
        """Whole days since then."""
        return max(((now or datetime.now(UTC)) - self.started).days, 0)

    def __str__(self) -> str:
        """One clause."""
        word = "passed" if self.status is Status.CERTIFIED else "FAILED"
        what = f"kernel {self.kernel}" if self.engine == "linux" else self.driver
        return f"certification run of {self.started:%Y-%m-%d} {word} on {self.counterpart}, {what}"


class Loser(msgspec.Struct, frozen=True):
    """A registry row that matched the device too, and was not taken."""

    driver: str
    """ESX driver name, such as ``net/bcm5700``."""
    module: str | None
    """Module that serves the row's devices, None when none does."""
    rung: Rung
    reason: str
    """Why it lost, one clause."""


class Verdict(msgspec.Struct, frozen=True):
    """Which driver serves a device - a Linux module, or one in Python - and how that was decided."""

    device: str
    """``vendor:device`` in lower-case hexadecimal, as lspci -n prints it."""
    subsystem: str
    """``subvendor:subdevice``, likewise."""
    pci_class: str
    """Class code of 24 bits (base class, subclass, programming interface), six hexadecimal digits."""
    kernel: str
    """The kernel series whose module is meant, such as ``6.1``."""
    rung: Rung
    driver: str | None
    """ESX driver name, such as ``net/e1000``; None when the device is on no list."""
    module: str | None
    """Module of ``engine`` to load, Linux's or the driver in Python; None when there is none, and then nothing is to be
    loaded. Nor is it loaded with the status ``unsupported``, unless an operator says so.
    """
    status: Status
    evidence: str | None
    """What the status rests on, None when it rests on nothing yet."""
    losers: tuple[Loser, ...]
    """The other rows that matched, the nearest first."""
    reason: str
    """One sentence for people."""
    claimants: tuple[str, ...] = ()
    """Modules of the running kernel that claim a device which the registry does not name, the nearest first.

    ``module`` is one of them. Where its driver refuses the device, another's may take it, as under Linux.
    """

    proof: Proof | None = None
    """The certification run that the status rests on."""
    limits: tuple[str, ...] = ()
    """What is known not to work, a sentence each."""
    firmware: Firmware | None = None
    """The firmware that is wanted."""
    overlay: str | None = None
    """``file:line`` of the entry by which a site's overlay had a say."""

    function: str | None = None
    """Where ``module`` carries another bus (virtio_pci): the module of the device on that, such as ``virtio_net``."""
    obstacle: str = ""
    """Why ``module``, or ``function``, cannot be run here, one clause; "" when it can be, or nobody looked."""

    engines: tuple[Engine, ...] = ()
    """What can drive it, the preferred first; none where nothing does. ``native`` stands for the driver of ``driver``'s
    name, which may know fewer devices than the list.
    """
    engine: Engine = "linux"
    """The one that the verdict is about: ``module``, ``status``, ``evidence`` and ``proof`` are of its driver."""

    def taken_by(self, module: str, refused: Sequence[str]) -> Verdict:
        """The verdict after this one of the claimants took the device, which the others given did not take."""
        if module == self.module:
            return self
        reason = f"{self.reason.rstrip('.')}; {module} took it, {' and '.join(refused)} did not."
        if self.proof is None:
            return msgspec.structs.replace(self, module=module, reason=reason)
        # The run was of the module that did not take it.
        return msgspec.structs.replace(
            self, module=module, reason=reason, status=Status.COMPATIBLE, evidence=None, proof=None
        )

    def overridden(self, module: str) -> Verdict:
        """The verdict after an operator chose this Linux module instead; logged as a warning.

        The status is ``unsupported`` from then on, and no other module is tried. Naming the module that the list
        names changes nothing.
        """
        if (self.engine, module) == ("linux", self.module) and not self.claimants:
            return self
        instead = f" instead of {self.module or 'no module'}" if module != self.module else ""
        reason = f"an operator chose {module}{instead} for {self.device}"
        _log.warning("%s: unsupported from now on", reason)
        return msgspec.structs.replace(
            self,
            module=module,
            status=Status.UNSUPPORTED,
            evidence=None,
            proof=None,
            reason=f"{reason}.",
            claimants=(),
            function=None,
            obstacle="",
            engines=("linux",),
            engine="linux",
        )
