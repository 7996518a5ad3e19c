"""SCSI hosts: their life, from scsi_host_alloc to the last reference (Linux drivers/scsi/hosts.c)."""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import VmkError
from vmkernel_core.memory import load, store
from vmklinux.api import linux_api
from vmklinux.blk_mq import map_queues
from vmklinux.device import (
    device_add,
    device_del,
    device_initialize,
    device_unregister,
    driver_name,
    get_device,
    put_device,
    set_name,
)
from vmklinux.kobject import Obj, addressof, container_of
from vmklinux.list import list_init
from vmklinux.pci import PciCore
from vmklinux.quirks import command_most
from vmklinux.sched import WaitQueue
from vmklinux.scsi import Device, Scsi
from vmklinux.scsi_error import ErrorHandler
from vmklinux.scsi_policy import RECOVERY, SCAN_LIMIT
from vmklinux.scsi_sysfs import Kinds, remove_device, transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmkernel_core.platform.base import PciAddress
    from vmkernel_core.storage.adapter import AdapterState, StorageAdapter
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

# include/scsi/scsi_host.h and include/linux/blkdev.h: what a driver that says nothing gets.
SCSI_DEFAULT_MAX_SECTORS, BLK_MAX_SEGMENT_SIZE, SCSI_DEFAULT_HOST_BLOCKED = 1024, 65536, 7
MODE_INITIATOR = 1
TASK_NORMAL = 3  # include/linux/sched.h


class Host:
    """A Scsi_Host: its C half (``handle``), its devices by address of their scsi_device, and its error handler.

    It is the driver's side of a StorageAdapter (AdapterDriver).
    """

    def __init__(self, linux: Linux, obj: Obj, owner: int) -> None:
        """Not added yet: there is no queue, and no device."""
        self.linux = linux
        self.scsi = linux.state(Scsi)
        self.obj = obj
        self.owner = owner
        self.handle = ffi.NULL
        self.devices: dict[int, Device] = {}
        self.targets: list[Obj] = []
        self.idle = WaitQueue()
        self._scanner = 0
        self._scanned = WaitQueue()
        self.errors = ErrorHandler(self)
        self.adapter: StorageAdapter | None = None
        self.driver_name = ""
        self._hctxs: list[int] = []
        self._maps: list[int] = []

    # ---- life ----

    @contextmanager
    def scanning(self) -> Iterator[None]:
        """Scsi_Host.scan_mutex: devices come and go one at a time. With the baton; TimedOut."""
        task = lib.vmk_world_task()
        if self._scanner == task:
            yield
            return
        self._scanned.wait_until(lambda: not self._scanner, "a scan of the host", SCAN_LIMIT)
        self._scanner = task
        try:
            yield
        finally:
            self._scanner = 0
            self._scanned.wake_up()

    def open(self) -> None:
        """scsi_mq_setup_tags: queues and tags."""
        shost, linux = self.obj, self.linux
        queues = shost.nr_hw_queues or 1
        tag_set = shost.tag_set
        tag_set.nr_hw_queues, tag_set.queue_depth = queues, shost.can_queue
        tag_set.cmd_size = self.scsi.types.sizeof("scsi_cmnd") + shost.hostt.cmd_size
        tag_set.nr_maps = shost.nr_maps or 1
        for index in range(tag_set.nr_maps):
            self._maps.append(linux.allocate(4 * linux.cpus))
            tag_set.map[index].mq_map = self._maps[-1]
            tag_set.map[index].nr_queues = queues
        if shost.hostt.map_queues:
            linux.call(shost.hostt.map_queues, shost, owner=self.owner)
        else:
            map_queues(linux, tag_set.map[0])
        for number in range(queues):
            hctx = linux.new("blk_mq_hw_ctx")
            hctx.queue_num = number
            self._hctxs.append(int(hctx))
        chosen = [self._hctxs[load(self._maps[0] + 4 * cpu, 4)] for cpu in range(linux.cpus)]
        sets = 1 if shost.host_tagset else queues
        self.handle = lib.linux_scsi_host_create(int(shost), self.owner, chosen, linux.cpus, sets)
        if self.handle == ffi.NULL:
            raise VmkError("too many SCSI hosts in one process", remedy="start another process")
        self._maps.append(linux.allocate(8 * queues))
        tag_set.tags = self._maps[-1]
        for number in range(queues):
            store(self._maps[-1] + 8 * number, 8, lib.linux_scsi_host_tags(self.handle, number))
        self.errors.start()

    def end(self) -> None:
        """The hardware or the driver is dead: every command ends now.

        So does error handling, but for a driver's own, whose end the driver waits for when it lets go of the device.
        """
        if self.handle != ffi.NULL:
            if lost := lib.linux_scsi_host_end(self.handle):
                self.scsi.lost[self.owner] = self.scsi.lost.get(self.owner, 0) + lost
            if not self.obj.transportt.eh_strategy_handler:
                self.errors.cut()

    def release(self) -> None:
        """Give back what belongs to this side; the Scsi_Host itself is the driver's."""
        self.errors.stop()
        self.scsi.hosts.pop(int(self.obj), None)
        for device in list(self.devices.values()):
            device.queue.end()
        if self.handle != ffi.NULL:
            lib.linux_scsi_host_free(self.handle)
            self.handle = ffi.NULL
        while self._hctxs:
            self.linux.free(self._hctxs.pop())
        while self._maps:
            self.linux.free(self._maps.pop())

    def forget(self, device: Device) -> None:
        """A device has gone."""
        self.devices.pop(int(device.obj), None)

    def set_state(self, name: str) -> None:
        """Bring the host into a state of ``enum scsi_host_state``; ``SHOST_`` is put before the name."""
        self.obj.shost_state = self.scsi.enum(f"SHOST_{name}")

    def _is(self, name: str) -> bool:
        return bool(self.obj.shost_state == self.scsi.enum(f"SHOST_{name}"))

    def recover(self) -> bool:
        """Begin error handling: no new command goes out. False for a host that is not, or no longer, in use."""
        for name, recovery in RECOVERY.items():
            if self._is(name):
                self.set_state(recovery)
        return self.recovers

    @property
    def recovers(self) -> bool:
        """Whether error handling runs, or is about to."""
        return any(self._is(recovery) for recovery in RECOVERY.values())

    def recovered(self) -> None:
        """Error handling has ended; whoever waits for that is woken."""
        for name, recovery in RECOVERY.items():
            if self._is(recovery):
                self.set_state(name)
        wait = addressof(self.obj, "host_wait")
        self.linux.call("__wake_up", wait, TASK_NORMAL, 0, 0)

    def go(self, name: str) -> None:
        """Go to CANCEL or DEL; while it recovers, in recovery."""
        self.set_state(RECOVERY[name] if self.recovers else name)

    # ---- AdapterDriver ----

    def pci_address(self) -> PciAddress | None:
        """Of the PCI device that it is, or hangs behind."""
        below = self.linux.state(PciCore).of(self.obj.dma_dev)
        return below.function.address if below else None

    def model(self) -> str:
        """scsi_host_template.info, else its name; on one line."""
        template = self.obj.hostt
        text = self.linux.call(template.info, self.obj, owner=self.owner) if template.info else template.name
        return " ".join(self.linux.string(text).split())

    def state(self) -> AdapterState:
        """How it is, by its state in Linux."""
        if self._is("RUNNING"):
            return "online"
        return "recovering" if self.recovers else "dead"

    def queue_depth(self) -> int:
        """Scsi_Host.can_queue."""
        return int(self.obj.can_queue)

    def iscsi(self) -> None:
        """None: Linux's initiators are told of their targets over netlink, which is not served."""

    def rescan(self) -> None:
        """scsi_scan_host_selected, over everything."""
        from vmklinux.scsi_scan import rescan_host

        with self.linux.baton():
            rescan_host(self)

    def reset(self) -> None:
        """What a write to host_reset in sysfs, or SG_SCSI_RESET, does."""
        self.errors.reset_host()


