"""Hosts, targets and devices of the SCSI mid-layer in the device tree (Linux drivers/scsi/scsi_sysfs.c).

No sysfs is mounted; what counts here are types, references, and the order in which things appear and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api
from vmklinux.bus import bus_register
from vmklinux.class_ import class_interface_register, class_register
from vmklinux.device import (
    device_add,
    device_del,
    device_initialize,
    device_unregister,
    get_device,
    put_device,
    set_name,
)
from vmklinux.driver import driver_register
from vmklinux.kobject import Obj, container_of
from vmklinux.scsi import Scsi
from vmklinux.scsi_dh import attach, release

if TYPE_CHECKING:
    from vmklinux.linux import Linux
    from vmklinux.scsi import Device


class Kinds:
    """scsi_bus_type, the device types by which hosts, targets and devices are told apart, and their classes."""

    def __init__(self, linux: Linux) -> None:
        """Make and register them."""
        self.linux = linux
        self.bus = linux.new("bus_type")
        self.bus.name = linux.new_string("scsi")
        self.bus.match = linux.entry("scsi_bus_match")
        bus_register(linux, self.bus)
        self.host = self._type("scsi_host", "scsi_host_dev_release")
        self.target = self._type("scsi_target", "scsi_target_dev_release")
        self.device = self._type("scsi_device", "scsi_device_dev_release")
        self.host_class = self._class("scsi_host", "scsi_host_cls_release")
        self.device_class = self._class("scsi_device", "scsi_device_cls_release")
        self.no_transport = linux.state(Scsi).new("scsi_transport_template", 0, 0)

    def _type(self, name: str, release: str) -> Obj:
        kind = self.linux.new("device_type")
        kind.name = self.linux.new_string(name)
        kind.release = self.linux.entry(release)
        return kind

    def _class(self, name: str, release: str) -> Obj:
        group = self.linux.new("class")
        group.name = self.linux.new_string(name)
        group.dev_release = self.linux.entry(release)
        class_register(self.linux, group)
        return group


@linux_api()
def scsi_is_host_device(linux: Linux, dev: Obj) -> int:
    """Whether a device is that of a Scsi_Host."""
    return int(dev.type == linux.state(Kinds).host)


@linux_api()
def scsi_is_target_device(linux: Linux, dev: Obj) -> int:
    """Whether a device is that of a scsi_target."""
    return int(dev.type == linux.state(Kinds).target)


@linux_api()
def scsi_is_sdev_device(linux: Linux, dev: Obj) -> int:
    """Whether a device is that of a scsi_device."""
    return int(dev.type == linux.state(Kinds).device)


@linux_api()
def scsi_bus_match(linux: Linux, dev: Obj, gendrv: Obj) -> int:
    """Whether a driver of upper level may look at a device of the bus: a scsi_device that is connected."""
    if dev.type != linux.state(Kinds).device:
        return 0
    sdev = container_of(dev, linux.state(Scsi).types, "scsi_device", "sdev_gendev")
    return int(not sdev.no_uld_attach and not sdev.inq_periph_qual)


@linux_api()
def scsi_register_driver(linux: Linux, drv: Obj) -> int:
    """Make a driver of upper level known: it probes devices on the bus; 0 or an errno."""
    drv.bus = linux.state(Kinds).bus
    return driver_register(linux, drv)


@linux_api()
def __scsi_register_driver(linux: Linux, drv: Obj, owner: Obj) -> int:
    """The same with the driver's module."""
    return scsi_register_driver(linux, drv)


@linux_api()
def scsi_register_interface(linux: Linux, intf: Obj) -> int:
    """Have a module told of every scsi_device."""
    setattr(intf, "class", linux.state(Kinds).device_class)
    return class_interface_register(linux, intf)


def transport(linux: Linux, what: str, dev: Obj) -> None:
    """Tell the transport classes that have a part in a device: ``setup``, ``add``, ``configure``, ``remove`` ..."""
    linux.call(f"transport_{what}_device", dev)


