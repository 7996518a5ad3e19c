"""Putting one device to sleep and waking it up (Linux drivers/base/power/main.c, drivers/pci/pci-driver.c).

Linux does this to all devices of a machine that goes to sleep; here a single one sleeps while the others go on. That is
why interrupts stay enabled in the late phases: the line may be another device's too, and who shares one must bear that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vmkernel_core.errors import NotSupported
from vmklinux.errors import DriverRefused
from vmklinux.pci import PCI_D0, PciCore
from vmklinux.pci_state import pci_restore_state, pci_save_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux
    from vmklinux.pci import PciDevice

PM_EVENT_SUSPEND = 2  # include/linux/pm.h
PCI_UNKNOWN = 5  # include/linux/pci.h
#: The phases of going to sleep, and what undoes each, as members of dev_pm_ops.
PHASES = (
    ("prepare", "complete"), ("suspend", "resume"), ("suspend_late", "resume_early"),
    ("suspend_noirq", "resume_noirq"),
)  # fmt: skip


def suspend(linux: Linux, device: Obj) -> None:
    """Put the PCI device to sleep that a struct device is, or is behind. NotSupported, DriverRefused: it is awake."""
    Sleeper(linux, device).suspend()


def resume(linux: Linux, device: Obj) -> None:
    """Wake it up. DriverRefused when its driver cannot use it any more."""
    Sleeper(linux, device).resume()


class Sleeper:
    """A bound PCI device, and its driver's functions of power management."""

    def __init__(self, linux: Linux, device: Obj) -> None:
        """NotSupported for what is no PCI device with a driver."""
        found = linux.state(PciCore).of(device)
        if found is None or found.driver is None:
            raise NotSupported("only a PCI device with a driver can be put to sleep")
        self._linux = linux
        self._device: PciDevice = found
        self._driver: Obj = found.driver
        self._legacy = bool(self._driver.suspend or self._driver.resume)

    def suspend(self) -> None:
        """All phases of going to sleep; when one fails, those before it are undone."""
        self._device.obj.state_saved = 0
        done: list[str] = []
        try:
            for phase, undo in PHASES:
                self._run(phase)
                done.append(undo)
        except DriverRefused:
            self._undo(reversed(done))
            raise
        self._power_down()

    def resume(self) -> None:
        """The device gets power and its configuration, its driver runs the phases of waking up."""
        self._power_up()
        self._undo(undo for _, undo in reversed(PHASES))

    def _undo(self, phases: Iterable[str]) -> None:
        for phase in phases:
            if phase == "resume":
                self._before_resume()
            self._run(phase)

    def _run(self, phase: str) -> None:
        """One phase: the driver's function for it, when it has one."""
        obj, pm = self._device.obj, self._driver.driver.pm
        error = 0
        if self._legacy:
            if phase == "suspend" and self._driver.suspend:
                error = self._linux.call_int(self._driver.suspend, obj, PM_EVENT_SUSPEND)
            elif phase == "resume" and self._driver.resume:
                error = self._linux.call_int(self._driver.resume, obj)
        elif pm and (function := getattr(pm, phase)):
            error = self._linux.call_int(function, obj.dev)
            error = 0 if phase == "complete" else error  # it returns void
        if error < 0:
            name = self._linux.string(self._driver.name)
            raise DriverRefused(
                f"{name} refused to {phase}: {os.strerror(-error)}", -error, where=str(self._device.function)
            )

    def _power_down(self) -> None:
        """What the PCI core does behind the driver: keep the configuration, then the deepest state that may be."""
        obj = self._device.obj
        if not obj.state_saved:
            pci_save_state(self._linux, obj)
            if obj.pm_cap and (self._driver.driver.pm or self._legacy):
                self._linux.call("pci_prepare_to_sleep", obj)
        if not self._driver.driver.pm and not self._legacy:
            obj.current_state = PCI_UNKNOWN

    def _power_up(self) -> None:
        obj = self._device.obj
        self._linux.call("pci_set_power_state", obj, PCI_D0)
        obj.current_state = PCI_D0
        pci_restore_state(self._linux, obj)

    def _before_resume(self) -> None:
        """What the PCI core does before the driver's resume: nothing wakes an awake device."""
        obj = self._device.obj
        pci_restore_state(self._linux, obj)
        if not self._legacy:
            self._linux.call("pci_enable_wake", obj, PCI_D0, 0)
        if not (self._driver.driver.pm or self._driver.resume) and obj.enable_cnt.counter:
            self._linux.call(self._linux.entry("pci_reenable_device"), obj)
            if obj.is_busmaster:
                self._linux.call(self._linux.entry("pci_set_master"), obj)
