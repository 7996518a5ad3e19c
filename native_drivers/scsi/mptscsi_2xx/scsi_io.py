"""SCSI commands as request frames, their data as scatter/gather lists, and their ends (MPI specification 1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from native_drivers.scsi.mptscsi_2xx.ioc import FIRST_CONTEXT, LOW, Ioc
from native_drivers.scsi.mptscsi_2xx.messages import (
    CHAIN,
    HOST_TO_IOC,
    LAST_OF_ALL,
    LAST_OF_SEGMENT,
    NEXUS_LOSS,
    NEXUS_LOSS_MASK,
    NO_DATA_TRANSFER,
    READ,
    SCSI_IO,
    SCSI_IO_AND_SGE,
    SCSI_IO_REPLY,
    SGE,
    SIMPLE,
    WRITE,
    IocStatus,
)
from vmkernel_core.storage.command import Direction, HostStatus
from vmklinux.native.dma import dma_alloc_coherent
from vmklinux.scsi_policy import SENSE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmklinux.native.scsi_cmnd import ScsiCmnd
    from vmklinux.native.scsi_device import ScsiDevice

#: Function stays 0, which is that of SCSI_IO.
_COMMAND = SCSI_IO_AND_SGE.packed(
    SCSI_IO_AND_SGE.TargetID, SCSI_IO_AND_SGE.Bus, SCSI_IO_AND_SGE.ChainOffset, SCSI_IO_AND_SGE.CDBLength,
    SCSI_IO_AND_SGE.SenseBufferLength, SCSI_IO_AND_SGE.MsgContext, SCSI_IO_AND_SGE.LUN, SCSI_IO_AND_SGE.Control,
    SCSI_IO_AND_SGE.CDB, SCSI_IO_AND_SGE.DataLength, SCSI_IO_AND_SGE.SenseBufferLowAddr, SCSI_IO_AND_SGE.FlagsLength,
    SCSI_IO_AND_SGE.Address,
)  # fmt: skip
_ELEMENT = SGE.packed(SGE.FlagsLength, SGE.Address)
#: Segments at most that a command's data may lie in.
SEGMENTS_MOST = 128
#: Bytes of a CDB that SCSI_IO has room for.
CDB_MOST = SCSI_IO.CDB.size
_CONTROL = {
    Direction.NONE: (NO_DATA_TRANSFER, SIMPLE),
    Direction.TO_DEVICE: (WRITE, SIMPLE | HOST_TO_IOC),
    Direction.FROM_DEVICE: (READ, SIMPLE),
}
#: The device itself said how the command ended, or that there was less data than asked for, or more.
_BY_DEVICE: frozenset[int] = frozenset((
    IocStatus.SUCCESS, IocStatus.SCSI_RECOVERED_ERROR, IocStatus.SCSI_DATA_UNDERRUN, IocStatus.SCSI_DATA_OVERRUN,
    IocStatus.SCSI_RESIDUAL_MISMATCH,
))  # fmt: skip
#: Other ends, as the mid-layer calls them; what is not here may go better another time (SOFT_ERROR).
_BY_IOC: dict[int, HostStatus] = {
    IocStatus.BUSY: HostStatus.REQUEUE,
    IocStatus.INSUFFICIENT_RESOURCES: HostStatus.REQUEUE,
    IocStatus.SCSI_INVALID_BUS: HostStatus.BAD_TARGET,
    IocStatus.SCSI_INVALID_TARGETID: HostStatus.BAD_TARGET,
    IocStatus.SCSI_DEVICE_NOT_THERE: HostStatus.NO_CONNECT,
    IocStatus.SCSI_TASK_TERMINATED: HostStatus.RESET,
    IocStatus.SCSI_IOC_TERMINATED: HostStatus.RESET,
    IocStatus.SCSI_EXT_TERMINATED: HostStatus.RESET,
}


class Address(NamedTuple):
    """How the IOC is told of a logical unit; ``lun`` in the eight bytes of SAM-5, 4.7."""

    target: int
    bus: int
    lun: bytes


def address_of(device: ScsiDevice) -> Address:
    """The address of a device: channels are buses, ids target ids."""
    words = (device.lun >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    return Address(device.id, device.channel, b"".join(word.to_bytes(2, "big") for word in words))


class ScsiIo:
    """The commands that an IOC has: the tag of each is the number of its request frame.

    ``segments``: how many a command's data may lie in. What of their list does not fit behind the request in its frame
    is in chain buffers, which are as long as frames.
    """

    def __init__(self, ioc: Ioc) -> None:
        """``ioc`` has begun to work."""
        frames = ioc.frames
        self.commands: list[ScsiCmnd | None] = [None] * ioc.most
        self._ioc, self._frames = ioc, frames
        self._sense = (frames.memory.dma & LOW) + frames.sense
        #: Elements that a request frame has room for, and a chain buffer. Each but the last leads on by one of them.
        self._first = (frames.size - SCSI_IO.size) // _ELEMENT.size
        self._more = frames.size // _ELEMENT.size
        wanted = -(-(SEGMENTS_MOST - self._first) // (self._more - 1))
        chains = max(min(wanted, ioc.facts.MaxChainDepth), 0)
        self.segments = min(SEGMENTS_MOST, self._first + chains * (self._more - 1))
        self._chain_offset = (SCSI_IO.size + (self._first - 1) * _ELEMENT.size) // 4
        self._stride = max(chains, 1) * frames.size
        self._chains = dma_alloc_coherent(ioc.pdev, ioc.most * self._stride)
        ioc.pdev.devres.add(ioc.end)  # it has to forget the lists before these go

    def start(self, commands: Sequence[ScsiCmnd]) -> None:
        """Hand commands over."""
        size, sense, view, table = self._frames.size, self._sense, self._frames.memory.view, self.commands
        pack, first = _COMMAND.pack_into, self._first
        tags = []
        for cmnd in commands:
            tag, sg, cdb = cmnd.tag, cmnd.sg, cmnd.cdb
            target, bus, lun = cmnd.device.hostdata
            control, flags = _CONTROL[cmnd.direction]
            address, length = sg[0] if sg else (0, 0)
            chain = self._chain_offset if len(sg) > first else 0
            pack(
                view, tag * size, target, bus, chain, len(cdb), SENSE_SIZE, FIRST_CONTEXT + tag, lun, control, cdb,
                cmnd.length, sense + tag * SENSE_SIZE, flags | LAST_OF_ALL | length, address,
            )  # fmt: skip
            if len(sg) > 1:
                self._list(tag, sg, flags)
            table[tag] = cmnd
            tags.append(tag)
        self._ioc.start(tags)

    def _list(self, tag: int, sg: Sequence[tuple[int, int]], flags: int) -> None:
        """Write a scatter/gather list of several elements."""
        view, at, room = self._frames.memory.view, tag * self._frames.size + SCSI_IO.size, self._first
        done, buffer = 0, tag * self._stride
        while len(sg) - done > room:
            self._segment(view, at, sg[done : done + room - 1], flags, LAST_OF_SEGMENT)
            done += room - 1
            at += (room - 1) * _ELEMENT.size
            left, room = len(sg) - done, self._more
            leads_on = (room - 1) * _ELEMENT.size // 4 if left > room else 0
            length = min(left, room) * _ELEMENT.size
            _ELEMENT.pack_into(view, at, CHAIN | leads_on << 16 | length, self._chains.dma + buffer)
            view, at = self._chains.view, buffer
            buffer += self._frames.size
        self._segment(view, at, sg[done:], flags, LAST_OF_ALL)

    def _segment(
        self, view: memoryview, at: int, part: Sequence[tuple[int, int]], flags: int, last: int
    ) -> None:
        for address, length in part[:-1]:
            _ELEMENT.pack_into(view, at, flags | length, address)
            at += _ELEMENT.size
        address, length = part[-1]
        _ELEMENT.pack_into(view, at, flags | last | length, address)

    def ended(self, tags: Sequence[int], replies: Sequence[tuple[int, bytes]]) -> list[ScsiCmnd]:
        """The commands that have ended: those of the tags well, the others as the replies beside theirs say."""
        table, ended = self.commands, []
        for tag in tags:
            cmnd = table[tag]
            if cmnd is not None:
                table[tag] = None
                ended.append(cmnd)
        for tag, reply in replies:
            cmnd = table[tag]
            if cmnd is not None:
                table[tag] = None
                self._judge(cmnd, SCSI_IO_REPLY.of(reply))
                ended.append(cmnd)
        return ended

    def _judge(self, cmnd: ScsiCmnd, reply: SCSI_IO_REPLY) -> None:
        cmnd.residual = max(cmnd.length - reply.TransferCount, 0)
        status = reply.IOCStatus
        if status not in _BY_DEVICE:
            lost = reply.LOG_INFO_AVAILABLE and reply.IOCLogInfo & NEXUS_LOSS_MASK == NEXUS_LOSS
            disrupted = status == IocStatus.SCSI_IOC_TERMINATED and lost
            cmnd.host = (
                HostStatus.TRANSPORT_DISRUPTED if disrupted else _BY_IOC.get(status, HostStatus.SOFT_ERROR)
            )
        elif reply.AUTOSENSE_VALID:
            at = self._frames.sense + cmnd.tag * SENSE_SIZE
            cmnd.status = reply.SCSIStatus
            cmnd.sense = bytes(self._frames.memory.view[at : at + min(reply.SenseCount, SENSE_SIZE)])
        elif reply.AUTOSENSE_FAILED or reply.NO_SCSI_STATUS:
            cmnd.host = HostStatus.SOFT_ERROR
        elif reply.TERMINATED:
            cmnd.host = HostStatus.RESET
        else:
            cmnd.status = reply.SCSIStatus

    def forget(self) -> list[ScsiCmnd]:
        """The IOC was reset: it has none of them any more. Those that it had."""
        had = [cmnd for cmnd in self.commands if cmnd is not None]
        self.commands[:] = [None] * len(self.commands)
        return had
