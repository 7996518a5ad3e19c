"""SCSI hosts of drivers in Python (Linux drivers/scsi/hosts.c, include/scsi/scsi_host.h).

A driver is a ScsiHostTemplate. Its probe calls ``scsi_host_alloc``, sets the limits of the host that it gets, then
``scsi_add_host`` (an adapter appears) and ``scsi_scan_host`` (its devices do). From then on commands come by
``queuecommand`` and are given back by ``scsi_done``, which may send the next ones at once: a driver calls it last.
Devices are in scsi_device.py, their queues in scsi_lib.py, the scan in scsi_scan.py, error handling in scsi_error.py.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmkernel_core.errors import DeviceGone, NotSupported, TimedOut, UsageError, VmkError
from vmklinux.native.device import baton
from vmklinux.native.pci import PciDev
from vmklinux.native.scsi import scsi_hosts
from vmklinux.native.scsi_cmnd import CmndState
from vmklinux.native.scsi_error import ErrorHandler
from vmklinux.native.scsi_scan import rescan_host, scsi_remove_device
from vmklinux.native.timer import msleep
from vmklinux.native.wait import WaitQueue, wait_event_timeout
from vmklinux.scsi_policy import RECOVERY, SCAN_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmkernel_core.platform.base import PciAddress
    from vmkernel_core.storage.adapter import AdapterState, StorageAdapter
    from vmkernel_core.storage.iscsi import IscsiControls
    from vmklinux.native.device import Device
    from vmklinux.native.devres import Release
    from vmklinux.native.scsi_cmnd import ScsiCmnd
    from vmklinux.native.scsi_device import ScsiDevice

log = logging.getLogger(__name__)

#: Milliseconds between looks at whether a host has become quiet.
QUIET_LOOK = 10
_RECOVERS = frozenset(RECOVERY.values())
#: Seconds that a host which is taken away waits for a scan, before the commands of that end, too.
REMOVE_PATIENCE = 10.0


class ScsiHostTemplate(ABC):
    """What a driver does for its host. All of it is called with the baton held.

    ``eh_*``, ``slave_*`` and ``scan_start`` run in worlds that may sleep; ``queuecommand`` may not. The functions of
    error handling tell whether they did it. A reset that did means that the hardware has none of the commands any more
    that it is about: those that the driver does not give back itself are taken from it.
    """

    @abstractmethod
    def queuecommand(self, commands: Sequence[ScsiCmnd]) -> int:
        """Start commands, in their order; how many were taken. The others come again when one has ended, or soon."""

    def eh_abort(self, cmnd: ScsiCmnd) -> bool:
        """Have the hardware forget a command, which is not given back any more. NotSupported."""
        raise NotSupported("commands cannot be aborted")

    def eh_device_reset(self, device: ScsiDevice) -> bool:
        """Reset a logical unit. NotSupported."""
        raise NotSupported("logical units cannot be reset")

    def eh_target_reset(self, device: ScsiDevice) -> bool:
        """Reset the target that a device belongs to. NotSupported."""
        raise NotSupported("targets cannot be reset")

    def eh_bus_reset(self, device: ScsiDevice) -> bool:
        """Reset the bus (``device.channel``) that a device is on. NotSupported."""
        raise NotSupported("buses cannot be reset")

    def eh_host_reset(self) -> bool:
        """Reset the hardware and make it work again. NotSupported."""
        raise NotSupported("the adapter cannot be reset")

    def info(self) -> str:
        """What the hardware is, in a line."""
        return type(self).__name__

    def iscsi(self) -> IscsiControls | None:
        """What an iSCSI initiator can be asked and told, from any thread and without the baton."""
        return None

    def scan_start(self) -> None:  # noqa: B027  # most drivers need none
        """A scan begins: time to ask the hardware what there is."""

    def slave_alloc(self, device: ScsiDevice) -> bool:
        """A scan is about to ask a device; False: there is none at that address."""
        return True

    def slave_configure(self, device: ScsiDevice) -> None:  # noqa: B027  # likewise
        """A device was found and is about to appear: time to set its queue depth and limits."""

    def slave_destroy(self, device: ScsiDevice) -> None:  # noqa: B027  # likewise
        """A device goes, or a scan found none where ``slave_alloc`` said that one may be."""


class ScsiHost:
    """A SCSI host (AdapterDriver): limits, tags, devices, error handler.

    Set by the driver between ``scsi_host_alloc`` and ``scsi_add_host``: ``can_queue`` commands at once, ``cmd_per_lun``
    of them for a device that ``slave_configure`` says nothing of; addresses below ``max_id`` on the channels up to
    ``max_channel``, with LUNs below ``max_lun``, ``this_id`` being the host's own; ``sg_tablesize`` segments of at most
    ``max_segment_size`` bytes, none across a multiple of ``dma_boundary`` + 1, which begin and end at multiples of
    ``dma_alignment`` + 1; ``max_sectors`` of 512 bytes in a command, ``max_cmd_len`` bytes of a CDB.
    ``skip_settle_delay``: devices answer at once after a reset of bus or host.
    """

    def __init__(self, parent: Device, template: ScsiHostTemplate) -> None:
        """``scsi_host_alloc`` makes it."""
        self.parent = parent
        self.template = template
        self.number = next(scsi_hosts.numbers)
        self.driver_name = parent.driver_name
        self.memory = parent.memory
        self.can_queue = 1
        self.cmd_per_lun = 1
        self.max_channel, self.max_id, self.max_lun, self.this_id = 0, 8, 8, -1
        self.sg_tablesize, self.max_segment_size, self.max_sectors = 128, 65536, 1024
        self.dma_boundary, self.dma_alignment = 0xFFFF_FFFF, 3
        self.max_cmd_len = 32
        self.skip_settle_delay = False

        self.devices: list[ScsiDevice] = []
        #: enum scsi_host_state.
        self.host_state = "CREATED"
        self.self_blocked = self.asleep = False
        self.ended = False
        self.tags: list[int] = []
        self.in_flight: dict[int, ScsiCmnd] = {}
        self.failed: list[ScsiCmnd] = []
        self.errors = ErrorHandler(self)
        self.adapter: StorageAdapter | None = None
        self.release: Release | None = None
        self._running = self._again = False
        self._turn = 0
        self._scanner = 0
        self._scanned = WaitQueue()

    @property
    def name(self) -> str:
        """``host0``, and so on."""
        return f"host{self.number}"

    def __repr__(self) -> str:
        """Name, driver and state."""
        return f"<ScsiHost {self.name}: {self.driver_name}, {self.host_state}>"

    # ---- commands ----

    @property
    def recovers(self) -> bool:
        """Whether error handling runs, or is about to: no new command goes out."""
        return self.host_state in _RECOVERS

    @property
    def busy(self) -> int:
        """Commands that the driver has, failed ones included; not those that ended without it."""
        return sum(cmnd.state is not CmndState.LOST for cmnd in self.in_flight.values())

    def free_tag(self, cmnd: ScsiCmnd) -> None:
        """The driver has a command no more: another one may have its tag."""
        del self.in_flight[cmnd.tag]
        self.tags.append(cmnd.tag)

    def run(self) -> None:
        """Send what waits and may go; each time another device comes first, since all share the tags. With the baton."""
        if self._running:  # the driver gives commands back while it takes others
            self._again = True
            return
        self._running = True
        try:
            while True:
                self._again = False
                devices = self.devices
                if len(devices) > 1:
                    first = self._turn = (self._turn + 1) % len(devices)
                    devices = devices[first:] + devices[:first]
                for device in devices:
                    if device.queue.waiting:
                        device.queue.dispatch()
                if not self._again:
                    return
        finally:
            self._running = False

    def queue(self, batch: Sequence[ScsiCmnd]) -> int:
        """Hand commands to the driver; how many it took. What it raises ends the host."""
        try:
            return self.template.queuecommand(batch)
        except Exception as error:
            self.fail(error)
            return len(batch)

    def fail(self, error: Exception) -> None:
        """The driver raised where nobody can be told: its hardware has gone, or it is stopped; its host has ended."""
        if isinstance(error, DeviceGone):
            log.info("%s: %s", self.name, error)
        else:
            self.parent.stop(error)
        self.end()

    def end(self) -> None:
        """The hardware or the driver is dead: every command ends now, with PathLost. May be called twice."""
        with baton():
            self.ended = True
            for cmnd in list(self.in_flight.values()):
                if cmnd.state is not CmndState.BY_EH:
                    cmnd.device.queue.abandon(cmnd)
            self.run()
            for device in self.devices:
                device.queue.wake()
            self.errors.cut()

    # ---- scans ----

    @contextmanager
    def scanning(self) -> Iterator[None]:
        """Scsi_Host.scan_mutex: devices come and go one at a time. With the baton; TimedOut."""
        task = lib.vmk_world_task()
        if self._scanner == task:
            yield
            return
        if not wait_event_timeout(self._scanned, lambda: not self._scanner, SCAN_LIMIT):
            raise TimedOut(f"another scan has not ended after {SCAN_LIMIT:.0f} s", where=self.name)
        self._scanner = task
        try:
            yield
        finally:
            self._scanner = 0
            self._scanned.wake_up()

    def scan_ended(self, seconds: float) -> bool:
        """Wait until nobody else scans; False when the time ran out first. With the baton."""
        me = lib.vmk_world_task()
        return wait_event_timeout(self._scanned, lambda: self._scanner in (0, me), seconds)

    # ---- AdapterDriver ----

    def pci_address(self) -> PciAddress | None:
        """Of the PCI device that it is; None for a software initiator."""
        return self.parent.function.address if isinstance(self.parent, PciDev) else None

    def model(self) -> str:
        """What the driver says of the hardware."""
        return self.template.info()

    def state(self) -> AdapterState:
        """How it is."""
        if self.ended or self.host_state not in ("RUNNING", RECOVERY["RUNNING"]):
            return "dead"
        return "recovering" if self.recovers else "online"

    def queue_depth(self) -> int:
        """``can_queue``."""
        return self.can_queue

    def iscsi(self) -> IscsiControls | None:
        """The driver's."""
        return self.template.iscsi()

    def rescan(self) -> None:
        """Take away the devices that went, then look for those that came. UsageError while it sleeps."""
        with self.parent.calling():
            self._awake()
            rescan_host(self)

    def reset(self) -> None:
        """Have the driver reset the hardware; commands in flight are sent again. UsageError while it sleeps."""
        self._awake()
        self.errors.reset_host()

    def _awake(self) -> None:
        if self.asleep:
            raise UsageError("the adapter sleeps", where=self.name, remedy="wake it up first")


