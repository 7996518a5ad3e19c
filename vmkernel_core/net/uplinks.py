"""The uplinks of a vmkernel, by name, whichever engine's drivers serve them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from vmkernel_core.net.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.net.uplink import UplinkDriver, UplinkEvent
    from vmkernel_core.pci import PciFunction


class Uplinks:
    """The network devices: ``by_name`` (``vmnic0``) is replaced when one comes or goes, never changed.

    ``on_register(uplink, function)`` is told of one that came and of the device that it is on, None for none.
    """

    def __init__(self, on_register: Callable[[Uplink, PciFunction | None], None]) -> None:
        """None is there yet."""
        self.by_name: dict[str, Uplink] = {}
        self._on_register = on_register
        self._watchers: list[Callable[[UplinkEvent], None]] = []

    def register(self, driver: UplinkDriver, function: PciFunction | None) -> Uplink:
        """A driver has a network device: it becomes the uplink of the first free name."""
        name = next(name for n in count() if (name := f"vmnic{n}") not in self.by_name)
        uplink = Uplink(name, driver)
        uplink.subscribe(self._tell)
        self.by_name = self.by_name | {name: uplink}
        self._on_register(uplink, function)
        return uplink

    def forget(self, gone: Uplink | None) -> None:
        """The driver of one has let go of it."""
        self.by_name = {name: uplink for name, uplink in self.by_name.items() if uplink is not gone}

    def all_gone(self) -> None:
        """The hardware of all has gone."""
        for uplink in list(self.by_name.values()):
            uplink.removed()

    def watch(self, watcher: Callable[[UplinkEvent], None]) -> None:
        """Be told of the events of every uplink, now and later."""
        self._watchers.append(watcher)

    def _tell(self, event: UplinkEvent) -> None:
        for watcher in self._watchers:
            watcher(event)
