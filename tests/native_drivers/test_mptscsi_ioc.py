"""Fusion-MPT's message layer: the IOC's states, its doorbell, its queues, its pages and its resets.

Independent of us: QEMU's mptsas1068 (hw/scsi/mptsas.c, mptconfig.c).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator

import pytest

from native_drivers.scsi.mptscsi_2xx.config_pages import (
    IOC_2,
    MANUFACTURING_0,
    SAS_DEVICE_0,
    SAS_IO_UNIT_0,
)
from native_drivers.scsi.mptscsi_2xx.ioc import FIRST_CONTEXT, Ioc, IocError, Use
from native_drivers.scsi.mptscsi_2xx.messages import (
    CONFIG,
    CONFIG_REPLY,
    EVENT_ACK,
    EVENT_NOTIFY_REPLY,
    IOC_FACTS,
    IOC_FACTS_REPLY,
    PORT_FACTS,
    PORT_FACTS_REPLY,
    SCSI_TASK_MGMT,
    ConfigAction,
    Event,
    Function,
    IocStatus,
    PortType,
    Reply,
    TaskResponse,
    TaskType,
)
from native_drivers.scsi.mptscsi_2xx.registers import (
    DIAGNOSTIC,
    DOORBELL,
    DOORBELL_COMMAND,
    HOST_INTERRUPT_MASK,
    REQUEST_FIFO,
    WRITE_SEQUENCE,
    DoorbellFunction,
    IocState,
    WhoInit,
)
from native_drivers.scsi.mptscsi_2xx.topology import sas_targets
from tests.e2e.storage import WWN
from tests.native_drivers.fusion import IDS, LIMIT
from vmkernel_core._core import lib
from vmkernel_core.errors import DeviceGone, TimedOut
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.pci import scan
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.native.device import baton
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.native.irq import request_irq
from vmklinux.native.pci import PciDev, pci_enable_device, pci_iomap, pci_read_config, pci_set_master
from vmklinux.native.timer import msleep
from vmklinux.native.wait import WaitQueue, wait_event_timeout


class Lab:
    """An IOC that nobody has touched yet, and what it told."""

    def __init__(self, pdev: PciDev) -> None:
        self.pdev = pdev
        self.events: list[EVENT_NOTIFY_REPLY] = []
        self.news = WaitQueue()
        pci_enable_device(pdev)
        pci_set_master(pdev)
        self.ioc = Ioc(pdev, pci_iomap(pdev, 1), lambda _contexts, _replies: None, self.happened)
        request_irq(pdev, self.ioc.interrupt)

    def happened(self, event: EVENT_NOTIFY_REPLY) -> None:
        self.events.append(event)
        self.news.wake_up()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """QEMU's controller with disks 2 and 5; everything is done with the baton."""
    with MachineMemory(64 << 20) as memory:
        idle = IdleLoop(lambda _event: None, lambda: None)
        lib.vmk_irq_reset()
        null = ("-blockdev", "driver=null-co,node-name=a", "-blockdev", "driver=null-co,node-name=b")
        disks = [
            f"scsi-hd,drive={name},bus=hba.0,scsi-id={at},wwn={WWN + at:#x}"
            for name, at in (("a", 2), ("b", 5))
        ]
        platform = QemuPlatform(["mptsas1068,id=hba", *disks], arguments=null)
        platform.start(memory)
        lib.vmk_idle_watch(platform.bus.handle)
        idle.start()
        function = next(f for f in scan(platform) if (f.vendor, f.device) == IDS)
        pdev = PciDev(function, platform, "mptscsi_2xx", memory, idle)
        with baton():
            yield Lab(pdev)
            pdev.devres.release_all()
        assert pci_read_config(pdev, 4, 2) & 7 == 0
        idle.stop()
        lib.vmk_idle_unwatch(platform.bus.handle)
        platform.stop()


