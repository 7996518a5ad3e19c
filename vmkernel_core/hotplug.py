"""Devices that come and go: PCI Express slots (PCI Express Base 3.0, 6.7), and devices that vanish by themselves.

Each hot-plug port's interrupt (its pin) tells of its slot: the attention button, presence, the link. A thread of its
own does what follows, because unbinding a driver takes time: it asks the host to let go of what leaves, powers slots,
and scans what came. The same thread looks after devices that have no slot to tell of them: about twice a second it
reads the vendor id of each device that a driver has; all ones mean that nobody is there any more.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.interrupt import Handler
from vmkernel_core.pci import VENDOR_ID, scan_behind
from vmkernel_core.pci_function import CAPABILITY_PCI_EXPRESS, COMMAND, SLOT_CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.pci import PciFunction
    from vmkernel_core.platform.base import PciAddress, Platform

log = logging.getLogger(__name__)

# Offsets in the PCI Express capability (PCI Express Base 3.0, 7.8.6, 7.8.8 … 7.8.11) and their bits.
_LINK_CAPABILITIES, _LINK_REPORTS = 0x0C, 1 << 20
_LINK_STATUS, _LINK_ACTIVE = 0x12, 1 << 13
_HAS_POWER_CONTROLLER, _HAS_POWER_INDICATOR, _NO_COMMAND_COMPLETED = 1 << 1, 1 << 4, 1 << 18
_SLOT_CONTROL, _SLOT_STATUS = 0x18, 0x1A
_POWER_OFF, _INDICATOR = 1 << 10, 3 << 8
_INDICATOR_ON, _INDICATOR_BLINKS, _INDICATOR_OFF = 1 << 8, 2 << 8, 3 << 8
#: Enables of Slot Control: button, presence, link state, and interrupts at all.
_ENABLES = 1 << 0 | 1 << 3 | 1 << 12 | 1 << 5
#: Events of Slot Status, cleared by writing ones: button, presence changed, command completed, link state changed.
_BUTTON, _PRESENCE_CHANGED, _COMPLETED, _LINK_CHANGED = 1 << 0, 1 << 3, 1 << 4, 1 << 8
_EVENTS = _BUTTON | _PRESENCE_CHANGED | _LINK_CHANGED
_PRESENT = 1 << 6
#: Command register: the port passes memory, I/O and DMA on.
_PASSES = 0x7

#: Seconds between two looks at the devices that drivers have.
WATCH = 0.5
#: Seconds that a slot gets to carry out a command, and a link to come up (6.7.3.2, 6.6.1), and then the device.
COMMAND_LIMIT, LINK_LIMIT, DEVICE_DELAY = 1.0, 1.0, 0.1
#: Seconds that stop() waits for the thread to come back from what it is doing.
STOP_LIMIT = 60.0
_STEP = 0.005
_GONE = 0xFFFF


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """A device came or went. ``address`` is its place; ``surprise``: it went without asking."""

    kind: Literal["added", "removed"]
    address: PciAddress
    surprise: bool = False


class HotplugHost(Protocol):
    """Who has the devices and the drivers: VMkernel."""

    def functions(self) -> list[PciFunction]:
        """All functions of the machine that are known, ports among them."""

    def bound(self) -> list[PciFunction]:
        """Those that a driver has."""

    def plugged(self, functions: Sequence[PciFunction]) -> None:
        """Functions came: take them in and find their drivers."""

    def gone(self, functions: Sequence[PciFunction]) -> None:
        """Functions went by themselves and answer nothing: nobody may wait for them. Called at any time."""

    def leaving(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        """Let go of functions. ``surprise``: they are those that ``gone`` told of."""

    def left(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        """They are out of the machine, and their slot may be used again."""


class Slot:
    """The slot of a hot-plug port; ``on`` while functions behind it are in use.

    ``turn`` counts how often it was switched on or off: what was told in an earlier turn is not of the card that is in
    it now.
    """

    def __init__(self, platform: Platform, port: PciFunction, *, on: bool) -> None:
        """Take over the slot of a port."""
        self.port, self.on = port, on
        self.turn = 0
        self._platform = platform
        express = port.capability(CAPABILITY_PCI_EXPRESS)
        if express is None or port.bridge is None:
            raise VmkError("it has no PCI Express slot", where=str(port))
        self._at = express.offset
        self._can = self._read(SLOT_CAPABILITIES, 4)

    def _read(self, offset: int, size: int) -> int:
        return self._platform.config_read(self.port.address, self._at + offset, size)

    def _write(self, offset: int, value: int) -> None:
        self._platform.config_write(self.port.address, self._at + offset, 2, value)

    def enable(self) -> None:
        """Forget old events, let the port pass on what its devices do, and interrupt from now on."""
        command = self._platform.config_read(self.port.address, COMMAND, 2)
        self._platform.config_write(self.port.address, COMMAND, 2, command | _PASSES)
        self._write(_SLOT_STATUS, _EVENTS | _COMPLETED)
        self._write(_SLOT_CONTROL, self._read(_SLOT_CONTROL, 2) | _ENABLES)

    def disable(self) -> None:
        """Interrupt no more."""
        self._write(_SLOT_CONTROL, self._read(_SLOT_CONTROL, 2) & ~_ENABLES)

    def events(self) -> int:
        """The events since the last time; they are cleared. 0 when the port itself has gone."""
        status = self._read(_SLOT_STATUS, 2)
        found = status & _EVENTS if status != _GONE else 0
        if found:
            self._write(_SLOT_STATUS, found)
        return found

    @property
    def present(self) -> bool:
        """Whether a card is in the slot and, while it is on, its link is up as far as the port tells."""
        status = self._read(_SLOT_STATUS, 2)
        return status != _GONE and bool(status & _PRESENT) and (not self.on or self._link())

    def _link(self) -> bool:
        reports = self._read(_LINK_CAPABILITIES, 4) & _LINK_REPORTS
        return not reports or bool(self._read(_LINK_STATUS, 2) & _LINK_ACTIVE)

    def indicate(self, indicator: int, *, power: bool) -> None:
        """Switch the slot's power and its indicator, as far as it has them; TimedOut."""
        control = self._read(_SLOT_CONTROL, 2)
        wanted = control
        if self._can & _HAS_POWER_INDICATOR:
            wanted = wanted & ~_INDICATOR | indicator
        if self._can & _HAS_POWER_CONTROLLER:
            wanted = wanted & ~_POWER_OFF | (0 if power else _POWER_OFF)
        if wanted == control:
            return
        self._write(_SLOT_STATUS, _COMPLETED)
        self._write(_SLOT_CONTROL, wanted)
        if not self._can & _NO_COMMAND_COMPLETED:
            self._wait("carry out a command", COMMAND_LIMIT, lambda: self._read(_SLOT_STATUS, 2) & _COMPLETED)

    def power_on(self) -> None:
        """Give the card power and wait until it may be asked; TimedOut when its link does not come up."""
        self.indicate(_INDICATOR_BLINKS, power=True)
        self._wait("bring its link up", LINK_LIMIT, self._link)
        time.sleep(DEVICE_DELAY)

    def switch(self, *, on: bool) -> None:
        """What is in the slot is in use from now on, or not any more."""
        self.on = on
        self.turn += 1

    def power_off(self) -> None:
        """Take the card's power away: it may be taken out now."""
        self.switch(on=False)
        self.indicate(_INDICATOR_OFF, power=False)

    def _wait(self, what: str, limit: float, done: Any) -> None:
        deadline = time.monotonic() + limit
        while not done():
            if time.monotonic() > deadline:
                raise TimedOut(f"the slot did not {what} within {limit:g} s", where=str(self.port))
            time.sleep(_STEP)


