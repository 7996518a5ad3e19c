"""The PCI core as drivers see it (Linux drivers/pci/pci-driver.c, pci.c): devices, drivers, what a driver switches on.

What concerns one subject has its own file: pci_probe, pci_access, pci_search, pci_regions, pci_managed, pci_state,
pci_reset, pci_rom, pcie_aspm. Much of drivers/pci only reads and writes configuration space: that is the image's own.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import TimedOut
from vmkernel_core.pci import BarKind
from vmklinux.api import linux_api
from vmklinux.device import ancestors
from vmklinux.devres import Devres
from vmklinux.errors import DriverStopped, WorldEnded
from vmklinux.kobject import Obj, addressof
from vmklinux.list import list_del
from vmklinux.pci_probe import Buses, setup_device
from vmklinux.pci_regs import (
    PCI_COMMAND,
    PCI_COMMAND_INTX_DISABLE,
    PCI_COMMAND_INVALIDATE,
    PCI_COMMAND_IO,
    PCI_COMMAND_MASTER,
    PCI_COMMAND_MEMORY,
)
from vmklinux.resource import Resources
from vmklinux.sched import WaitQueue
from vmklinux.scsi import Scsi
from vmklinux.wakeup import Wakeups
from vmklinux.workqueue import Workqueues

if TYPE_CHECKING:
    from vmkernel_core.pci import PciFunction
    from vmkernel_core.platform.base import PciAddress, Platform
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

# include/linux/pci.h, mod_devicetable.h
PCI_D0, PCI_D3HOT = 0, 3
PCI_ANY_ID = 0xFFFF_FFFF
#: Seconds that a driver gets to notice that its device has gone, before it is stopped when it still asks it.
DEAD_LIMIT = 20.0
#: Seconds that a remove function for a device that has gone may wait in earnest; and a second one for the first.
PATIENCE, REMOVE_LIMIT = 1.0, 120.0
#: Seconds between looks at what still runs of the driver of such a device.
STEP = 0.1


@dataclass
class PciDevice:
    """A pci_dev and what stands behind it. ``regions`` are the BARs that its driver asked for.

    ``saved`` is what pci_save_state kept, by offset and size; ``table`` is pcim_iomap_table's; one that is ``pinned``
    stays enabled when its driver lets go.
    """

    obj: Obj
    function: PciFunction
    platform: Platform
    name: int
    driver: Obj | None = None
    remover: int = 0  # the world in which its driver's remove function runs
    regions: dict[int, Obj] = field(default_factory=dict)
    saved: dict[tuple[int, int], int] = field(default_factory=dict)
    table: int = 0
    pinned: bool = False

    def read(self, offset: int, size: int) -> int:
        """Read configuration space."""
        return self.platform.config_read(self.function.address, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write configuration space."""
        self.platform.config_write(self.function.address, offset, size, value)

    def command(self, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear bits of the command register."""
        self.write(PCI_COMMAND, 2, self.read(PCI_COMMAND, 2) & ~clear | set)

    def capability(self, id: int) -> int:
        """Offset of a capability, or 0."""
        found = self.function.capability(id)
        return found.offset if found else 0


class PciCore:
    """The devices by address of their pci_dev, and the drivers that registered."""

    def __init__(self, linux: Linux) -> None:
        """Neither is there yet."""
        self.linux = linux
        self.devices: dict[int, PciDevice] = {}
        self.drivers: list[Obj] = []
        self._removed = WaitQueue()
        self._going = threading.Lock()  # whoever tells that a device has gone does not wait for its removal

    def add(self, function: PciFunction, platform: Platform) -> PciDevice:
        """Make the pci_dev of a function that was found; that of the bridge above it comes first."""
        name = self.linux.new_string(str(function.address))
        obj = setup_device(self.linux, function, platform, name)
        device = self.devices[int(obj)] = PciDevice(obj, function, platform, name)
        return device

    def at(self, address: PciAddress) -> PciDevice | None:
        """The device there."""
        return next((d for d in self.devices.values() if d.function.address == address), None)

    def behind(self, function: PciFunction) -> PciDevice | None:
        """The device of a function that was found: not another one that has its place by now."""
        return next((d for d in list(self.devices.values()) if d.function is function), None)

    def remove(self, device: PciDevice) -> None:
        """Take a pci_dev out of its bus and free it; its driver must have let go of it."""
        obj = device.obj
        with self._going:
            del self.devices[int(obj)]
        list_del(self.linux, addressof(obj, "bus_list"))
        if obj.subordinate:
            self.linux.state(Buses).forget(obj.subordinate)
        self.linux.state(Wakeups).forget(addressof(obj, "dev"))
        if obj.dev.kobj.kref.refcount.refs.counter > 1:
            log.warning("%s: a driver still holds its pci_dev, which is not freed", device.function)
            return
        self.linux.free(obj)
        self.linux.free(device.name)

    def disconnect(self, device: PciDevice) -> None:
        """The device has gone by itself: its driver can see it, and who waits for a register is stopped in the end."""
        with self._going:
            if self.devices.get(int(device.obj)) is not device:
                return
            device.obj.error_state = self.linux.types.enumerator("pci_channel_io_perm_failure")
        for bar in device.function.all_bars:
            if bar.kind is not BarKind.IO:
                lib.vmk_windows_dead(device.platform.bus.handle, bar.address, bar.size, int(DEAD_LIMIT * 1e9))

    @staticmethod
    def end_dma(device: PciDevice) -> int:
        """Forget the DMA mappings of a device that its driver has let go of; how many it left open."""
        mappings: int = lib.linux_dma_end(addressof(device.obj, "dev"))
        return mappings

    def of(self, device: Obj) -> PciDevice | None:
        """The PCI device that a struct device is, or is behind (a virtio device, a net_device's); None for none."""
        devices = {addressof(pci.obj, "dev"): pci for pci in self.devices.values()}
        # The nearest: the bridges above it are PCI devices too.
        return next((devices[int(above)] for above in ancestors(device) if int(above) in devices), None)

    def cut_off(self, device: Obj) -> None:
        """Let the PCI device that a struct device is behind reach no memory: the driver is dead."""
        if (found := self.of(device)) is not None:
            found.command(clear=PCI_COMMAND_MASTER)

    def abandon(self, low: int, high: int) -> None:
        """Cut devices off whose driver lies in [low, high) and forget the drivers: their code does not run again."""
        for device in self.devices.values():
            if device.driver is not None and low <= int(device.driver) < high:
                self.linux.state(Devres).forget(device.obj.dev)
                self._let_go(device)
        self.drivers = [driver for driver in self.drivers if not low <= int(driver) < high]

    def match(self, driver: Obj, device: PciDevice) -> int:
        """The address of the driver's first pci_device_id that fits the device; 0 when none does."""
        return self.linux.call("pci_match_id", driver.id_table, device.obj)

    def bind(self, driver: Obj, device: PciDevice, id_entry: int) -> int:
        """Probe: the driver's return value; 0 when it took the device."""
        device.driver = driver
        device.obj.dev.driver = addressof(driver, "driver")
        device.obj.driver = driver
        error = -1
        try:
            error = self.linux.call_int(driver.probe, device.obj, id_entry)
        finally:
            if error:
                self._let_go(device)
        return error

    def unbind(self, device: PciDevice) -> None:
        """Remove: the driver lets go of the device. Where another world is at it (a driver's own, that found the device
        dead), its end is waited for. TimedOut.
        """
        with self.linux.baton():
            task = lib.vmk_world_task()
            if device.remover:
                if device.remover != task:
                    self._removed.wait_until(
                        lambda: not device.remover, f"the removal of {device.function}", REMOVE_LIMIT
                    )
                return
            device.remover = task
        try:
            if device.driver is not None and device.driver.remove:
                self.linux.call(device.driver.remove, device.obj)
        finally:
            with self.linux.baton():
                self._let_go(device)
                device.remover = 0
                lib.vmk_world_hurry(task, False)
                self._removed.wake_up()

    def unbind_gone(self, device: PciDevice, limit: float) -> None:
        """The same for a device that has gone.

        What the driver waits for will not come: after ``PATIENCE`` seconds, in which other worlds may end what they do,
        time runs faster where it waits: in its work items, for which it may not wait itself, and in error handling of
        its own, then in the remove function. One that still waits after ``limit`` seconds is stopped; raises
        DriverStopped then, too.
        """
        driver, failed = device.driver, list[DriverStopped]()

        def remove() -> None:
            try:
                self.unbind(device)
            except DriverStopped as error:
                failed.append(error)
            except (WorldEnded, TimedOut) as error:
                log.debug("%s: its removal was ended: %s", device.function, error)

        thread = threading.Thread(target=remove, name=f"remove-{device.function.address}", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        # When nothing is left of the platform, work items of the modules that it builds on wait for nothing, either.
        code = (0, 1 << 64) if device.platform.bus.gone else self.linux.range_at(int(driver or 0))
        deadline = time.monotonic() + limit
        handlers = [host.errors for host in self.linux.state(Scsi).of_device(device.obj.dev)]
        while thread.is_alive() and time.monotonic() < deadline:
            busy = self.linux.state(Workqueues).worlds(*code)
            busy += [handler.at_work for handler in handlers if handler.at_work]
            if not busy or time.monotonic() > deadline - limit / 2:
                busy.append(device.remover)
            for task in busy:
                lib.vmk_world_hurry(task, True)
            thread.join(STEP)
        if thread.is_alive():
            for handler in handlers:
                handler.cut()  # nobody may wake who is ended below: its stack goes
            lib.vmk_world_end(device.remover)
            thread.join(limit)
            module = self.linux.module_at(int(driver or 0)) or "the kernel image"
            error = DriverStopped(
                module,
                f"it waited for its device, which has gone, for {limit:.0f} s",
                reason="gone",
                site="remove",
            )
            self.linux.on_stopped(error)
            raise error
        if failed:
            raise failed[0]

    def _let_go(self, device: PciDevice) -> None:
        self.linux.state(Devres).release_all(device.obj.dev)
        device.driver = None
        for region in device.regions.values():
            self.linux.state(Resources).release(region)
        device.regions.clear()
        device.obj.dev.driver = device.obj.driver = device.obj.dev.driver_data = 0
        device.command(clear=PCI_COMMAND_MASTER)


def pci_device(linux: Linux, pdev: Obj) -> PciDevice:
    """What stands behind a pci_dev."""
    return linux.state(PciCore).devices[int(pdev)]


@linux_api()
def __pci_register_driver(linux: Linux, drv: Obj, owner: Obj, mod_name: int) -> int:
    """Note a driver; the vmkernel binds it to the devices that the HCL gives to its module."""
    drv.driver.name = drv.name
    linux.state(PciCore).drivers.append(drv)
    return 0


@linux_api()
def pci_unregister_driver(linux: Linux, drv: Obj) -> None:
    """Unbind a driver from its devices and forget it."""
    core = linux.state(PciCore)
    for device in core.devices.values():
        if device.driver == drv:
            core.unbind(device)
    core.drivers.remove(drv)


@linux_api(
    "pci_enable_device_mem", "pci_enable_device_io", note="Whatever is asked, both kinds of decoding go on."
)
def pci_enable_device(linux: Linux, dev: Obj) -> int:
    """Wake the device up and let it, and the bridges above it, decode addresses."""
    dev.enable_cnt.counter += 1
    if dev.enable_cnt.counter > 1:
        return 0
    return pci_reenable_device(linux, dev)


@linux_api()
def pci_reenable_device(linux: Linux, dev: Obj) -> int:
    """Switch an enabled device on again, after it slept or was reset."""
    device = pci_device(linux, dev)
    bridge = dev.bus.self
    while bridge:
        pci_device(linux, bridge).command(set=PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
        bridge = bridge.bus.self
    linux.call("pci_set_power_state", dev, PCI_D0, owner=lib.vmk_owner())
    kinds = {bar.kind is BarKind.IO for bar in device.function.bars}
    device.command(
        set=(PCI_COMMAND_IO if True in kinds else 0) | (PCI_COMMAND_MEMORY if False in kinds else 0),
        clear=0 if dev.msi_enabled or dev.msix_enabled else PCI_COMMAND_INTX_DISABLE,
    )
    return 0


@linux_api()
def pci_disable_device(linux: Linux, dev: Obj) -> None:
    """End bus mastering when the last user lets go."""
    dev.enable_cnt.counter -= 1
    if not dev.enable_cnt.counter:
        pci_clear_master(linux, dev)


@linux_api()
def pci_set_master(linux: Linux, dev: Obj) -> None:
    """Let the device do DMA."""
    pci_device(linux, dev).command(set=PCI_COMMAND_MASTER)
    dev.is_busmaster = 1


@linux_api()
def pci_clear_master(linux: Linux, dev: Obj) -> None:
    """End the device's DMA."""
    pci_device(linux, dev).command(clear=PCI_COMMAND_MASTER)
    dev.is_busmaster = 0


@linux_api("pci_try_set_mwi")
def pci_set_mwi(linux: Linux, dev: Obj) -> int:
    """Allow memory-write-invalidate."""
    pci_device(linux, dev).command(set=PCI_COMMAND_INVALIDATE)
    return 0


@linux_api()
def pci_clear_mwi(linux: Linux, dev: Obj) -> None:
    """Forbid memory-write-invalidate."""
    pci_device(linux, dev).command(clear=PCI_COMMAND_INVALIDATE)


@linux_api()
def pci_intx(linux: Linux, pdev: Obj, enable: int) -> None:
    """Let the device raise its interrupt pin, or forbid it."""
    bit = PCI_COMMAND_INTX_DISABLE
    pci_device(linux, pdev).command(set=0 if enable else bit, clear=bit if enable else 0)
