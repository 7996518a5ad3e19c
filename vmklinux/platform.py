"""Platform devices (Linux drivers/base/platform.c): devices that no bus can list. This machine has none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api, no_op
from vmklinux.device import Devices, device_add, device_initialize, device_unregister, put_device, set_name
from vmklinux.kobject import Obj, addressof

if TYPE_CHECKING:
    from vmklinux.linux import Linux

PLATFORM_DEVID_NONE = -1  # include/linux/platform_device.h


@linux_api(partial="It has no resources, data or properties, and is on no bus: no driver could want it.")
def platform_device_register_full(linux: Linux, pdevinfo: Obj) -> int:
    """Make a device by name and number; drivers hang files and links on one that stands for their board."""
    device = linux.new("platform_device", lib.vmk_owner())
    linux.state(Devices).created[addressof(device, "dev")] = int(device)
    device_initialize(linux, device.dev)
    device.name, device.id = pdevinfo.name, pdevinfo.id
    device.dev.parent = pdevinfo.parent
    name = linux.string(pdevinfo.name)
    set_name(linux, device.dev, name if pdevinfo.id == PLATFORM_DEVID_NONE else f"{name}.{pdevinfo.id}")
    device_add(linux, device.dev)
    return int(device)


@linux_api()
def platform_device_put(linux: Linux, pdev: Obj) -> None:
    """Drop a reference to such a device."""
    if pdev:
        put_device(linux, pdev.dev)


@linux_api()
def platform_device_unregister(linux: Linux, pdev: Obj) -> None:
    """Remove such a device."""
    if pdev:
        device_unregister(linux, pdev.dev)


no_op(
    "platform.py",
    "The machine has no platform devices: a driver that registers is never called.",
    "__platform_driver_register", "platform_driver_unregister", "platform_get_irq", "platform_irq_count",
    "devm_platform_ioremap_resource", "acpi_match_device",
    "device_get_match_data", "device_get_dma_attr",
)  # fmt: skip
