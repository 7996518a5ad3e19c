"""The host of a demo: booted on a machine with one device, with what the user chose; what both kinds report of it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from vmkernel_core.boot import VMkernel
from vmkernel_core.console.demo.one_device import QEMU
from vmkernel_core.console.demo.result import HclSays, Left, Seconds
from vmkernel_core.errors import NoDriver, VmkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hcl.report import Profile
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.console.demo.one_device import OneDevice
    from vmkernel_core.engine import EngineName

_QEMU_COMMAND = "apt-get install qemu-system-x86"
_WITHOUT_QEMU = "to do without QEMU, use --platform model"

#: Functions whose drivers never give back what they take there, in Linux either: esp_scsi makes a pool of its
#: esp_cmd_entry, and frees no entry of it when its host goes.
_KEEPERS: Final = ("esp_queuecommand",)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for: the device, and how the host is to treat it (the options of ``vmk demo``)."""

    device: str
    platform: str
    kernel: str | None
    settings: Sequence[str]
    policy: Profile
    module: str | None
    allow_unresolved: bool
    gate: bool = True
    """Whether what the list calls unsupported is left alone."""
    engine: EngineName | None = None


class Session:
    """A host that runs in this context, as it was ``wanted``. ``adapter`` is its device, which has a driver."""

    def __init__(self, wanted: Wanted, machine: OneDevice) -> None:
        self.wanted = wanted
        self._machine = machine
        # What fails here is raised: it need not be in the log too.
        logging.getLogger("vmkernel_core.devices").setLevel(logging.CRITICAL)
        address = str(machine.address)
        self.host = VMkernel(
            machine.platform,
            kernel=wanted.kernel,
            modules={address: wanted.module} if wanted.module else {},
            settings={address: wanted.settings},
            policy=wanted.policy,
            allow_unresolved=wanted.allow_unresolved,
            gate=wanted.gate,
            engine=wanted.engine,
        )

    def __enter__(self) -> Session:
        """Boot."""
        try:
            self.host.start()
        except VmkError as error:
            raise _with_other_remedies(error, self._machine.platform.name) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unload the driver and take everything down."""
        self.host.stop()

    @cached_property
    def adapter(self) -> Adapter:
        """The device; what kept it from having a driver is raised."""
        found = next(one for one in self.host.adapters if one.function.address == self._machine.address)
        if found.error is not None:
            raise found.error
        if found.module is None:
            raise NoDriver(
                f"there is no module for {self.wanted.device}",
                where=found.verdict.reason.rstrip("."),
                remedy="--module NAME tries one",
            )
        return found

    def left(self) -> list[Left]:
        """What the module left behind. To be called when the host has stopped."""
        return [
            Left(f"{leak.kind}: {leak.what}, {leak.where}", leak.where.startswith(_KEEPERS))
            for leak in self.host.leaks
        ]

    def report(self, traffic: float) -> dict[str, Any]:
        """What every Result says; ``traffic`` is how many seconds that took. To be called when the host has stopped."""
        adapter, host = self.adapter, self.host
        verdict, module = adapter.verdict, str(adapter.module)
        linux = adapter.engine == "linux"
        return {
            "platform": self._machine.platform.name,
            "device": self.wanted.device,
            "engine": adapter.engine,
            "hcl": HclSays(verdict.driver, str(verdict.rung), module),
            "module_path": str(host.kernel.file_of(module))
            if linux
            else host.module_info(module, engine="native").file,
            "kernel": host.kernel.release if linux else "",
            "seconds": Seconds(
                **{part: round(self.host.seconds[part], 4) for part in ("image", "load", "probe")},
                traffic=round(traffic, 4),
            ),
            "leaks": len(self.host.leaks),
        }


def _with_other_remedies(error: VmkError, platform: str) -> VmkError:
    """The error of a host that did not start; with all that this machine lacks, not only what was missed first."""
    if platform != "qemu" or shutil.which(QEMU):
        return error
    remedy = error.remedy
    if _QEMU_COMMAND not in remedy:
        remedy += f"; there is no program {QEMU} either: {_QEMU_COMMAND}"
    told = VmkError(error.what, where=error.where, remedy=f"{remedy}; {_WITHOUT_QEMU}")
    told.exit_code = error.exit_code
    return told
