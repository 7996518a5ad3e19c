"""The driver: a SCSI host over one IOC with a SAS port."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from native_drivers.scsi.mptscsi_2xx.config_pages import IOC_2, MANUFACTURING_0, SAS_IO_UNIT_0
from native_drivers.scsi.mptscsi_2xx.ioc import FIRST_CONTEXT, Ioc, IocError
from native_drivers.scsi.mptscsi_2xx.messages import (
    QUEUE_FULL,
    SAS_DEVICE_STATUS_CHANGE,
    SAS_DISCOVERY,
    SCSI_TASK_MGMT,
    Event,
    PortType,
    SasDeviceReason,
    TaskResponse,
    TaskType,
)
from native_drivers.scsi.mptscsi_2xx.registers import IocState
from native_drivers.scsi.mptscsi_2xx.scsi_io import CDB_MOST, ScsiIo, address_of
from native_drivers.scsi.mptscsi_2xx.topology import sas_targets
from vmkernel_core.errors import NotSupported, TimedOut
from vmkernel_core.pci_function import BarKind
from vmkernel_core.storage.command import HostStatus
from vmklinux.native.irq import request_irq
from vmklinux.native.pci import PciDriver, pci_enable_device, pci_iomap, pci_set_master
from vmklinux.native.scsi_host import (
    ScsiHostTemplate,
    scsi_add_host,
    scsi_block_requests,
    scsi_done,
    scsi_host_alloc,
    scsi_quiesce,
    scsi_unblock_requests,
)
from vmklinux.native.scsi_scan import rescan_host, scsi_scan_host
from vmklinux.native.timer import Timer, mod_timer, timer_delete
from vmklinux.native.wait import WaitQueue, wait_event_timeout
from vmklinux.native.workqueue import Workqueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from native_drivers.scsi.mptscsi_2xx.messages import EVENT_NOTIFY_REPLY
    from native_drivers.scsi.mptscsi_2xx.topology import Target
    from vmkernel_core.pci_function import PciFunction
    from vmklinux.native.pci import PciDev
    from vmklinux.native.scsi_cmnd import ScsiCmnd
    from vmklinux.native.scsi_device import ScsiDevice

log = logging.getLogger(__name__)

#: Vendor id, and the device ids of SAS1064, 1068, 1064E, 1068E, 1066E, 1064A, 1066 and 1078 (mpi_cnfg.h).
LSI, SAS_CHIPS = 0x1000, frozenset((0x50, 0x54, 0x56, 0x58, 0x5A, 0x5C, 0x5E, 0x62))
#: Seconds between looks for a fault; for task management, which waits for the commands that it ends; and for commands
#: to end before the controller is put to sleep, or the machine goes down.
FAULT_LOOK, TASK_LIMIT, SUSPEND_LIMIT, SHUTDOWN_LIMIT = 1.0, 30.0, 60.0, 10.0
#: Seconds that a reset may take, with the look for devices that follows it.
RESET_LIMIT = 420.0
#: Commands of one device at once, more than which do not make a disk faster.
DEPTH = 64
#: Bytes that one element of a list may have (24 bits in the message, less than that here).
SEGMENT_MOST = 1 << 20
#: Of 512 bytes in a command, as Linux's driver has it.
SECTORS_MOST = 8192
_ANSWERED = (TaskResponse.COMPLETE, TaskResponse.SUCCEEDED)
_CAME_OR_WENT: frozenset[int] = frozenset(SasDeviceReason)


class MptSas(PciDriver, ScsiHostTemplate):
    """A Fusion-MPT SAS controller."""

    name = "mptscsi_2xx"

    @classmethod
    def claims(cls, function: PciFunction) -> bool:
        """SAS chips; those with ports of other kinds have the same registers and messages."""
        return function.vendor == LSI and function.device in SAS_CHIPS

    def __init__(self, pdev: PciDev, parameters: Mapping[str, str]) -> None:
        super().__init__(pdev, parameters)
        self._targets: dict[tuple[int, int], Target] = {}
        self._model = "LSI Fusion-MPT"
        self._resetting = False
        self._reset_ended = WaitQueue()

    # ---- life ----

    def probe(self) -> None:
        """Bring the IOC up and show its devices. NotSupported when its port is not SAS, or where it has RAID volumes."""
        pdev = self.pdev
        pci_enable_device(pdev)
        pci_set_master(pdev)
        registers = next(bar.index for bar in pdev.function.bars if bar.kind is not BarKind.IO)
        self.ioc = Ioc(pdev, pci_iomap(pdev, registers), self._ended, self._happened)
        self.ioc.begin()
        if self.ioc.port.PortType != PortType.SAS:
            raise NotSupported(f"a port of type {self.ioc.port.PortType:#x}, not SAS", where=pdev.name)
        # From here on it may tell of events.
        self.io = ScsiIo(self.ioc)
        self._scans, self._resets = Workqueue(pdev), Workqueue(pdev)
        self._watch = Timer(pdev, self._look_for_fault)
        host = self.host = scsi_host_alloc(pdev, self)
        request_irq(pdev, self.ioc.interrupt)
        # A scan that is under way does not wait for what nobody takes in then.
        pdev.devres.add(self.ioc.forget)
        self._leave_arrays_alone()
        self._model, facts = self._describe(), self.ioc.facts
        host.can_queue, host.cmd_per_lun = self.ioc.most, DEPTH
        host.max_channel, host.max_id = max(facts.MaxBuses, 1) - 1, facts.MaxDevices or 256
        host.max_lun, host.this_id = 1 << 14, self.ioc.port.PortSCSIID
        host.sg_tablesize, host.max_segment_size = self.io.segments, SEGMENT_MOST
        host.max_sectors, host.max_cmd_len = SECTORS_MOST, CDB_MOST
        host.skip_settle_delay = True  # a reset ends when the port is enabled again
        scsi_add_host(host)
        mod_timer(self._watch, FAULT_LOOK)
        scsi_scan_host(host)

    def _leave_arrays_alone(self) -> None:
        """NotSupported where the IOC has RAID volumes: their disks are not to be written to one by one."""
        raid = self.ioc.page(IOC_2)
        if raid and (raid.NumActiveVolumes or raid.NumActivePhysDisks):
            raise NotSupported(
                f"{raid.NumActiveVolumes} RAID volumes on {raid.NumActivePhysDisks} disks: this driver knows none",
                where=self.pdev.name,
                remedy="use Linux's module, mptsas, for it",
            )

    def _describe(self) -> str:
        board, unit, facts = self.ioc.page(MANUFACTURING_0), self.ioc.page(SAS_IO_UNIT_0), self.ioc.facts
        name = board.BoardName.partition(b"\0")[0].decode("ascii", "replace").strip() if board else "LSI SAS"
        phys = f", {unit.NumPhys} phys" if unit else ""
        version = f"{facts.FWVersionMajor}.{facts.FWVersionMinor}.{facts.FWVersionUnit}.{facts.FWVersionDev}"
        return f"{name}{phys}, firmware {version}"

    def shutdown(self) -> None:
        """What was begun ends, or is given up if it does not do so soon; the IOC stops."""
        if not self._ends(SHUTDOWN_LIMIT):
            log.warning("%s: commands are given up, since the machine goes down", self.pdev.name)
        self.ioc.end()
        given_up = self.io.forget()
        for cmnd in given_up:
            cmnd.host = HostStatus.NO_CONNECT
        scsi_done(given_up)

    def suspend(self) -> None:
        """What was begun ends; then the IOC stops. TimedOut, and all goes on, when it does not end."""
        if not self._ends(SUSPEND_LIMIT):
            self._go_on()
            raise TimedOut(f"commands have not ended within {SUSPEND_LIMIT:g} s", where=self.pdev.name)
        self.ioc.end()

    def resume(self) -> None:
        """Bring it up anew."""
        self.ioc.begin()
        self._go_on()
        self._scans.schedule_work(self._rescan)

    def _ends(self, seconds: float) -> bool:
        """Begin nothing more; whether all that was begun ends in time, a reset included."""
        timer_delete(self._watch)
        stands = wait_event_timeout(self._reset_ended, lambda: not self._resetting, seconds)
        return scsi_quiesce(self.host, seconds) and stands

    def _go_on(self) -> None:
        scsi_unblock_requests(self.host)
        mod_timer(self._watch, FAULT_LOOK)

    # ---- commands ----

    def queuecommand(self, commands: Sequence[ScsiCmnd]) -> int:
        """Start commands. Busy while the IOC is reset."""
        if self._resetting:
            return 0
        self.io.start(commands)
        return len(commands)

    def _ended(self, tags: list[int], replies: list[tuple[int, bytes]]) -> None:
        scsi_done(self.io.ended(tags, replies))

    # ---- devices ----

    def info(self) -> str:
        """Board, phys and firmware."""
        return self._model

    def scan_start(self) -> None:
        """Ask the IOC for its devices."""
        self._targets = {(target.bus, target.id): target for target in sas_targets(self.ioc)}

    def slave_alloc(self, device: ScsiDevice) -> bool:
        """Only what the IOC told of is asked."""
        device.hostdata = address_of(device)
        return (device.channel, device.id) in self._targets

    def slave_configure(self, device: ScsiDevice) -> None:
        """Tell where it is."""
        target = self._targets[device.channel, device.id]
        log.info("%s: SAS address %016x, handle %#06x", device.name, target.sas_address, target.handle)

    def _rescan(self) -> None:
        if self.host.host_state == "CREATED":  # probe is about to look for them
            return
        try:
            rescan_host(self.host)
        except (TimedOut, IocError) as error:  # a reset, which looks for devices again, came between, or will
            log.warning("%s", error)

    def _happened(self, event: EVENT_NOTIFY_REPLY) -> None:
        """An event: devices that came or went are looked for where there is time to."""
        if event.Event == Event.SAS_DEVICE_STATUS_CHANGE:
            change = event.data(SAS_DEVICE_STATUS_CHANGE)
            if change.ReasonCode in _CAME_OR_WENT:
                self._scans.schedule_work(self._rescan)
        elif event.Event == Event.SAS_DISCOVERY:
            if not event.data(SAS_DISCOVERY).DiscoveryStatus:
                self._scans.schedule_work(self._rescan)
        elif event.Event == Event.QUEUE_FULL:
            full = event.data(QUEUE_FULL)
            for device in self.host.devices:
                if (device.channel, device.id) == (full.Bus, full.TargetID):
                    device.set_queue_depth(max(full.CurrentDepth - 1, 1))
        elif event.Event == Event.RESCAN:
            self._scans.schedule_work(self._rescan)
        log.debug("%s: %r", self.pdev.name, event)

    # ---- faults and errors ----

    def _look_for_fault(self) -> None:
        """A fault is mended in a world of its own: a scan may wait for what the IOC never answers.

        While it is being reset, the doorbell is not to be read by anybody else.
        """
        mod_timer(self._watch, FAULT_LOOK)
        if self._resetting:
            return
        doorbell = self.ioc.state()
        if doorbell.STATE == IocState.FAULT:
            log.error("%s: the IOC has stopped with fault %#06x; it is reset", self.pdev.name, doorbell.DATA)
            self._resets.schedule_work(self._reset)

    def _reset(self) -> None:
        """Reset the IOC; commands that it had are sent again. Who comes while another does it waits for that one."""
        if self._resetting:
            if not wait_event_timeout(self._reset_ended, lambda: not self._resetting, RESET_LIMIT):
                raise TimedOut(f"a reset has not ended within {RESET_LIMIT:g} s", where=self.pdev.name)
            return
        self._resetting = True
        scsi_block_requests(self.host)
        try:
            self.ioc.restart()
        finally:  # an IOC that was not reset may have its commands still: error handling goes on with them
            self._resetting = False
            self._reset_ended.wake_up()
            self._go_on()
        had = self.io.forget()
        for cmnd in had:
            cmnd.host = HostStatus.RESET
        scsi_done(had)
        self._scans.schedule_work(self._rescan)

    def _manage(self, task: TaskType, device: ScsiDevice, context: int = 0) -> bool:
        target, bus, lun = device.hostdata
        request = SCSI_TASK_MGMT(TaskType=task, TargetID=target, Bus=bus, LUN=lun, TaskMsgContext=context)
        reply = self.ioc.manage(request, TASK_LIMIT)
        return reply.ResponseCode in _ANSWERED

    def eh_abort(self, cmnd: ScsiCmnd) -> bool:
        """Abort a command: it came back before the answer to that did, or the IOC has lost it."""
        done = self._manage(TaskType.ABORT_TASK, cmnd.device, FIRST_CONTEXT + cmnd.tag)
        return done and self.io.commands[cmnd.tag] is not cmnd

    def eh_device_reset(self, device: ScsiDevice) -> bool:
        """Reset a logical unit."""
        done = self._manage(TaskType.LOGICAL_UNIT_RESET, device)
        return done and not any(cmnd and cmnd.device is device for cmnd in self.io.commands)

    def eh_target_reset(self, device: ScsiDevice) -> bool:
        """Reset a target."""
        return self._manage(TaskType.TARGET_RESET, device) and not any(
            cmnd and cmnd.device.address()[:2] == device.address()[:2] for cmnd in self.io.commands
        )

    def eh_bus_reset(self, device: ScsiDevice) -> bool:
        """Reset all targets of the bus."""
        return self._manage(TaskType.RESET_BUS, device) and not any(
            cmnd and cmnd.device.channel == device.channel for cmnd in self.io.commands
        )

    def eh_host_reset(self) -> bool:
        """Reset the IOC."""
        self._reset()
        return True
