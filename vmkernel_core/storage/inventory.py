"""The storage that a vmkernel has, by name, whichever engine's drivers serve it."""

from __future__ import annotations

import logging
import threading
from itertools import count
from typing import TYPE_CHECKING

from vmkernel_core.errors import DeviceGone, VmkError
from vmkernel_core.storage.adapter import StorageAdapter
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.events import StorageEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.storage.adapter import AdapterDriver
    from vmkernel_core.storage.device import DeviceDriver, DeviceState
    from vmkernel_core.storage.events import StorageEventKind

log = logging.getLogger(__name__)

#: Peripheral device types that hold blocks (SPC-4, 6.6.2): direct access, CD and DVD, optical memory, reduced blocks.
BLOCK_TYPES = frozenset({0x00, 0x05, 0x07, 0x0E})
#: What an event says of a device's state.
_WORDS: dict[DeviceState, str] = {
    "active": "it takes commands again",
    "blocked": "its transport has lost it for now",
    "dead": "error handling, or its transport, has given it up",
}


def _size(storage: StorageDevice) -> str:
    if not storage.medium:
        return "no medium"
    return f"{storage.blocks} blocks of {storage.block_size} bytes"


class Inventory:
    """The adapters and devices that the vmkernel has, by name: ``vmhba0``, ``naa.…`` or ``vmhba0:C0:T1:L0``.

    A device that two paths lead to keeps its name on the first; the other is known by its path. ``on_event`` is told of
    what happens to them, in a thread of the vmkernel. Both tables, and an adapter's list of devices, are replaced when
    something comes or goes, never changed: a program may go through them at any time. Drivers tell of what comes,
    changes and goes; how they find it is theirs.
    """

    def __init__(self) -> None:
        """Nothing is there yet."""
        self.adapters: dict[str, StorageAdapter] = {}
        self.devices: dict[str, StorageDevice] = {}
        #: Notified when a device came or went.
        self.changed = threading.Condition()
        self.on_event: Callable[[StorageEvent], None] = lambda _event: None
        self._states: dict[StorageDevice, DeviceState] = {}

    def add_adapter(self, driver: AdapterDriver) -> StorageAdapter:
        """An adapter came: it gets the first free name."""
        name = next(name for n in count() if (name := f"vmhba{n}") not in self.adapters)
        adapter = StorageAdapter(name, driver)
        self.adapters = self.adapters | {name: adapter}
        self.on_event(StorageEvent(name, "appeared", f"{adapter.driver}: {adapter.model}"))
        return adapter

    def remove_adapter(self, adapter: StorageAdapter) -> None:
        """An adapter goes, after its devices. Nothing for one that went before."""
        if adapter.name in self.adapters:
            self.adapters = {name: other for name, other in self.adapters.items() if other is not adapter}
            adapter.removed()
            self._tell(adapter.name, "removed", adapter.error)

    def add_device(self, adapter: StorageAdapter, driver: DeviceDriver) -> StorageDevice | None:
        """A device came whose type is one of BLOCK_TYPES. None, with a warning, for one that does not say what it is."""
        try:
            storage = StorageDevice(adapter, driver)
        except VmkError as error:
            log.warning("%s: %s", adapter.name, error)
            return None
        adapter.devices = [*adapter.devices, storage]
        self._states[storage] = driver.state()
        name = storage.path if storage.name in self.devices else storage.name
        with self.changed:
            self.devices = self.devices | {name: storage}
            self.changed.notify_all()
        what = f"{storage.vendor} {storage.model}, {_size(storage)}"
        self.on_event(
            StorageEvent(name, "appeared", what if name == storage.path else f"{what}, {storage.path}")
        )
        return storage

    def remove_device(self, storage: StorageDevice) -> None:
        """A device goes."""
        self._states.pop(storage, None)
        storage.removed(DeviceGone(f"{storage.name} has gone", where=storage.path))
        storage.adapter.devices = [other for other in storage.adapter.devices if other is not storage]
        name = self._name(storage)
        with self.changed:
            self.devices = {name: other for name, other in self.devices.items() if other is not storage}
            self.changed.notify_all()
        self._tell(name, "removed", storage.error)

    def device_state(self, storage: StorageDevice, state: DeviceState) -> None:
        """How the way to a device is now; nothing when that is no news."""
        if state != self._states[storage]:
            self._states[storage] = state
            self.on_event(StorageEvent(self._name(storage), state, _WORDS[state]))

    def device_changed(self, storage: StorageDevice) -> None:
        """A device is to be asked again what it is."""
        try:
            storage.refresh()
        except VmkError as error:
            log.warning("%s: %s", storage.name, error)
            return
        self.on_event(StorageEvent(self._name(storage), "changed", _size(storage)))

    def dead(self, adapter: StorageAdapter, kind: StorageEventKind, error: VmkError | None = None) -> None:
        """An adapter's hardware has gone ("dead"), or its driver was stopped ("stopped", with the error that it and its
        devices have now). Nothing for one that is dead."""
        if adapter.error is not None:
            return
        adapter.removed(error)
        for name in (adapter.name, *map(self._name, adapter.devices)):
            self._tell(name, kind, adapter.error)

    def _name(self, storage: StorageDevice) -> str:
        return next(name for name, other in self.devices.items() if other is storage)

    def _tell(self, name: str, kind: StorageEventKind, error: VmkError | None) -> None:
        self.on_event(StorageEvent(name, kind, error.what if error else ""))
