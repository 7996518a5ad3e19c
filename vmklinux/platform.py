"""Platform devices (Linux drivers/base/platform.c): devices that no bus can list. This machine has none."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "platform.py",
    "The machine has no platform devices: a driver that registers is never called.",
    "__platform_driver_register", "platform_driver_unregister",
)  # fmt: skip
