"""What runs drivers: an engine, such as one Linux kernel with its modules. A host has one or more of them.

An engine makes uplinks and storage of devices; which engine and which driver may serve a device is for the host to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmkernel_core.errors import VmkError
    from vmkernel_core.idle import IdleLoop
    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.net.uplinks import Uplinks
    from vmkernel_core.pci import PciFunction
    from vmkernel_core.platform.base import Platform
    from vmkernel_core.storage.inventory import Inventory

#: Modules of Linux's, or drivers in Python.
EngineName: TypeAlias = Literal["linux", "native"]
ENGINES: tuple[EngineName, ...] = ("linux", "native")


def engine_name(name: str) -> EngineName:
    """The engine of that name. UsageError."""
    for engine in ENGINES:
        if name == engine:
            return engine
    raise UsageError(f"there is no engine {name}", remedy=f"use {' or '.join(ENGINES)}")


def module_name(name: str) -> str:
    """A module's name as a kernel has it, which writes ``_`` for ``-``; files and people may write either."""
    return name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Leak:
    """Something not given back: ``kind`` (memory, irq, region, timer, driver, dma ...), ``where`` it was taken.

    ``excuse``: why the module is hardly to blame; "" when it is.
    """

    kind: str
    what: str
    where: str
    excuse: str = ""

    def __str__(self) -> str:
        """In a line."""
        return f"{self.kind}: {self.what}, taken in {self.where}{f' ({self.excuse})' if self.excuse else ''}"


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A module of an engine that is loaded; ``size`` in bytes of its code and data, 0 for one whose code is Python's.

    ``is_stopped``: its driver did what cannot be allowed. ``used_by``: loaded modules that depend on it.
    """

    engine: EngineName
    name: str
    size: int = 0
    is_stopped: bool = False
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a module says of itself; ``kernel`` is the release that it is for, "" for any."""

    engine: EngineName
    name: str
    file: str
    kernel: str
    license: str
    version: str
    description: str
    depends: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleParameter:
    """A parameter that a module takes; ``type`` as module_param() names it."""

    name: str
    type: str
    description: str


@dataclass(frozen=True, slots=True)
class Seat:
    """What an engine stands on, and whom it tells: the machine, and the host's tables of uplinks and storage.

    ``settings(engine, module, function)`` are those (``name=value``) with which an engine's module is loaded, for a
    device or for its own sake. ``refused(function, error)`` is told of a device that its driver refused after ``bind``
    had returned.
    ``seconds`` is where the time that parts of the work took is added: "image", "load", "probe"; ``leaks``, what modules
    left that the engine unloaded by itself.
    """

    platform: Platform
    memory: MachineMemory
    idle: IdleLoop
    uplinks: Uplinks
    storage: Inventory
    settings: Callable[[EngineName, str, PciFunction | None], Sequence[str]]
    refused: Callable[[PciFunction, VmkError], None]
    seconds: dict[str, float]
    leaks: list[Leak]


class Engine(Protocol):
    """Modules, and the devices that their drivers have. Its life: ``start`` and ``stop``, while the platform runs;
    ``close``, when it does no more."""

    name: EngineName

    def start(self) -> None:
        """The platform runs."""

    def stop(self) -> None:
        """Let go of all modules without asking their code. Those that are to end in order were unloaded."""

    def close(self) -> None:
        """Give the rest back."""

    # ---- devices ----

    def add(self, function: PciFunction) -> None:
        """A function came into the machine; one behind a bridge after the bridge."""

    def remove(self, function: PciFunction) -> None:
        """It left the machine, and no driver has it."""

    def bind(self, function: PciFunction, modules: Sequence[str], *, trial: bool = False) -> str:
        """Load modules, one after the other, until the driver of one takes a function; which one did.

        Raises why the most promising one did not: NoDriver, DriverRefused, DriverStopped, what loading raises.
        ``trial``: one that does not take it is unloaded again.
        """

    def has(self, function: PciFunction) -> bool:
        """Whether a driver has it."""

    def gone(self, function: PciFunction) -> None:
        """It has gone by itself and answers nothing. Nobody may wait for it any more. Called at any time."""

    def unbind(self, function: PciFunction, *, surprise: bool) -> list[Leak]:
        """Let its driver go of it; what that left. ``surprise``: it has gone; a driver that waits for it is stopped.

        DriverStopped, but not by surprise.
        """

    def all_gone(self) -> None:
        """The platform has gone, and all devices with it."""

    # ---- modules ----

    def modules(self) -> list[LoadedModule]:
        """Those that are loaded, in the order of loading."""

    def load(self, name: str) -> None:
        """Load one for its own sake. ModuleNotFound, and what loading raises."""

    def unload(self, name: str, *, forced: bool = False) -> list[Leak]:
        """Unload one; what it left behind. Its devices have no driver then. UsageError while others need it, or when it
        is not loaded; ``forced`` disregards holders that may have been stopped."""

    def next_to_unload(self) -> str | None:
        """The module loaded last that nobody needs; None when none is left."""

    def info(self, name: str) -> ModuleInfo:
        """What a module says of itself, loaded or not. ModuleNotFound."""

    def parameters(self, name: str) -> list[ModuleParameter]:
        """Those that a module takes, in its order. ModuleNotFound."""

    def check(self, name: str, settings: Sequence[str]) -> None:
        """BadParameter for a setting (``name=value``) that the module would not take."""