@linux_api()
def scsi_host_alloc(linux: Linux, sht: Obj, privsize: int) -> int:
    """Allocate a Scsi_Host with room for the driver's data; 0 when there is no memory."""
    scsi, kinds, owner = linux.state(Scsi), linux.state(Kinds), lib.vmk_owner()
    shost = scsi.new("Scsi_Host", privsize, owner)
    shost.host_lock = addressof(shost, "default_lock")
    shost.shost_state = scsi.enum("SHOST_CREATED")
    for path in (
        "__devices", "__targets", "starved_list", "eh_abort_list", "eh_cmd_q", "host_wait.head", "scan_mutex.wait_list",
    ):  # fmt: skip
        list_init(linux, addressof(shost, path))
    shost.host_no, scsi.numbers = scsi.numbers, scsi.numbers + 1
    shost.dma_channel = 0xFF
    shost.max_id = shost.max_lun = 8
    shost.transportt = kinds.no_transport
    shost.max_cmd_len = 12
    shost.hostt = sht
    for name in ("this_id", "can_queue", "sg_tablesize", "sg_prot_tablesize", "cmd_per_lun", "no_write_same",
                 "host_tagset", "virt_boundary_mask"):  # fmt: skip
        setattr(shost, name, getattr(sht, name))
    shost.eh_deadline = -1
    shost.active_mode = sht.supported_mode or MODE_INITIATOR
    shost.max_host_blocked = sht.max_host_blocked or SCSI_DEFAULT_HOST_BLOCKED
    shost.max_sectors = sht.max_sectors or SCSI_DEFAULT_MAX_SECTORS
    shost.max_segment_size = sht.max_segment_size or BLK_MAX_SEGMENT_SIZE
    shost.dma_boundary = sht.dma_boundary or 0xFFFF_FFFF
    for path in ("shost_gendev", "shost_dev"):
        device_initialize(linux, getattr(shost, path))
        set_name(linux, getattr(shost, path), f"host{shost.host_no}")
    shost.shost_gendev.bus, shost.shost_gendev.type = kinds.bus, kinds.host
    shost.shost_dev.parent = shost.shost_gendev
    setattr(shost.shost_dev, "class", kinds.host_class)
    scsi.hosts[int(shost)] = Host(linux, shost, owner)
    return int(shost)


