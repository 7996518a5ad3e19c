"""Interrupts of drivers in Python (Linux kernel/irq/manage.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.errors import NotSupported
from vmkernel_core.interrupt import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.devres import Release
    from vmklinux.native.pci import PciDev


def request_irq(pdev: PciDev, handler: Callable[[], bool]) -> Release:
    """Have the handler called when the device's pin is asserted, until it is released or the driver lets go of it all.

    It runs with the baton at a delivery point and tells whether its device had asked: the line may be another's too.
    Whatever it raises stops the driver. NotSupported for a device without a pin.
    """
    if not pdev.function.interrupt_pin:
        raise NotSupported("the device has no interrupt pin", where=pdev.name)
    shared = Handler(pdev.function.line, lambda: bool(pdev.deliver(handler)))
    return pdev.devres.add(shared.remove)