def initialize_device(linux: Linux, sdev: Obj) -> None:
    """scsi_sysfs_device_initialize: the two devices of a scsi_device, not in the tree yet."""
    kinds, target = linux.state(Kinds), sdev.sdev_target
    name = f"{sdev.host.host_no}:{sdev.channel}:{sdev.id}:{sdev.lun}"
    for path in ("sdev_gendev", "sdev_dev"):
        device_initialize(linux, getattr(sdev, path))
        set_name(linux, getattr(sdev, path), name)
    gendev, classdev = sdev.sdev_gendev, sdev.sdev_dev
    gendev.bus, gendev.type = kinds.bus, kinds.device
    gendev.parent, classdev.parent = get_device(linux, target.dev), get_device(linux, gendev)
    target.reap_ref.refcount.refs.counter += 1
    setattr(classdev, "class", kinds.device_class)
    # By default, LUN 0's level is that of the target.
    sdev.scsi_level = target.scsi_level
    if 0 < sdev.scsi_level <= 3 and not sdev.host.no_scsi2_lun_in_cdb:  # SCSI_2
        sdev.lun_in_cdb = 1
    transport(linux, "setup", gendev)


def add_device(linux: Linux, device: Device) -> int:
    """scsi_sysfs_add_sdev: the device, and its target before it, appear in the tree; 0 or an errno."""
    sdev = device.obj
    target = sdev.sdev_target
    if error := add_target(linux, target):
        return error
    transport(linux, "configure", target.dev)
    attach(linux, device)
    if error := device_add(linux, sdev.sdev_gendev):
        release(linux, device)
        return error
    if error := device_add(linux, sdev.sdev_dev):
        device_del(linux, sdev.sdev_gendev)
        release(linux, device)
        return error
    transport(linux, "add", sdev.sdev_gendev)
    sdev.is_visible = 1
    device.visible = True
    return 0


def add_target(linux: Linux, target: Obj) -> int:
    """scsi_target_add: a target appears when the first of its devices does."""
    scsi = linux.state(Scsi)
    if target.state != scsi.enum("STARGET_CREATED"):
        return 0
    if error := device_add(linux, target.dev):
        return error
    transport(linux, "add", target.dev)
    target.state = scsi.enum("STARGET_RUNNING")
    return 0


def remove_device(linux: Linux, device: Device) -> None:
    """__scsi_remove_device: the device leaves the tree, its commands end, and the driver is told."""
    from vmklinux.scsi_scan import reap_target

    scsi, sdev = linux.state(Scsi), device.obj
    if sdev.sdev_state == scsi.enum("SDEV_DEL"):
        return
    if device.visible:
        device.visible = False
        scsi.on_device_gone(device)
        sdev.sdev_state = scsi.enum("SDEV_CANCEL")
        device_unregister(linux, sdev.sdev_dev)
        transport(linux, "remove", sdev.sdev_gendev)
        device_del(linux, sdev.sdev_gendev)
        release(linux, device)
    else:
        put_device(linux, sdev.sdev_dev)
    sdev.sdev_state = scsi.enum("SDEV_DEL")
    device.queue.end()
    if destroy := sdev.host.hostt.slave_destroy:
        linux.call(destroy, sdev, owner=device.host.owner)
    transport(linux, "destroy", sdev.sdev_gendev)
    device.host.forget(device)
    target = sdev.sdev_target
    put_device(linux, sdev.sdev_gendev)
    reap_target(linux, target)


@linux_api()
def scsi_remove_device(linux: Linux, sdev: Obj) -> None:
    """Take a device away."""
    if device := linux.state(Scsi).device(sdev):
        with device.host.scanning():
            remove_device(linux, device)


@linux_api()
def scsi_remove_target(linux: Linux, dev: Obj) -> None:
    """Take away every device of a target, or of all targets below a device of a transport's."""
    from vmklinux.scsi_lib import below

    for device in below(linux, dev):
        with device.host.scanning():
            remove_device(linux, device)


@linux_api()
def scsi_device_cls_release(linux: Linux, class_dev: Obj) -> None:
    """The class device of a scsi_device has ended."""
    scsi = linux.state(Scsi)
    put_device(linux, container_of(class_dev, scsi.types, "scsi_device", "sdev_dev").sdev_gendev)


@linux_api()
def scsi_device_dev_release(linux: Linux, dev: Obj) -> None:
    """The last reference to a scsi_device has gone: free it with what was allocated for it."""
    scsi = linux.state(Scsi)
    sdev = container_of(dev, scsi.types, "scsi_device", "sdev_gendev")
    for address in scsi.kept.pop(int(sdev), []):
        linux.free(address)
    parent = dev.parent
    linux.free(sdev)
    put_device(linux, parent)


@linux_api()
def scsi_target_dev_release(linux: Linux, dev: Obj) -> None:
    """The last reference to a scsi_target has gone."""
    parent = dev.parent
    linux.free(container_of(dev, linux.state(Scsi).types, "scsi_target", "dev"))
    put_device(linux, parent)