def test_it_is_brought_up(lab: Lab) -> None:
    ioc = lab.ioc
    assert ioc.state() == DOORBELL(STATE=IocState.READY)
    ioc.begin()
    assert ioc.state() == DOORBELL(STATE=IocState.OPERATIONAL, WHO_INIT=WhoInit.HOST_DRIVER)
    # mptsas_process_ioc_facts and mptsas_process_port_facts
    facts = ioc.facts
    assert (facts.MsgVersion, facts.MaxChainDepth, facts.ProductID) == (0x0105, 0x22, 0x2102)
    assert (facts.GlobalCredits, facts.ReplyQueueDepth, facts.RequestFrameSize) == (128, 128, 128)
    assert (facts.FWVersionMajor, facts.FWVersionMinor, facts.FWVersionUnit) == (1, 0x32, 0x92)
    assert (ioc.port.PortType, ioc.port.INITIATOR, ioc.port.TARGET, ioc.port.PortSCSIID) == (
        PortType.SAS,
        1,
        0,
        8,
    )
    now = ioc.handshake(IOC_FACTS(), IOC_FACTS_REPLY)
    assert (now.WhoInit, now.CurReplyFrameSize, now.MaxDevices, now.MaxBuses) == (
        WhoInit.HOST_DRIVER,
        128,
        8,
        1,
    )
    assert wait_event_timeout(lab.news, lambda: bool(lab.events), LIMIT)
    assert (lab.events[0].Event, lab.events[0].Data[0]) == (Event.EVENT_CHANGE, 1)


def test_its_pages_are_read(lab: Lab) -> None:
    ioc = lab.ioc
    ioc.begin()
    board = ioc.page(MANUFACTURING_0)
    assert board is not None
    assert (board.ChipName, board.ChipRevision[:4]) == (b"QEMU MPT Fusion\0", b"2.5\0")
    unit = ioc.page(SAS_IO_UNIT_0)
    assert unit is not None
    assert unit.NumPhys == 8
    raid = ioc.page(IOC_2)
    assert raid is not None
    assert (raid.NumActiveVolumes, raid.NumActivePhysDisks) == (0, 0)
    first, second = sas_targets(ioc)
    assert [(one.bus, one.id, one.sas_address) for one in (first, second)] == [
        (0, 2, WWN + 2),
        (0, 5, WWN + 5),
    ]
    by_target = 1 << 28  # MPI_SAS_DEVICE_PGAD_FORM_BUS_TARGET_ID
    device = ioc.page(SAS_DEVICE_0, by_target | 5)
    assert device is not None
    assert (device.SASAddress, device.DevHandle, device.PhyNum) == (WWN + 5, second.handle, 5)
    assert ioc.page(SAS_DEVICE_0, by_target | 3) is None


def test_what_it_refuses_is_an_error(lab: Lab) -> None:
    ioc = lab.ioc
    with pytest.raises(IocError, match=r"CONFIG ended with CONFIG_INVALID_TYPE \(0x21\)"):
        ioc.handshake(CONFIG(Action=ConfigAction.PAGE_HEADER, PageType=7), CONFIG_REPLY)
    assert ioc.handshake(PORT_FACTS(PortNumber=8), PORT_FACTS_REPLY).PortType == PortType.INACTIVE
    ioc.begin()
    with pytest.raises(IocError, match="SCSI_TASK_MGMT ended with SCSI_DEVICE_NOT_THERE"):
        ioc.manage(SCSI_TASK_MGMT(TaskType=TaskType.LOGICAL_UNIT_RESET, TargetID=1))
    reply = ioc.manage(SCSI_TASK_MGMT(TaskType=TaskType.QUERY_TASK, TargetID=2, TaskMsgContext=17))
    assert (reply.ResponseCode, reply.TerminationCount) == (TaskResponse.COMPLETE, 0)
    assert ioc.manage(SCSI_TASK_MGMT(TaskType=77, TargetID=2)).ResponseCode == TaskResponse.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("function", "use"),
    [(Function.SCSI_IO_REQUEST, Use.TASK_MANAGEMENT), (Function.SCSI_TASK_MGMT, None)],
    ids=["command", "request"],
)
def test_a_reply_with_a_number_of_another_kind_is_an_error(
    lab: Lab, function: Function, use: Use | None
) -> None:
    ioc = lab.ioc
    ioc.begin()
    number = 0 if use is None else ioc.most + use
    reply = Reply(Function=function, MsgContext=FIRST_CONTEXT + number)
    memory, at = ioc.frames.memory, ioc.frames.replies
    memory.view[at : at + reply.size] = bytes(reply)
    with pytest.raises(IocError, match="a reply to nothing that was asked"):
        ioc._fetch([memory.dma + at])


