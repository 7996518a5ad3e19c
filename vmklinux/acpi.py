"""ACPI (Linux drivers/acpi): the platform's firmware does not run, so there is no ACPI namespace.

No device has a companion in it, which drivers ask for first; whoever goes on without one is told that it is not found.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

AE_NOT_FOUND = 5  # include/acpi/acexcep.h
_NOTE = "There is no ACPI namespace."


@linux_api(note=_NOTE)
def acpi_evaluate_object(linux: Linux, handle: int, pathname: int, parameters: Obj, result: Obj) -> int:
    """Evaluate an object of the namespace: AE_NOT_FOUND."""
    return AE_NOT_FOUND


@linux_api("acpi_remove_notify_handler", note=_NOTE)
def acpi_install_notify_handler(
    linux: Linux, device: int, handler_type: int, handler: int, *context: int
) -> int:
    """Ask to be told of a device's events, or no longer: AE_NOT_FOUND."""
    return AE_NOT_FOUND


@linux_api(note=_NOTE)
def acpi_bus_set_power(linux: Linux, handle: int, state: int) -> int:
    """Switch a device's power: -ENODEV."""
    return -errno.ENODEV


@linux_api(note=_NOTE)
def acpi_pm_device_sleep_state(linux: Linux, dev: Obj, d_min_p: int, d_max_in: int) -> int:
    """Say which state of power saving a device should sleep in: -ENODEV, ACPI knows none."""
    return -errno.ENODEV


@linux_api(note=_NOTE)
def acpi_pm_set_device_wakeup(linux: Linux, dev: Obj, enable: int) -> int:
    """Let a device wake the machine, or forbid it: -EINVAL, as for any device without a companion."""
    return -errno.EINVAL


no_op(
    "acpi.py",
    "There is no ACPI namespace: a device has no companion, no child and no property in it.",
    "acpi_find_child_device", "acpi_initialize_hp_context", "acpi_storage_d3",
)  # fmt: skip
