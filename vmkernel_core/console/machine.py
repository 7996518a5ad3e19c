"""A machine as a TOML file describes it (docs/console.md has every key)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from hcl.report import Profile
from vmkernel_core.engine import ENGINES, EngineName
from vmkernel_core.errors import UsageError
from vmkernel_core.module_settings import split_settings

if TYPE_CHECKING:
    from vmkernel_core.boot import VMkernel
    from vmkernel_core.platform.model import ModelPlatform
    from vmkernel_core.platform.qemu import QemuPlatform


#: Seconds for a machine's disks to appear.
DISKS_LIMIT: Final = 30.0


class BadMachine(UsageError):
    """The file cannot be read, or says what cannot be."""


PlatformType: TypeAlias = Literal["qemu", "model"]


class PlatformTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[platform]``: where the hardware comes from.

    ``devices`` are, for qemu, what its ``-device`` takes; for model ``e1000``, or ``e1000,mac=52:54:00:12:34:56``.
    ``disks`` are files that its disks are made of, as QemuPlatform takes them; ``arguments`` go to QEMU as they are.
    """

    type: PlatformType = "qemu"
    devices: list[str] = []
    disks: list[str] = []
    arguments: list[str] = []


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: a platform, a kernel and what to do with them. ``memory`` is in MiB.

    ``modules`` overrides the HCL, PCI address or ``vendor:device`` to module; ``parameters`` has the settings of
    modules, as one text (``"debug=16 Speed=100"``), by module, or one engine's with ``native:`` or ``linux:`` before it;
    ``hcl`` is the profile that devices must fit (VMkernel's policy); ``engine`` and ``engines`` are VMkernel's. ``open``
    names uplinks to open at boot.
    """

    platform: PlatformTable
    kernel: str | None = None
    memory: int = 256
    core: int | None = None
    engine: EngineName | None = None
    engines: dict[str, EngineName] = {}
    hcl: Profile = Profile.DEFAULT
    allow_unresolved: bool = False
    modules: dict[str, str] = {}
    parameters: dict[str, str] = {}
    open: list[str] = []
    socket: str | None = None

    def vmkernel(self) -> VMkernel:
        """A VMkernel for it that is not started yet. UsageError, UnknownDevice for a model that there is not."""
        from vmkernel_core.boot import VMkernel

        return VMkernel(
            self._platform(),
            kernel=self.kernel,
            memory=self.memory << 20,
            modules=self.modules,
            settings={name: split_settings(text) for name, text in self.parameters.items()},
            policy=self.hcl,
            allow_unresolved=self.allow_unresolved,
            core=self.core,
            engine=self.engine,
            engines=self.engines,
        )

    def wait_disks(self, host: VMkernel) -> None:
        """Wait until a host of it has as many storage devices as it has disks, if it has an adapter; TimedOut.

        Some adapters show theirs some time after their driver has started.
        """
        if self.platform.disks and host.storage_adapters:
            host.wait_storage(len(self.platform.disks), timeout=DISKS_LIMIT)

    def _platform(self) -> QemuPlatform | ModelPlatform:
        if self.platform.type == "qemu":
            from vmkernel_core.platform.qemu import QemuPlatform

            table = self.platform
            return QemuPlatform(table.devices, disks=table.disks, arguments=table.arguments)
        from vmkernel_core.platform.e1000_model import E1000Model
        from vmkernel_core.platform.model import ModelPlatform

        for what in ("disks", "arguments"):
            if getattr(self.platform, what):
                raise UsageError(
                    f"device models take no {what}", where=f"platform.{what}", remedy="leave them out"
                )
        return ModelPlatform([E1000Model(*_model_address(device)) for device in self.platform.devices])


def _model_address(device: str) -> list[bytes]:
    match = re.fullmatch(r"e1000(?:,mac=((?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}))?", device)
    if match is None:
        raise UsageError(
            f"there is no model {device!r}",
            where="platform.devices",
            remedy="use e1000 or e1000,mac=52:54:00:12:34:56",
        )
    return [bytes.fromhex(match[1].replace(":", ""))] if match[1] else []


def read_machine(path: Path) -> Machine:
    """Read the file; BadMachine names the line or the key."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadMachine(f"cannot read {path}: {error.strerror}", remedy="name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadMachine(f"{path} is no TOML: {error}", remedy="docs/console.md has an example") from error
    try:
        return msgspec.convert(tables, Machine)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".")
        where = f"key {key}" if key else ""
        raise BadMachine(f"{path}: {what}", where=where, remedy=_remedy(key, what)) from error


#: What keys take whose values are words.
_WORDS: Final = {
    "engine": ENGINES,
    "engines[...]": ENGINES,
    "hcl": tuple(Profile),
    "platform.type": get_args(PlatformType),
}


def _remedy(key: str, what: str) -> str:
    if words := _WORDS.get(key):
        return f"use {' or '.join(words)}"
    if "unknown field" in what or "missing" in what:
        table = PlatformTable if key == "platform" else Machine
        return f"it takes {', '.join(table.__struct_fields__)}"
    return "docs/console.md says what each key takes"
