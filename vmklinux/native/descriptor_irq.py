"""Interrupts by descriptors, for drivers without hardware: sockets, pipes, sets of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.bus import Bus
from vmkernel_core.errors import VmkError
from vmkernel_core.interrupt import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.device import Device

#: Lines behind those that platforms have.
_free_lines = list(range(256, 320))


class DescriptorIrq:
    """Has the handler called at a delivery point each time that there is more to read from a descriptor.

    For drivers without hardware; the descriptor may be of a set (epoll). The handler runs with the baton and must not
    sleep; it takes in what there is, or calls ``again``: what it left is no news. Whatever it raises stops the driver.
    It ends when the driver lets go of the device.
    """

    def __init__(self, device: Device, fd: int, handler: Callable[[], object]) -> None:
        """``fd`` stays open until the end. VmkError for one that cannot be waited for, or when no line is left."""
        if not _free_lines:
            raise VmkError("no interrupt line is left for a descriptor", where=device.name)
        self._device, self._handler = device, handler
        self._line = _free_lines.pop()
        device.devres.add(lambda: _free_lines.append(self._line))
        bus = Bus(lib.vmk_bus_messages())
        device.devres.add(bus.close)
        device.devres.add(Handler(self._line, self._call).remove)
        device.devres.add(lambda: lib.vmk_idle_unwatch(bus.handle))
        if lib.vmk_messages_watch(bus.handle, fd, self._line) or lib.vmk_idle_watch(bus.handle):
            raise VmkError("the idle loop cannot look after a descriptor", where=device.name)

    def _call(self) -> bool:
        self._device.deliver(self._handler)
        return True

    def again(self) -> None:
        """Have the handler called once more, soon."""
        lib.vmk_irq_pulse(self._line)
        lib.vmk_kick()
