"""What ``hcl validate`` answers: a report of a machine, with a report of each of its devices, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from hcl.verdict import Engine, Loser, Proof, Rung, Status

VERSION = 1
"""Of the shape of these reports; raised when a field goes or changes its meaning, not when one comes."""

FITS, UNSUPPORTED, UNDETERMINED = 0, 1, 2
"""Exit codes of a report: all devices fit, some are unsupported, of some it could not be told (which wins over 1)."""


class Profile(StrEnum):
    """What counts as fitting: for ``hcl validate``, and for a vmkernel that is to drive the devices."""

    DEFAULT = "default"
    """Certified, or compatible."""
    STRICT = "strict"
    """Certified only."""

    def wants(self, status: Status) -> str:
        """What the profile asks for beyond the status of a device, a clause; "" when that is enough."""
        if self is Profile.DEFAULT or status is Status.CERTIFIED:
            return ""
        return f"the profile {self} asks for a certification run that passed, and there is none"


class Judgement(msgspec.Struct, frozen=True):
    """A status, and the sentence that gives its reason."""

    status: Status
    reason: str


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one device. None is what does not apply, or was not told."""

    bus: str
    """``pci``, ``usb`` or ``unidentified``."""
    place: str
    """Address on its bus, or where the inventory shows it."""
    ids: str | None = None
    """``vendor:device``."""
    subsystem: str | None = None
    """``subvendor:subdevice``."""
    device_class: str | None = None
    name: str | None = None
    """Vendor and device, from the system's pci.ids or usb.ids, or the inventory."""
    status: Status
    reason: str
    rung: Rung | None = None
    esx_driver: str | None = None
    engine: Engine | None = None
    """Whose driver is judged. ``linux``: a module of the kernel; ``native``: a driver in Python."""
    module: str | None = None
    """Of that engine: Linux's module, or the driver in Python."""
    function: str | None = None
    """Where the module carries another bus (virtio_pci): the module of the device on that."""
    hardware: Judgement
    """Whether the device is one that can be driven."""
    driver: Judgement
    """Whether this kernel has the driver for it."""
    firmware: Judgement
    """Whether the firmware that its driver wants is there."""
    driver_in_use: str | None = None
    """The driver that it had when the inventory was made; "" for none."""
    losers: tuple[Loser, ...] = ()
    claimants: tuple[str, ...] = ()
    proof: Proof | None = None
    """The certification run that the status rests on."""
    proof_age: int | None = None
    """Its age in days."""
    limits: tuple[str, ...] = ()
    """What is known not to work, a sentence each."""
    overlay: str | None = None
    """``file:line`` of the entry by which a site's overlay had a say."""

    @property
    def driven_by(self) -> str:
        """The module for people, who may know two of one name."""
        return driven_by(self.engine, self.module)


class MachineReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a machine."""

    version: int = VERSION
    host: str
    model: str | None
    source: str
    kernel: str
    """The kernel release, or series, whose drivers are meant."""
    profile: Profile
    engine: Engine | None = None
    """Whose drivers were asked for; None: those that the list prefers."""
    exit_code: int
    counts: dict[str, int]
    """Devices by status; every status is there."""
    tainted: tuple[str, ...] = ()
    """What an operator overrode, a sentence each. A report with any is not to be taken for the list's own verdict."""
    notes: tuple[str, ...] = ()
    """What the inventory's reader could not find out, a sentence each."""
    devices: tuple[DeviceReport, ...]

    @property
    def terms(self) -> str:
        """What it was judged for, in words."""
        engine = f", engine {self.engine}" if self.engine else ""
        return f"Linux {self.kernel}{engine}, profile {self.profile}"


def driven_by(engine: Engine | None, module: str | None) -> str:
    """A module, or a driver in Python, for people; "" for none."""
    return f"{module} in Python" if engine == "native" else module or ""


def counts_of(devices: Iterable[DeviceReport]) -> dict[str, int]:
    """How many devices have each status."""
    counts = {str(status): 0 for status in Status}
    for device in devices:
        counts[str(device.status)] += 1
    return counts


def exit_code_of(counts: dict[str, int]) -> int:
    """What a machine's, or a fleet's, counts come to."""
    if counts[Status.UNKNOWN]:
        return UNDETERMINED
    return UNSUPPORTED if counts[Status.UNSUPPORTED] else FITS
