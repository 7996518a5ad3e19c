"""Certification suites: checks in their order, and the record of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import click
import msgspec

from hcl import native
from hcl.evidence import Check, Run
from hcl.reading import DRIVERS
from hcl.report import driven_by
from vmkernel_core.errors import NoDriver, VmkError

if TYPE_CHECKING:
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.console.demo.one_device import OneDevice
    from vmkernel_core.console.demo.session import Session
    from vmkernel_core.console.interruption import Interruption

#: Of the suites: raised when a check comes, goes, or means something else.
VERSION: Final = 1

BenchType = TypeVar("BenchType")


class Failed(VmkError):
    """A check saw something that is not as it must be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check that passed saw: a clause, and measured values by name and unit."""

    detail: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step(Generic[BenchType]):
    """A check: ``look`` raises a VmkError when it fails. Behind one that is ``vital`` the others need not be tried."""

    name: str
    look: Callable[[BenchType], Finding]
    vital: bool = False


def examine(steps: Sequence[Step[BenchType]], bench: BenchType, ctrl_c: Interruption) -> list[Check]:
    """Take the steps in their order; KeyboardInterrupt between two of them at a Ctrl-C."""
    checks: list[Check] = []
    lost = ""
    for step in steps:
        ctrl_c.check()
        untried = Check(step.name, False, f"not tried, since the check {lost!r} failed")
        check = untried if lost else examined(step, bench)
        if step.vital and not check.passed:
            lost = lost or step.name
        checks.append(check)
    return checks


def examined(step: Step[BenchType], bench: BenchType) -> Check:
    """Take one step; it is told on standard error."""
    try:
        found = step.look(bench)
    except VmkError as error:
        check = Check(step.name, False, str(error))
    else:
        check = Check(step.name, True, found.detail, found.figures)
    click.echo(f"{step.name}: {'passed' if check.passed else f'FAILED: {check.detail}'}", err=True)
    return check


def adapter_of(session: Session, machine: OneDevice) -> Adapter:
    """The device, whether or not its driver took it; NoDriver when the engine that is wanted has none for it."""
    found = next(one for one in session.host.adapters if one.function.address == machine.address)
    if found.engine != session.wanted.engine:
        raise NoDriver(
            f"no driver in Python knows {found.function}",
            where=found.verdict.reason.rstrip("."),
            remedy="--engine linux certifies a module of a kernel",
        )
    return session.adapter if found.module is None else found


def driver(session: Session) -> Finding:
    """The module is loaded, all that it needs is there, and its driver took the device."""
    adapter = session.adapter
    return Finding(f"{driven_by(adapter.engine, adapter.module)} took {adapter.function}")


def no_leaks(session: Session) -> Finding:
    """Nothing is left of the module. To be looked at when the host has stopped."""
    left = session.left()
    if lost := [one.text for one in left if not one.kept]:
        raise Failed(f"{len(lost)} things are left: {'; '.join(lost)}")
    kept = "; ".join(one.text for one in left)
    return Finding(f"the driver keeps, in Linux too: {kept}" if kept else "nothing is left")


class Record:
    """Notes when a run began, and makes the Run of it."""

    def __init__(self, suite: Literal["nic", "storage"]) -> None:
        self._suite = suite
        # A file's name, and a report, tell whole seconds.
        self._started = datetime.now(UTC).replace(microsecond=0)
        self._began = perf_counter()

    def run(self, session: Session, adapter: Adapter, counterpart: str, checks: Sequence[Check]) -> Run:
        """The run, which ends here."""
        function, module = adapter.function, str(adapter.module)
        if by_python := adapter.engine == "native":
            code = native.sources_sha256(DRIVERS / str(adapter.verdict.driver))
        else:
            code = sha256(session.host.kernel.file_of(module).read_bytes()).hexdigest()
        return Run(
            suite=self._suite,
            suite_version=VERSION,
            vendor=f"{function.vendor:04x}",
            device=f"{function.device:04x}",
            subvendor=f"{function.subsystem_vendor:04x}",
            subdevice=f"{function.subsystem_device:04x}",
            pci_class=f"{function.class_code:06x}",
            engine=adapter.engine,
            module=module,
            module_sha256=code,
            kernel="" if by_python else session.host.kernel.release,
            vmklinux=native.version() if by_python else msgspec.UNSET,
            counterpart=counterpart,
            started=self._started,
            seconds=round(perf_counter() - self._began, 3),
            checks=tuple(checks),
        )


def counterpart(machine: OneDevice, device: str) -> str:
    """What the device is: QEMU's version, as QEMU tells it, and its device."""
    from vmkernel_core.platform.qemu import QemuPlatform

    assert isinstance(machine.platform, QemuPlatform)
    told: Any = machine.platform.monitor("query-version")
    return f"QEMU {'.'.join(str(told['qemu'][part]) for part in ('major', 'minor', 'micro'))}: {device}"