def scsi_host_alloc(parent: Device, template: ScsiHostTemplate) -> ScsiHost:
    """A host with Linux's limits for a driver that says nothing. It is not known to anybody yet."""
    return ScsiHost(parent, template)


def scsi_add_host(host: ScsiHost) -> None:
    """Make a host known: an adapter appears. It goes when the driver lets go of its device. UsageError."""
    if host.can_queue < 1:
        raise UsageError(f"a SCSI host that takes {host.can_queue} commands", where=host.parent.name)
    host.cmd_per_lun = min(host.cmd_per_lun, host.can_queue)
    host.tags = list(range(host.can_queue - 1, -1, -1))
    host.host_state = "RUNNING"
    scsi_hosts.hosts = [*scsi_hosts.hosts, host]
    host.errors.start()
    host.release = host.parent.devres.add(lambda: _remove(host))
    log.info("%s: %s", host.name, host.model())
    scsi_hosts.on_host(host)


def scsi_remove_host(host: ScsiHost) -> None:
    """Take a host away with all its devices: what the driver has is waited for, if the hardware is there."""
    if host.release is not None:
        host.release.now()


def _remove(host: ScsiHost) -> None:
    host.host_state = RECOVERY["CANCEL"] if host.recovers else "CANCEL"
    if host.parent.gone or host.parent.stopped or not host.scan_ended(REMOVE_PATIENCE):
        host.end()  # also what a scan waits for, for ever where the driver's hardware is quiet already
    try:
        with host.scanning():
            for device in host.devices[::-1]:
                scsi_remove_device(device)
    except VmkError as error:
        log.error("%s: %s", host.name, error)
    host.host_state = "DEL"
    host.end()
    scsi_hosts.hosts = [other for other in scsi_hosts.hosts if other is not host]
    scsi_hosts.on_host_gone(host)
    host.errors.stop()


