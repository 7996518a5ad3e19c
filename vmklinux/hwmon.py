"""Sensors (Linux drivers/hwmon/hwmon.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.devres import Devres

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

_UNREAD = "The device is there for its driver, but nobody reads its sensors: there is no sysfs."


@linux_api(partial=_UNREAD)
def hwmon_device_register_with_groups(linux: Linux, dev: Obj, name: int, drvdata: int, groups: int) -> int:
    """Make a device for sensors that are read through attributes."""
    device = linux.new("device", lib.vmk_owner())
    device.parent, device.driver_data = dev, drvdata
    return int(device)


@linux_api(partial=_UNREAD)
def hwmon_device_register_with_info(
    linux: Linux, dev: Obj, name: int, drvdata: int, chip: Obj, extra_groups: int
) -> int:
    """Make a device for sensors that are read through the driver's hwmon_ops."""
    return hwmon_device_register_with_groups(linux, dev, name, drvdata, extra_groups)


@linux_api()
def hwmon_device_unregister(linux: Linux, dev: Obj) -> None:
    """Take the device away."""
    linux.free(dev)


@linux_api(partial=_UNREAD)
def devm_hwmon_device_register_with_groups(
    linux: Linux, dev: Obj, name: int, drvdata: int, groups: int
) -> int:
    """Make such a device until the driver lets go of its own."""
    device = hwmon_device_register_with_groups(linux, dev, name, drvdata, groups)
    # With a key, so that it is not called for a dead driver: its memory is taken back as it is.
    linux.state(Devres).action(dev, lambda: linux.free(device), (device, 0))
    return device
