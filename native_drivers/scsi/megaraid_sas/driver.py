"""MegaRAID SAS controllers with MFI firmware: the driver."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from native_drivers.scsi.megaraid_sas.events import Events
from native_drivers.scsi.megaraid_sas.firmware import GEN2, SAS1078, Firmware, State
from native_drivers.scsi.megaraid_sas.frames import (
    FLUSH_CTRL,
    FLUSH_DISK,
    FRAME_MOST,
    SECTOR,
    SENSE,
    Cmd,
    Dcmd,
    Flag,
    IoFrame,
    IoSegment,
    PassFrame,
    PassSegment,
    Segment,
    Stat,
)
from native_drivers.scsi.megaraid_sas.raid import Inventory, controller_info, inventory, text
from vmkernel_core.errors import DeviceGone, TimedOut, VmkError
from vmkernel_core.storage.command import (
    READ_10,
    READ_16,
    TRANSFER_10,
    TRANSFER_16,
    WRITE_10,
    WRITE_16,
    Direction,
    HostStatus,
    Status,
)
from vmklinux.native.irq import PCI_IRQ_INTX, PCI_IRQ_MSIX, pci_alloc_irq_vectors, request_irq
from vmklinux.native.pci import (
    PciDriver,
    pci_clear_master,
    pci_enable_device,
    pci_iomap,
    pci_set_master,
)
from vmklinux.native.scsi_host import (
    ScsiHostTemplate,
    scsi_add_host,
    scsi_done,
    scsi_host_alloc,
    scsi_quiesce,
    scsi_remove_host,
    scsi_unblock_requests,
)
from vmklinux.native.scsi_scan import scsi_scan_host
from vmklinux.native.timer import Timer, mod_timer, timer_delete
from vmklinux.native.wait import WaitQueue, wait_event_timeout
from vmklinux.native.workqueue import Workqueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from native_drivers.scsi.megaraid_sas.firmware import Chip
    from vmkernel_core.pci_function import PciFunction
    from vmklinux.native.scsi_cmnd import ScsiCmnd
    from vmklinux.native.scsi_device import ScsiDevice

log = logging.getLogger(__name__)

VENDOR = 0x1000
#: By PCI device id (FreeBSD's mfi_pci.c).
CHIPS: dict[int, Chip] = {0x0060: SAS1078, 0x007C: SAS1078, 0x0078: GEN2, 0x0079: GEN2}
#: Channels: physical drives are on the first two, logical ones on the others, CHANNEL_IDS targets on each.
LD_CHANNEL, CHANNELS, CHANNEL_IDS = 2, 4, 128
#: Commands that one drive gets at once, so that it leaves some to the others.
PER_DRIVE = 256
#: Seconds that what was begun has to end before the controller sleeps, and before the machine goes down; and that caches
#: have to be written.
SLEEP_LIMIT, SHUTDOWN_LIMIT, FLUSH_TIME = 60.0, 10.0, 60.0
#: Seconds between looks for a fault; firmware may not be able to tell of it.
FAULT_LOOK = 1.0
#: Reading and writing without any flag in the CDB become LD_READ and LD_WRITE; the others go as they are. The fields of
#: the CDB, and which of them counts blocks.
_TRANSFERS = {
    READ_10: (int(Cmd.LD_READ), TRANSFER_10, 4), READ_16: (int(Cmd.LD_READ), TRANSFER_16, 3),
    WRITE_10: (int(Cmd.LD_WRITE), TRANSFER_10, 4), WRITE_16: (int(Cmd.LD_WRITE), TRANSFER_16, 3),
}  # fmt: skip
#: Frames with their first, mostly only, segment, made at once; and one more segment.
_IO = IoSegment.packed(
    IoSegment.frame_cmd, IoSegment.sense_len, IoSegment.cmd_status, IoSegment.target_id, IoSegment.sge_count,
    IoSegment.context, IoSegment.flags, IoSegment.data_len, IoSegment.sense_addr, IoSegment.lba,
    IoSegment.sg_addr, IoSegment.sg_len,
)  # fmt: skip
_PASS = PassSegment.packed(
    PassSegment.frame_cmd, PassSegment.sense_len, PassSegment.cmd_status, PassSegment.target_id,
    PassSegment.cdb_len, PassSegment.sge_count, PassSegment.context, PassSegment.flags, PassSegment.data_len,
    PassSegment.sense_addr, PassSegment.cdb, PassSegment.sg_addr, PassSegment.sg_len,
)  # fmt: skip
_SEGMENT = Segment.packed(Segment.addr, Segment.length)
_WAYS = {
    Direction.TO_DEVICE: int(Flag.SGL64 | Flag.SENSE64 | Flag.DIR_WRITE),
    Direction.FROM_DEVICE: int(Flag.SGL64 | Flag.SENSE64 | Flag.DIR_READ),
    Direction.NONE: int(Flag.SGL64 | Flag.SENSE64),
}
# An IntEnum is slow to pack.
_PENDING, _LD_SCSI, _PD_SCSI = int(Stat.PENDING), int(Cmd.LD_SCSI_IO), int(Cmd.PD_SCSI_IO)
#: What a frame's status means for the mid-layer; what is not here is an error of the adapter's.
_HOST_STATUS: dict[int, HostStatus] = {
    Stat.SCSI_DONE_WITH_ERROR: HostStatus.OK,
    Stat.SCSI_RESERVATION_CONFLICT: HostStatus.OK,
    Stat.DEVICE_NOT_FOUND: HostStatus.BAD_TARGET,
    Stat.LD_OFFLINE: HostStatus.BAD_TARGET,
}


class MegaraidSas(PciDriver, ScsiHostTemplate):
    """A controller: logical drives on channels 2 and 3, disks that are passed through on channels 0 and 1."""

    name = "megaraid_sas"

    @classmethod
    def claims(cls, function: PciFunction) -> bool:
        """Whether it is one of ``CHIPS``."""
        return function.vendor == VENDOR and function.device in CHIPS

    # ---- life ----

    def probe(self) -> None:
        """Bring the firmware up and make the controller known."""
        pdev = self.pdev
        chip = CHIPS[pdev.function.device]
        self.host = scsi_host_alloc(pdev, self)
        pci_enable_device(pdev)
        pci_set_master(pdev)
        self.firmware = Firmware(pdev, pci_iomap(pdev, chip.bar), chip)
        self.commands: list[ScsiCmnd | None] = [None] * self.firmware.commands
        self._idle = WaitQueue()
        self.found = Inventory({}, frozenset())
        self.events, self._faults = Events(self), Workqueue(pdev)
        self._watch, self._faulty = Timer(pdev, self._look_for_fault), False
        messages = PCI_IRQ_MSIX if self.firmware.has_messages else 0
        pci_alloc_irq_vectors(pdev, 1, 1, messages | PCI_IRQ_INTX)
        request_irq(pdev, self._interrupt)
        self.firmware.start()
        pdev.devres.add(self._let_go)
        self.controller = controller_info(self.firmware)
        self._set_limits()
        scsi_add_host(self.host)
        self.events.listen()
        scsi_scan_host(self.host)
        mod_timer(self._watch, FAULT_LOOK)

    def _set_limits(self) -> None:
        host, firmware, info = self.host, self.firmware, self.controller
        host.can_queue, host.cmd_per_lun = firmware.commands, PER_DRIVE
        host.sg_tablesize = min(firmware.segments, (FRAME_MOST - PassFrame.size) // _SEGMENT.size)
        host.max_channel, host.max_id, host.max_lun, host.this_id = CHANNELS - 1, CHANNEL_IDS, 1, -1
        host.max_cmd_len = PassFrame.cdb.size
        # A command may touch so many strips; pages of 4 KiB, too, have to fit the scatter list.
        strips = info.max_strips_per_io << info.stripe_min
        host.max_sectors = min(strips or 1 << 16, info.max_request_size or 1 << 16, host.sg_tablesize * 8)
        host.skip_settle_delay = True  # the firmware has waited for its drives when it is ready

    def remove(self) -> None:
        """Let the commands end, then the firmware write its caches."""
        scsi_remove_host(self.host)
        self.shutdown()

    def shutdown(self) -> None:
        """Let the commands end, as far as they do so soon, have the caches written, and the firmware go down."""
        timer_delete(self._watch)
        if self.pdev.gone or self.pdev.stopped:
            return
        if not scsi_quiesce(self.host, SHUTDOWN_LIMIT):
            log.warning("%s: commands have not ended when the machine goes down", self.pdev.name)
        self.events.stop()
        try:
            self._flush()
            self.firmware.dcmd(Dcmd.CTRL_SHUTDOWN, timeout=FLUSH_TIME)
        except VmkError as error:
            log.warning("%s: %s", self.pdev.name, error)

    def _flush(self) -> None:
        self.firmware.dcmd(Dcmd.CTRL_CACHE_FLUSH, mbox=bytes([FLUSH_CTRL | FLUSH_DISK]), timeout=FLUSH_TIME)

    def _let_go(self) -> None:
        """The firmware writes no more into this memory, whatever frames it has."""
        self.firmware.wake()
        if not self.pdev.gone:
            self.firmware.mask()
        pci_clear_master(self.pdev)

    def suspend(self) -> None:
        """Let what was begun end, have the caches written; then it is quiet. TimedOut, MfiError: it is awake still."""
        timer_delete(self._watch)
        try:
            if not scsi_quiesce(self.host, SLEEP_LIMIT):
                raise TimedOut(f"commands have not ended within {SLEEP_LIMIT:g} s", where=self.pdev.name)
            self._flush()
            self.events.stop()
            self.firmware.dcmd(Dcmd.HIBERNATE_STANDBY, timeout=FLUSH_TIME)
        except VmkError:
            self._go_on()
            self.events.listen()
            raise
        self.firmware.mask()

    def resume(self) -> None:
        """From whatever the firmware is in to work; drives that came or went meanwhile are found."""
        self._restart()
        self._go_on()
        self.events.look()

    def _restart(self) -> None:
        """The firmware forgets what it has, and works again."""
        firmware = self.firmware
        firmware.mask()
        firmware.wake()
        self.events.forget()
        if firmware.state == State.FAULT:
            firmware.reset_adapter()
        firmware.to_ready()
        self.commands[:] = [None] * len(self.commands)
        firmware.start()
        self.events.listen()

    def _go_on(self) -> None:
        scsi_unblock_requests(self.host)
        mod_timer(self._watch, FAULT_LOOK)

    # ---- faults ----

    def _look_for_fault(self) -> None:
        mod_timer(self._watch, FAULT_LOOK)
        self._check_state()

    def _check_state(self) -> None:
        """After a fault the controller is reset, once, by error handling, which is another world's."""
        if self.host.recovers:
            return
        was, self._faulty = self._faulty, self.firmware.faulty
        if self._faulty and not was:
            log.error("%s: the firmware has stopped with a fault; it is reset", self.pdev.name)
            self._faults.schedule_work(self._mend)

    def _mend(self) -> None:
        try:
            self.host.reset()
        except VmkError as error:
            log.error("%s: %s", self.pdev.name, error)

    # ---- what it is ----

    def info(self) -> str:
        """Product, firmware, and how its logical drives are."""
        drives = [str(drive) for drive in self.found.logical.values()]
        product, version = text(self.controller.product_name), text(self.controller.fw_version)
        return "; ".join([f"{product}, firmware {version}", *drives])

    def scan_start(self) -> None:
        """Ask the firmware for its drives."""
        self.found = inventory(self.firmware)

    def slave_alloc(self, device: ScsiDevice) -> bool:
        """Whether there is a drive with that address; ``hostdata`` is what the firmware calls it."""
        device.hostdata = target = (device.channel & 1) * CHANNEL_IDS + device.id
        if device.lun:
            return False
        if device.channel >= LD_CHANNEL:
            return target in self.found.logical
        return target in self.found.physical

    # ---- commands ----

    def queuecommand(self, commands: Sequence[ScsiCmnd]) -> int:
        """Make a frame of each and hand them over together."""
        slots, view, sense, firmware = (
            self.commands,
            self.firmware.memory.view,
            self.firmware.sense.dma,
            self.firmware,
        )
        handles = []
        for cmnd in commands:
            tag, sg, cdb, device = cmnd.tag, cmnd.sg, cmnd.cdb, cmnd.device
            slots[tag] = cmnd
            known = _TRANSFERS.get(cdb[0])
            if (
                known is None or len(cdb) != known[1].size or not sg
                or device.channel < LD_CHANNEL or device.block_size != SECTOR
            ):  # fmt: skip
                handles.append(self._pass(cmnd))
                continue
            code, layout, counts = known
            fields = layout.unpack(cdb)
            if fields[1] or fields[counts] * SECTOR != cmnd.length:
                handles.append(self._pass(cmnd))
                continue
            start, length = sg[0]
            _IO.pack_into(
                view, tag * FRAME_MOST, code, SENSE, _PENDING, device.hostdata, len(sg), tag, _WAYS[cmnd.direction],
                fields[counts], sense + tag * SENSE, fields[2], start, length,
            )  # fmt: skip
            if len(sg) > 1:
                self._put_segments(tag * FRAME_MOST + _IO.size, sg[1:])
            handles.append(firmware.handle(tag, IoFrame.size + len(sg) * _SEGMENT.size))
        firmware.post(handles)
        return len(commands)

    def _pass(self, cmnd: ScsiCmnd) -> int:
        """Make the frame of a command that goes to its drive as it is; its handle."""
        firmware, tag, device, cdb = self.firmware, cmnd.tag, cmnd.device, cmnd.cdb
        sense = firmware.sense.dma + tag * SENSE
        # QEMU takes no frame without a segment, so that a flush would fail; of this one nothing is moved.
        sg = cmnd.sg or ((sense, SENSE),)
        start, length = sg[0]
        _PASS.pack_into(
            firmware.memory.view, tag * FRAME_MOST, _LD_SCSI if device.channel >= LD_CHANNEL else _PD_SCSI, SENSE,
            _PENDING, device.hostdata, len(cdb), len(sg), tag, _WAYS[cmnd.direction], cmnd.length, sense, cdb,
            start, length,
        )  # fmt: skip
        if len(sg) > 1:
            self._put_segments(tag * FRAME_MOST + _PASS.size, sg[1:])
        return firmware.handle(tag, PassFrame.size + len(sg) * _SEGMENT.size)

    def _put_segments(self, at: int, sg: Sequence[tuple[int, int]]) -> None:
        view = self.firmware.memory.view
        for address, length in sg:
            _SEGMENT.pack_into(view, at, address, length)
            at += _SEGMENT.size

    def _interrupt(self) -> bool:
        replies = self.firmware.replies()
        if replies is None:
            return False
        done, slots, view = [], self.commands, self.firmware.memory.view
        own = self.firmware.commands
        for slot in replies:
            if slot < own:
                cmnd = slots[slot]
                if cmnd is not None:  # else it was forgotten
                    slots[slot] = None
                    if view[slot * FRAME_MOST + 2]:
                        self._failed(cmnd, slot)
                    done.append(cmnd)
            elif not self.firmware.answered(slot):
                log.warning("%s: a reply for frame %#x, which nobody sent", self.pdev.name, slot)
            else:
                self.events.answered(slot)
        if self.firmware.rang:
            self.firmware.rang = False
            self._check_state()
        self._idle.wake_up()
        scsi_done(done)
        return True

    def _failed(self, cmnd: ScsiCmnd, slot: int) -> None:
        """A frame that did not end well: what the mid-layer is told of it. MFI tells of no residual."""
        frame = self.firmware.table[slot]
        stat = frame.cmd_status
        cmnd.host = _HOST_STATUS.get(stat, HostStatus.ERROR)
        if cmnd.host != HostStatus.OK:
            return
        cmnd.status = (
            Status.RESERVATION_CONFLICT if stat == Stat.SCSI_RESERVATION_CONFLICT else frame.scsi_status
        )
        if cmnd.status == Status.CHECK_CONDITION:
            sense = self.firmware.sense.view[slot * SENSE : (slot + 1) * SENSE]
            cmnd.sense = bytes(sense[: frame.sense_len])
            sense[:] = bytes(SENSE)  # the next one may bring none, and not say so

    # ---- error handling ----

    def eh_abort(self, cmnd: ScsiCmnd) -> bool:
        """Abort its frame; what comes back of it is ignored."""
        if self.commands[cmnd.tag] is not cmnd:
            return True  # it has come back
        self.firmware.abort(cmnd.tag, timeout=10.0)
        return wait_event_timeout(self._idle, lambda: self.commands[cmnd.tag] is not cmnd, 5.0)

    def eh_device_reset(self, device: ScsiDevice) -> bool:
        """Reset a logical drive, where the firmware can."""
        if device.channel < LD_CHANNEL:
            return False
        self.firmware.dcmd(Dcmd.CLUSTER_RESET_LD, mbox=bytes([device.hostdata]), timeout=10.0)
        return wait_event_timeout(
            self._idle, lambda: not any(c is not None and c.device is device for c in self.commands), 5.0
        )

    def eh_host_reset(self) -> bool:
        """Bring the firmware to READY, which forgets all commands, and to work again."""
        if self.firmware.window.gone:
            raise DeviceGone("the controller has gone", where=self.pdev.name)
        self._restart()
        return True
