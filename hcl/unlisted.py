"""Devices that the list does not name: which of a kernel's modules may serve them all the same.

A kernel's modules say themselves which devices they claim. What they say is taken for devices of the classes
below and for modules that are not barred, and for nothing else: a bridge or a bus controller is no device to drive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hcl import virtio

Claimants = Callable[[str], Sequence[str]]
"""Answers a modalias, as ``modalias`` makes it, with the names of the modules that claim it, the nearest first."""

Obstacle = Callable[[str], str]
"""Answers a module's name with a clause that says why it cannot be run here; "" when it can be."""


def no_obstacle(_module: str) -> str:
    """Whatever the module: none is known."""
    return ""


DRIVEN_CLASSES = {
    "01": "storage controllers",
    "02": "network controllers",
    "0c04": "Fibre Channel adapters",
}
"""The classes whose devices are driven without being listed: what their six hexadecimal digits begin with (PCI Code and
ID Assignment Specification 1.11, 1)."""

BARRED = {
    "ata_generic": "it claims every IDE controller, and drives only those that firmware has set up",
    "pata_acpi": "it claims every IDE controller, and drives only those that ACPI describes",
}
"""Modules that never serve a device by their own claim, and why."""


def is_driven(pci_class: str) -> bool:
    """Whether devices of a class, six hexadecimal digits, are driven without being listed."""
    return pci_class.lower().startswith(tuple(DRIVEN_CLASSES))


def modalias(ids: tuple[int, int, int, int], pci_class: int) -> str:
    """A PCI device's name for modules' claims: Linux's pci_uevent (drivers/pci/pci-driver.c) makes the same.

    ``ids`` are those of vendor, device, subsystem vendor and subsystem device.
    """
    vendor, device, subvendor, subdevice = ids
    return (
        f"pci:v{vendor:08X}d{device:08X}sv{subvendor:08X}sd{subdevice:08X}"
        f"bc{pci_class >> 16:02X}sc{pci_class >> 8 & 0xFF:02X}i{pci_class & 0xFF:02X}"
    )


class Answer(NamedTuple):
    """What a kernel's modules say of a device that the list does not name."""

    modules: tuple[str, ...]
    """Those that may serve it, the nearest first."""
    function: str | None
    """Where they only carry another bus: the module of the device on that."""
    why: str
    """A clause that says why these."""
    obstacle: str = ""
    """A clause that says why none of them can; "" when one can."""


def ask(
    claimants: Claimants,
    ids: tuple[int, int, int, int],
    pci_class: int,
    kernel: str,
    obstacle: Obstacle = no_obstacle,
) -> Answer:
    """Which modules may serve an unlisted device."""
    if not is_driven(f"{pci_class:06x}"):
        *most, last = DRIVEN_CLASSES.values()
        return Answer((), None, f"of what is not listed, only {', '.join(most)} and {last} are driven")
    found = claimants(modalias(ids, pci_class))
    allowed = tuple(name for name in found if name not in BARRED)
    if not allowed:
        return Answer(
            (),
            None,
            f"{found[0]} may not have it: {BARRED[found[0]]}"
            if found
            else f"no module of Linux {kernel} claims it",
        )
    why = f"{' and '.join(allowed)} of Linux {kernel} claim{'s' if len(allowed) == 1 else ''} it"
    obstacles = {name: reason for name in allowed if (reason := obstacle(name))}
    if len(obstacles) == len(allowed):
        return Answer(allowed, None, why, "; ".join(obstacles.values()))
    served = tuple(name for name in allowed if name not in obstacles)
    why = "; ".join((why, *obstacles.values()))
    if (carried := virtio.modalias(ids)) is None:
        return Answer(served, None, why)
    functions = claimants(carried)
    if not functions:
        return Answer(
            served, None, why, f"no module of Linux {kernel} claims the virtio device on it ({carried})"
        )
    function = next((name for name in functions if not obstacle(name)), functions[0])
    return Answer(served, function, f"{why}, and {function} the virtio device on it", obstacle(function))
