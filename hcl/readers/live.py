"""This very machine: its devices by pyudev, what only their descriptors tell by pyusb, and those that come and go."""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast

import msgspec
import pyudev

from hcl.inventory import Device, Inventory, UsbDevice, UsbInterface
from hcl.readers import sysfs

_log = logging.getLogger(__name__)

_SYS = Path("/sys")
NO_USB_BUS = "this machine has no USB bus"
NO_LIBUSB = (
    "USB devices that are not configured could not be asked: libusb is missing; apt-get install libusb-1.0-0"
)


def read_host() -> Inventory:
    """The inventory of this machine; its notes say what could not be read. BadInventory."""
    context = pyudev.Context()
    slots = sysfs.slots_of(_SYS)
    devices = [sysfs.pci_device(Path(one.sys_path), slots) for one in context.list_devices(subsystem="pci")]
    found = list(context.list_devices(subsystem="usb", DEVTYPE="usb_device"))
    usb = [cast(UsbDevice, sysfs.usb_device(Path(one.sys_path))) for one in found]
    notes = [] if (_SYS / "bus/usb").is_dir() else [NO_USB_BUS]
    if any(device.interfaces is None for device in usb):
        places = [(int(one.get("BUSNUM", "0")), int(one.get("DEVNUM", "0"))) for one in found]
        usb, note = _described(usb, places)
        notes += note
    return Inventory(
        host=socket.gethostname(),
        source="live: pyudev",
        model=sysfs.model_of(_SYS),
        kernel=platform.release(),
        notes=tuple(notes),
        devices=(*sorted(devices, key=lambda each: each.place), *usb),
    )


def _described(devices: list[UsbDevice], places: list[tuple[int, int]]) -> tuple[list[UsbDevice], list[str]]:
    """The devices with the interfaces that their descriptors name, where the kernel has not configured them."""
    import usb.core

    try:
        by_place = {(one.bus, one.address): one for one in usb.core.find(find_all=True)}
    except usb.core.NoBackendError:
        return devices, [NO_LIBUSB]
    described = []
    for device, place in zip(devices, places, strict=True):
        if device.interfaces is None and place in by_place:
            interfaces = {
                one.bInterfaceNumber: UsbInterface(
                    number=one.bInterfaceNumber,
                    usb_class=f"{one.bInterfaceClass:02x}{one.bInterfaceSubClass:02x}{one.bInterfaceProtocol:02x}",
                    driver="",
                )
                for configuration in by_place[place]
                for one in configuration
            }
            described.append(msgspec.structs.replace(device, interfaces=tuple(interfaces.values())))
        else:
            described.append(device)
    return described, []


class Change(NamedTuple):
    """A device came, or went; of one that went the place alone is known."""

    action: Literal["add", "remove"]
    place: str
    device: Device | None


def watch(timeout: float | None = None) -> Iterator[Change]:
    """The PCI and USB devices that come and go from now on, until nothing did for so many seconds."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context())
    monitor.filter_by("pci")
    monitor.filter_by("usb", "usb_device")
    monitor.start()
    _log.info("listening for devices")
    while (event := monitor.poll(timeout)) is not None:
        path = Path(event.sys_path)
        if event.action == "add":
            usb = event.subsystem == "usb"
            device = sysfs.usb_device(path) if usb else sysfs.pci_device(path, sysfs.slots_of(_SYS))
            yield Change("add", device.place, device)
        elif event.action == "remove":
            yield Change("remove", f"usb {path.name}" if event.subsystem == "usb" else path.name, None)
