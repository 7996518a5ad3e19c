"""A driver in Python whose hardware is a script: it answers as SPC-4 and SBC-3 have it, keeps blocks in memory, and does
with commands what a test tells it to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vmkernel_core._core import ffi, lib
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.storage.command import Status
from vmkernel_core.storage.events import StorageEvent
from vmkernel_core.storage.inventory import Inventory
from vmklinux.native.device import Device, baton
from vmklinux.native.scsi_cmnd import ScsiCmnd
from vmklinux.native.scsi_device import ScsiDevice
from vmklinux.native.scsi_host import ScsiHost, ScsiHostTemplate, scsi_add_host, scsi_done, scsi_host_alloc
from vmklinux.native.scsi_scan import scsi_scan_host
from vmklinux.native.sd import Disks

BLOCKS = 64


def sense(key: int, asc: int, ascq: int = 0) -> bytes:
    """Sense data in fixed format (SPC-4, 4.5.3)."""
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])


class ScriptedDisks(ScsiHostTemplate):
    """Disks at the targets of ``units``, each with the LUNs that are given.

    ``script`` is asked of each command: None, it is done; a function, it is called instead, and the command is lost
    unless that gives it back. ``held`` has what was lost. ``called`` notes error handling, ``says`` what it says.
    """

    def __init__(self, units: dict[int, list[int]]) -> None:
        self.units = units
        self.content: dict[tuple[int, int], bytearray] = {}
        self.script: Callable[[ScsiCmnd], Callable[[ScsiCmnd], None] | None] = lambda _cmnd: None
        self.held: list[ScsiCmnd] = []
        self.seen: list[tuple[int, bytes]] = []
        self.room = 1 << 30
        self.called: list[str] = []
        self.says: dict[str, bool] = {}
        self.batches: list[int] = []
        self.memory: MachineMemory

    def queuecommand(self, commands: Sequence[ScsiCmnd]) -> int:
        """Do them at once."""
        taken = commands[: self.room]
        self.batches.append(len(taken))
        done = []
        for cmnd in taken:
            self.seen.append((cmnd.device.id, cmnd.cdb))
            how = self.script(cmnd)
            if how is not None:
                how(cmnd)
            else:
                self._answer(cmnd)
                done.append(cmnd)
        scsi_done(done)
        return len(taken)

    def lose(self, cmnd: ScsiCmnd) -> None:
        """Keep a command."""
        self.held.append(cmnd)

    def give_back(self, cmnd: ScsiCmnd, *, host: int = 0, status: int = 0, told: bytes = b"") -> None:
        """Give a command back with a result."""
        cmnd.host, cmnd.status, cmnd.sense = host, status, told
        scsi_done([cmnd])

    def _answer(self, cmnd: ScsiCmnd) -> None:
        cdb, place = cmnd.cdb, (cmnd.device.id, cmnd.device.lun)
        content = self.content.setdefault(place, bytearray(BLOCKS * 512))
        if cmnd.device.lun not in self.units.get(cmnd.device.id, []):
            # A target that is there says of a LUN that is not: peripheral qualifier 3 (SPC-4, 6.6.2).
            if cmnd.device.id in self.units and cdb[0] == 0x12:
                self.move(cmnd, b"\x7f" + bytes(35))
            else:
                cmnd.host = 4  # DID_BAD_TARGET
        elif cdb[0] == 0x12:
            self._inquire(cmnd, place)
        elif cdb[0] == 0xA0:
            luns = self.units[cmnd.device.id]
            self.move(
                cmnd, struct.pack(">I4x", 8 * len(luns)) + b"".join(struct.pack(">H6x", n) for n in luns)
            )
        elif cdb[0] == 0x1A:
            self.move(cmnd, bytes([23, 0, 0, 0, 8, 18, *bytes(18)]))
        elif cdb[0] == 0x9E:
            self.move(cmnd, struct.pack(">QI20x", BLOCKS - 1, 512))
        elif cdb[0] == 0x28:
            at = 512 * int.from_bytes(cdb[2:6], "big")
            self.move(cmnd, bytes(content[at : at + cmnd.length]))
        elif cdb[0] == 0x2A:
            at = 512 * int.from_bytes(cdb[2:6], "big")
            content[at : at + cmnd.length] = b"".join(bytes(view) for view in self._views(cmnd))
        elif cdb[0] not in (0x00, 0x35):
            cmnd.status, cmnd.sense = Status.CHECK_CONDITION, sense(5, 0x20)

    def _inquire(self, cmnd: ScsiCmnd, place: tuple[int, int]) -> None:
        number = f"{place[0]:04}{place[1]:04}".encode()
        pages = {0x00: bytes([0, 0x80, 0x83]), 0x80: number}
        pages[0x83] = bytes([1, 3, 0, 8, 0x50, 0, 0, 0, 0, 0, *place])
        code = cmnd.cdb[2]
        if not cmnd.cdb[1] & 1:
            self.move(cmnd, bytes([0, 0, 5, 2, 31, 0, 0, 2]) + b"SCRIPT  DISK            1.0 ")
        elif code in pages:
            self.move(cmnd, bytes([0, code, 0, len(pages[code])]) + pages[code])
        else:
            cmnd.status, cmnd.sense = Status.CHECK_CONDITION, sense(5, 0x24)

    def _views(self, cmnd: ScsiCmnd) -> Iterator[memoryview]:
        for address, length in cmnd.sg:
            at = ffi.cast("char *", self.memory.base + address)
            yield memoryview(ffi.buffer(at, length)).cast("B")

    def move(self, cmnd: ScsiCmnd, data: bytes) -> None:
        """Fetch data for a command."""
        cmnd.residual = max(0, cmnd.length - len(data))
        for view in self._views(cmnd):
            part, data = data[: len(view)], data[len(view) :]
            view[: len(part)] = part

    # ---- error handling ----

    def _say(self, what: str) -> bool:
        self.called.append(what)
        return self.says.get(what, False)

    def eh_abort(self, cmnd: ScsiCmnd) -> bool:
        """As told."""
        return self._say("abort")

    def eh_device_reset(self, device: ScsiDevice) -> bool:
        """As told."""
        return self._say("device_reset")

    def eh_target_reset(self, device: ScsiDevice) -> bool:
        """As told."""
        return self._say("target_reset")

    def eh_bus_reset(self, device: ScsiDevice) -> bool:
        """As told."""
        return self._say("bus_reset")

    def eh_host_reset(self) -> bool:
        """As told."""
        return self._say("host_reset")


class Rig:
    """A host with scripted disks: their driver, the mid-layer's host, and what the vmkernel has of them."""

    def __init__(self, driver: ScriptedDisks, host: ScsiHost, inventory: Inventory, disks: Disks) -> None:
        self.driver, self.host, self.inventory, self.disks = driver, host, inventory, disks
        self.events: list[StorageEvent] = []

    def scan(self) -> None:
        """Look for the disks."""
        with baton():
            scsi_scan_host(self.host)


@contextmanager
def rig(units: dict[int, list[int]], *, can_queue: int = 16, depth: int = 16) -> Iterator[Rig]:
    """A host with scripted disks; at its end nothing may be in flight."""
    with MachineMemory(64 << 20) as memory:
        idle = IdleLoop(lambda _event: None, lambda: None)
        lib.vmk_irq_reset()
        idle.start()
        inventory = Inventory()
        disks = Disks(inventory)
        device = Device("scripted", "scripted_disks", memory, idle)
        driver = ScriptedDisks(units)
        driver.memory = memory
        host = scsi_host_alloc(device, driver)
        host.can_queue, host.cmd_per_lun, host.skip_settle_delay = can_queue, depth, True
        host.max_id = 4
        made = Rig(driver, host, inventory, disks)
        inventory.on_event = made.events.append
        device.on_stopped = lambda _error: disks.stopped(device)
        with baton():
            scsi_add_host(host)
        made.scan()
        try:
            yield made
        finally:
            with baton():
                device.devres.release_all()
            idle.stop()
        assert device.stopped or not [each for each in host.in_flight.values() if each not in driver.held]
        assert inventory.adapters == {}
        assert inventory.devices == {}