def test_it_is_reset_by_its_message_unit(lab: Lab) -> None:
    ioc = lab.ioc
    ioc.begin()
    ioc.restart()
    assert ioc.state().STATE == IocState.OPERATIONAL
    assert len(sas_targets(ioc)) == 2
    ioc.end()
    assert ioc.state().STATE == IocState.READY
    assert ioc.registers.read(HOST_INTERRUPT_MASK) == HOST_INTERRUPT_MASK(REPLY=1, DOORBELL=1)
    with pytest.raises(IocError, match="the IOC is stopped"):  # nobody waits for what never comes
        sas_targets(ioc)
    ioc.begin()
    assert len(sas_targets(ioc)) == 2


def post_nonsense(pdev: PciDev, ioc: Ioc) -> None:
    """Post a request that QEMU's IOC does not know: that stops it, as firmware may be stopped by worse."""
    frame = dma_alloc_coherent(pdev, EVENT_ACK.size)
    frame.view[: EVENT_ACK.size] = bytes(EVENT_ACK())
    ioc.registers.post(REQUEST_FIFO, [frame.dma])
    fault = ioc.registers.wait(DOORBELL, LIMIT, STATE=IocState.FAULT)
    assert fault.DATA == IocStatus.INVALID_FUNCTION


def test_after_a_fault_the_chip_is_reset(lab: Lab) -> None:
    ioc = lab.ioc
    ioc.begin()
    post_nonsense(lab.pdev, ioc)
    with pytest.raises(TimedOut, match="no reply to SCSI_TASK_MGMT came within"):
        ioc.manage(SCSI_TASK_MGMT(TaskType=TaskType.RESET_BUS), 0.1)
    with pytest.raises(TimedOut, match="an earlier request for task_management has not ended"):
        ioc.manage(SCSI_TASK_MGMT(TaskType=TaskType.RESET_BUS), 0.1)
    ioc.restart()
    assert ioc.state().STATE == IocState.OPERATIONAL
    assert ioc.registers.read(DIAGNOSTIC).DRWE == 0
    assert len(sas_targets(ioc)) == 2
    assert ioc.manage(SCSI_TASK_MGMT(TaskType=TaskType.RESET_BUS)).ResponseCode == TaskResponse.COMPLETE


def test_a_reset_takes_what_is_waited_for(lab: Lab) -> None:
    """Another world waits for a reply that never comes; nor is it kept waiting."""
    ioc, ends = lab.ioc, []
    ioc.begin()
    post_nonsense(lab.pdev, ioc)

    def wait() -> None:
        with baton(), pytest.raises(IocError, match="a reset took SCSI_TASK_MGMT"):
            ioc.manage(SCSI_TASK_MGMT(TaskType=TaskType.RESET_BUS), LIMIT)
        ends.append(True)

    world = threading.Thread(target=wait)
    world.start()
    for _ in range(1000):
        if Use.TASK_MANAGEMENT in ioc._pending:
            break
        msleep(10)
    assert Use.TASK_MANAGEMENT in ioc._pending
    assert not ends
    ioc.restart()
    lib.vmk_baton_drop()
    world.join(LIMIT)
    lib.vmk_baton_take()
    assert ends == [True]


def test_an_ioc_that_has_gone_says_so(lab: Lab) -> None:
    ioc = lab.ioc
    ioc.begin()
    lab.pdev.gone = True
    with pytest.raises(DeviceGone):
        ioc.state()
    with pytest.raises(DeviceGone):
        ioc.handshake(IOC_FACTS(), IOC_FACTS_REPLY)
    assert not ioc.interrupt()
    lab.pdev.gone = False


def test_registers_read_as_the_specification_names_them() -> None:
    assert repr(DOORBELL(0x4400_8112)) == "<DOORBELL 0x44008112 STATE=4 WHO_INIT=4 DATA=33042>"
    command = DOORBELL_COMMAND(FUNCTION=DoorbellFunction.HANDSHAKE, ADD_DWORDS=11)
    assert command.raw == 0x420B_0000
    assert WRITE_SEQUENCE(KEY=0xB).raw == 0xB
    # mpi_ioc.h, MSG_IOC_FACTS: the function at byte 3.
    assert bytes(IOC_FACTS(MsgContext=0x1234_5678)) == struct.pack("<3xB4xI", 3, 0x1234_5678)