def scsi_block_requests(host: ScsiHost) -> None:
    """Hold back new commands of a host."""
    host.self_blocked = True


def scsi_unblock_requests(host: ScsiHost) -> None:
    """Let the commands of a host go on; it is awake."""
    host.self_blocked = host.asleep = False
    host.run()


def scsi_quiesce(host: ScsiHost, seconds: float) -> bool:
    """Let what was begun end, scans and error handling included, and begin nothing more, until scsi_unblock_requests.

    Whether it ended in time: the hardware may sleep then. In a world that may sleep.
    """
    deadline = lib.vmk_now() + int(seconds * 1e9)
    ends = host.scan_ended(seconds)
    host.self_blocked = host.asleep = True
    while host.busy or host.recovers:
        if lib.vmk_now() > deadline or lib.vmk_world_ending():
            return False
        msleep(QUIET_LOOK)
    return ends


def scsi_done(commands: Sequence[ScsiCmnd]) -> None:
    """The driver gives commands of one host back. The next ones may be sent before this returns: it is called last."""
    if not commands:
        return
    host = commands[0].device.host
    tags, in_flight = host.tags, host.in_flight
    waited = set()
    for cmnd in commands:
        queue = cmnd.device.queue
        state = cmnd.state
        if state is CmndState.IN_FLIGHT:
            del in_flight[cmnd.tag]
            tags.append(cmnd.tag)
            queue.busy -= 1
            if cmnd.host or cmnd.status or cmnd.residual:
                queue.judge(cmnd)
            else:
                queue.finish(cmnd)
            waited.add(queue)
        elif state is CmndState.LOST:  # its tag is free only now
            cmnd.state = CmndState.ENDED
            host.free_tag(cmnd)
        elif state is CmndState.BY_EH:
            host.errors.back(cmnd)
        elif (
            state is CmndState.EXPIRED or state is CmndState.FAILED
        ):  # its time was up, and error handling has it
            cmnd.returned = True
    host.run()
    for queue in waited:
        if queue.done and queue.waiters:
            queue.wake()
    if host.recovers:  # fewer are busy now: error handling may begin
        host.errors.wake()