class Hotplug:
    """Looks after the slots and the devices of a machine, in a thread of its own, from start() to stop()."""

    def __init__(self, platform: Platform, host: HotplugHost) -> None:
        """Make it; start() begins."""
        self._platform, self._host = platform, host
        self._slots: dict[PciAddress, Slot] = {}
        self._handlers: dict[PciAddress, Handler] = {}
        self._queue: queue.SimpleQueue[tuple[Slot, int, int] | None] = queue.SimpleQueue()
        #: Held while devices come or go; whoever binds or unbinds drivers by hand holds it too.
        self.changes = threading.RLock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="vmk-hotplug", daemon=True)

    def start(self) -> None:
        """Take over the slots of the machine."""
        self._adopt(self._host.functions())
        self._thread.start()

    def stop(self) -> None:
        """End; slots interrupt no more. TimedOut when a driver keeps the thread."""
        self._stopping = True
        self._queue.put(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_LIMIT)
            if self._thread.is_alive():
                raise TimedOut(f"a device is still being removed after {STOP_LIMIT:.0f} s")
        self._watch()  # drivers of what went since the last look wait for nothing when their modules are unloaded
        for address in list(self._slots):
            self._drop(address)

    def look(self) -> None:
        """Look after the devices now, not only when it is time: one may have gone."""
        self._queue.put(None)

    def slot_of(self, address: PciAddress) -> Slot | None:
        """The slot that a device is in; None when it is in none that can be switched off."""
        return next(
            (
                slot
                for slot in self._slots.values()
                if slot.port.bridge
                and slot.port.bridge.secondary <= address.bus <= slot.port.bridge.subordinate
            ),
            None,
        )

    def unplug(self, slot: Slot) -> None:
        """Take what is in a slot out in order: drivers let go of it, then its power goes. TimedOut."""
        with self.changes:
            slot.indicate(_INDICATOR_BLINKS, power=True)
            leaving = self._behind(slot)
            self._leave(leaving, surprise=False)
            slot.power_off()
            self._host.left(leaving, surprise=False)

    # ---- slots ----

    def _adopt(self, functions: Sequence[PciFunction]) -> None:
        known = self._host.functions()
        for port in functions:
            if port.bridge is None or not port.bridge.hotplug:
                continue
            on = any(function.address.bus == port.bridge.secondary for function in known)
            slot = self._slots[port.address] = Slot(self._platform, port, on=on)
            if port.line:
                self._handlers[port.address] = Handler(port.line, partial(self.interrupted, slot))
            slot.enable()
            if slot.present != on:
                self._queue.put((slot, slot.turn, _PRESENCE_CHANGED))

    def _drop(self, address: PciAddress) -> None:
        slot = self._slots.pop(address)
        slot.disable()
        handler = self._handlers.pop(address, None)
        if handler is not None:
            handler.remove()

    def _behind(self, slot: Slot) -> list[PciFunction]:
        bridge = slot.port.bridge
        if bridge is None:
            return []
        return [
            function
            for function in self._host.functions()
            if bridge.secondary <= function.address.bus <= bridge.subordinate
        ]

    def interrupted(self, slot: Slot) -> bool:
        """Take in a slot's events, as its interrupt asks for; whether there were any.

        Called by the interrupt and by the thread: both may read an event before either has cleared it.
        """
        turn = slot.turn
        events = slot.events()
        if events:
            self._queue.put((slot, turn, events))
        return bool(events)

    # ---- the thread ----

    def _run(self) -> None:
        watch = time.monotonic()
        while not self._stopping:
            try:
                event = self._queue.get(timeout=max(watch - time.monotonic(), 0))
            except queue.Empty:
                event = None
            try:
                if event is None:
                    watch = time.monotonic() + WATCH
                    self._watch()
                else:
                    self._serve(*event)
                # QEMU's port has no interrupt for the change of presence that switching its slot off makes, and none for
                # what follows until that event is cleared: so each slot is asked, too.
                for slot in list(self._slots.values()):
                    self.interrupted(slot)
            except VmkError as error:
                log.error("hot-plug: %s", error)
            except Exception:
                log.exception("hot-plug failed")

    def _watch(self) -> None:
        """One read for each device that a driver has; those that answer nothing have gone."""
        gone = [f for f in self._host.bound() if self._platform.config_read(f.address, VENDOR_ID, 2) == _GONE]
        self._host.gone(gone)
        for function in gone:
            slot = self.slot_of(function.address)
            if slot is not None:
                self._vanished(slot)
                continue
            with self.changes:
                if function in self._host.bound():
                    self._leave([function], surprise=True)
                    self._host.left([function], surprise=True)

    def _serve(self, slot: Slot, turn: int, events: int) -> None:
        if slot.on and not slot.present:
            self._vanished(slot)
            return
        with self.changes:
            if slot.on and turn == slot.turn and events & _BUTTON:
                log.info("%s: the button of its slot was pressed, what is in it goes", slot.port)
                self.unplug(slot)
            elif not slot.on and slot.present:
                self._arrive(slot)

    def _arrive(self, slot: Slot) -> None:
        """Something is in the slot: switch it on and take it in."""
        try:
            slot.power_on()
            found = scan_behind(self._platform, slot.port, self._host.functions())
        except VmkError:
            slot.power_off()
            raise
        if not found:
            log.warning("%s: what is in its slot does not answer", slot.port)
            slot.power_off()
            return
        slot.events()  # they are of before: QEMU has the button of a slot pressed when a card is put in
        slot.switch(on=True)
        slot.indicate(_INDICATOR_ON, power=True)
        self._host.plugged(found)
        self._adopt(found)

    def _vanished(self, slot: Slot) -> None:
        self._host.gone(self._behind(slot))  # at once: whoever holds the lock may be waiting for the device
        with self.changes:
            if slot.on:
                log.warning("%s: what was in its slot has gone by itself", slot.port)
                leaving = self._behind(slot)
                self._leave(leaving, surprise=True)
                slot.power_off()
                self._host.left(leaving, surprise=True)

    def _leave(self, functions: Sequence[PciFunction], *, surprise: bool) -> None:
        self._host.leaving(functions, surprise=surprise)
        for function in functions:
            if function.address in self._slots:
                self._drop(function.address)