@linux_api()
def scsi_add_host_with_dma(linux: Linux, shost: Obj, dev: Obj, dma_dev: Obj) -> int:
    """Make a host known: it becomes an adapter; 0 or an errno."""
    scsi = linux.state(Scsi)
    host = scsi.hosts[int(shost)]
    if shost.can_queue <= 0:
        return -errno.EINVAL
    shost.cmd_per_lun = min(shost.cmd_per_lun, shost.can_queue)
    if not shost.shost_gendev.parent:
        shost.shost_gendev.parent = dev
    parent = shost.shost_gendev.parent
    shost.dma_dev = dma_dev or parent
    for field, most in command_most(linux, shost.dma_dev).items():
        setattr(shost, field, min(getattr(shost, field), most))
    host.driver_name = driver_name(linux, shost.dma_dev) or linux.string(shost.hostt.proc_name)
    host.open()
    try:
        error = _appear(linux, host)
    except BaseException:
        host.errors.stop()
        raise
    if not error:
        log.info("host%d: %s", shost.host_no, host.model())
        scsi.on_host(host)
    return error


def _appear(linux: Linux, host: Host) -> int:
    shost = host.obj
    if error := device_add(linux, shost.shost_gendev):
        return error
    host.set_state("RUNNING")
    get_device(linux, shost.shost_gendev.parent)
    get_device(linux, shost.shost_gendev)
    if error := device_add(linux, shost.shost_dev):
        return error
    template = shost.transportt
    if template.host_size:
        shost.shost_data = linux.allocate(template.host_size, host.owner)
    if template.create_work_queue:
        name = linux.new_string(f"scsi_wq_{shost.host_no}")
        shost.work_q = linux.call(linux.entry("alloc_workqueue"), name, 0, 1, owner=host.owner)
        linux.free(name)
    for what in ("setup", "add", "configure"):
        transport(linux, what, shost.shost_gendev)
    return 0


@linux_api()
def scsi_remove_host(linux: Linux, shost: Obj) -> None:
    """Take a host away with all its devices."""
    scsi = linux.state(Scsi)
    host = scsi.host(shost)
    if host is None:
        return
    host.go("CANCEL")
    lib.linux_scsi_run(host.handle)
    with host.scanning():
        for device in list(host.devices.values())[::-1]:
            remove_device(linux, device)
    host.go("DEL")
    scsi.on_host_gone(host)
    for what in ("remove", "destroy"):
        transport(linux, what, shost.shost_gendev)
    device_unregister(linux, shost.shost_dev)
    device_del(linux, shost.shost_gendev)
    host.errors.stop()


@linux_api()
def scsi_host_get(linux: Linux, shost: Obj) -> int:
    """Take a reference; the host, or 0 for one that goes."""
    scsi = linux.state(Scsi)
    return (
        int(shost)
        if shost.shost_state != scsi.enum("SHOST_DEL") and get_device(linux, shost.shost_gendev)
        else 0
    )


@linux_api()
def scsi_host_put(linux: Linux, t: Obj) -> None:
    """Drop it."""
    put_device(linux, t.shost_gendev)


@linux_api()
def scsi_host_lookup(linux: Linux, hostnum: int) -> int:
    """The host with that number, with a reference; 0 for none."""
    for host in linux.state(Scsi).hosts.values():
        if host.obj.host_no == hostnum:
            return scsi_host_get(linux, host.obj)
    return 0


@linux_api()
def scsi_host_cls_release(linux: Linux, dev: Obj) -> None:
    """The class device of a host has ended."""
    put_device(linux, container_of(dev, linux.state(Scsi).types, "Scsi_Host", "shost_dev").shost_gendev)


@linux_api()
def scsi_host_dev_release(linux: Linux, dev: Obj) -> None:
    """The last reference to a host has gone: free it."""
    scsi = linux.state(Scsi)
    shost = container_of(dev, scsi.types, "Scsi_Host", "shost_gendev")
    parent = dev.parent
    created = shost.shost_state == scsi.enum("SHOST_CREATED")
    if shost.work_q:
        linux.call(linux.entry("destroy_workqueue"), shost.work_q)
    if host := scsi.host(shost):
        host.release()
    if created:  # shost_dev was never added, so nobody has freed its name
        linux.free(shost.shost_dev.kobj.name)
    if shost.shost_data:
        linux.free(shost.shost_data)
    linux.free(shost)
    if not created:
        put_device(linux, parent)


@linux_api()
def scsi_queue_work(linux: Linux, shost: Obj, work: Obj) -> int:
    """Queue an item on the host's own queue; whether it did not wait already, -EINVAL without such a queue."""
    if not shost.work_q:
        return -errno.EINVAL
    return linux.call_int(linux.entry("queue_work_on"), 0, shost.work_q, work)


@linux_api()
def scsi_flush_work(linux: Linux, shost: Obj) -> None:
    """Wait until that queue is empty."""
    if shost.work_q:
        linux.call(linux.entry("__flush_workqueue"), shost.work_q)
