"""Messages between host and IOC: requests, replies and what events carry, the same for SPI, FC and SAS.

Names and places are the MPI specification's, version 1.5, as LSI published them in mpi.h, mpi_ioc.h, mpi_init.h and
mpi_cnfg.h (FreeBSD's sys/dev/mpt/mpilib). Message lengths are in words of four bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Self, TypeVar

from vmklinux.native.descriptor import Descriptor, octets, u8, u16, u32, u64

D = TypeVar("D", bound=Descriptor)


class Function(IntEnum):
    """What a message is (mpi.h, message functions)."""

    SCSI_IO_REQUEST = 0x00
    SCSI_TASK_MGMT = 0x01
    IOC_INIT = 0x02
    IOC_FACTS = 0x03
    CONFIG = 0x04
    PORT_FACTS = 0x05
    PORT_ENABLE = 0x06
    EVENT_NOTIFICATION = 0x07
    EVENT_ACK = 0x08


class IocStatus(IntEnum):
    """How a request ended (mpi.h, IOCStatus values)."""

    SUCCESS = 0x00
    INVALID_FUNCTION = 0x01
    BUSY = 0x02
    INVALID_SGL = 0x03
    INTERNAL_ERROR = 0x04
    INSUFFICIENT_RESOURCES = 0x06
    INVALID_FIELD = 0x07
    INVALID_STATE = 0x08
    OP_STATE_NOT_SUPPORTED = 0x09
    CONFIG_INVALID_ACTION = 0x20
    CONFIG_INVALID_TYPE = 0x21
    CONFIG_INVALID_PAGE = 0x22
    CONFIG_INVALID_DATA = 0x23
    CONFIG_NO_DEFAULTS = 0x24
    CONFIG_CANT_COMMIT = 0x25
    SCSI_RECOVERED_ERROR = 0x40
    SCSI_INVALID_BUS = 0x41
    SCSI_INVALID_TARGETID = 0x42
    SCSI_DEVICE_NOT_THERE = 0x43
    SCSI_DATA_OVERRUN = 0x44
    SCSI_DATA_UNDERRUN = 0x45
    SCSI_IO_DATA_ERROR = 0x46
    SCSI_PROTOCOL_ERROR = 0x47
    SCSI_TASK_TERMINATED = 0x48
    SCSI_RESIDUAL_MISMATCH = 0x49
    SCSI_TASK_MGMT_FAILED = 0x4A
    SCSI_IOC_TERMINATED = 0x4B
    SCSI_EXT_TERMINATED = 0x4C


#: The version of the specification that these are of, and the unit of its headers (mpi.h).
MPI_VERSION, HEADER_VERSION = 0x0105, 0x1000
#: No reply is longer.
REPLY_MOST = 128


class Request(Descriptor):
    """What every request begins with (MSG_REQUEST_HEADER). ``function`` is its kind's."""

    function: ClassVar[Function]
    size = 12
    ChainOffset, Function, MsgFlags, MsgContext = u8(2), u8(3), u8(7), u32(8)

    def __init__(self, **values: int | bytes) -> None:
        """A request of its kind, with these fields. FieldError."""
        super().__init__(Function=self.function, **values)


class Reply(Descriptor):
    """What every reply begins with (MSG_DEFAULT_REPLY); ``MsgLength`` in words."""

    size = 20
    MsgLength, Function, MsgFlags, MsgContext = u8(2), u8(3), u8(7), u32(8)
    IOCStatus, LOG_INFO_AVAILABLE, IOCLogInfo = u16(14).bits(0, 14), u16(14).bit(15), u32(16)

    @classmethod
    def of(cls, message: bytes) -> Self:
        """The reply in these bytes; what an older IOC does not tell is 0."""
        return cls.at(memoryview(bytearray(message.ljust(cls.size, b"\0"))))


#: Flags of scatter/gather elements, in the upper byte of their first word, whose rest is a length (mpi.h). All elements
#: of this driver's have addresses of 64 bits.
SIMPLE, CHAIN, HOST_TO_IOC = 0x12 << 24, 0x32 << 24, 0x04 << 24
#: The last element before a chain element; the last one of all.
LAST_OF_SEGMENT, LAST_OF_ALL = 0x80 << 24, 0xC1 << 24
#: A list of one element, for data that comes.
ONLY_ELEMENT = SIMPLE | LAST_OF_ALL


class SGE(Descriptor):
    """An element of a scatter/gather list: flags and length, then where the data, or the rest of the list, is."""

    size = 12
    FlagsLength, Address = u32(0), u64(4)


# ---- bringing an IOC up ----


class IOC_FACTS(Request):
    """What are you?"""

    function, size = Function.IOC_FACTS, 12


class IOC_FACTS_REPLY(Reply):
    """Frame size in words; how many requests and replies there may be at once."""

    size = 80
    MsgVersion, HeaderVersion, IOCNumber = u16(0), u16(4), u8(6)
    IOCExceptions = u16(12)
    MaxChainDepth, WhoInit, BlockSize, Flags = u8(20), u8(21), u8(22), u8(23)
    ReplyQueueDepth, RequestFrameSize, ProductID = u16(24), u16(26), u16(30)
    CurrentHostMfaHighAddr, GlobalCredits = u32(32), u16(36)
    NumberOfPorts, EventState = u8(38), u8(39)
    CurrentSenseBufferHighAddr, CurReplyFrameSize = u32(40), u16(44)
    MaxDevices, MaxBuses = u8(46), u8(47)
    FWImageSize, IOCCapabilities = u32(48), u32(52)
    FWVersionDev, FWVersionUnit, FWVersionMinor, FWVersionMajor = u8(56), u8(57), u8(58), u8(59)
    HighPriorityQueueDepth = u16(60)


class IOC_INIT(Request):
    """Begin to work. Addresses are the upper 32 bits of all frames and of all sense buffers; MaxDevices 0 is 256."""

    function, size = Function.IOC_INIT, 44
    WhoInit, Flags, MaxDevices, MaxBuses = u8(0), u8(4), u8(5), u8(6)
    ReplyFrameSize, HostMfaHighAddr, SenseBufferHighAddr = u16(12), u32(16), u32(20)
    ReplyFifoHostSignalingAddr = u32(24)
    MsgVersion, HeaderVersion = u16(40), u16(42)


class IOC_INIT_REPLY(Reply):
    """What of it the IOC took."""

    WhoInit, Flags, MaxDevices, MaxBuses = u8(0), u8(4), u8(5), u8(6)


class PORT_FACTS(Request):
    """What is your port?"""

    function, size = Function.PORT_FACTS, 12
    PortNumber = u8(6)


class PortType(IntEnum):
    """PORT_FACTS_REPLY.PortType."""

    INACTIVE = 0x00
    SCSI = 0x01
    FC = 0x10
    ISCSI = 0x20
    SAS = 0x30


class PORT_FACTS_REPLY(Reply):
    """MaxDevices: how many targets it can have. PortSCSIID: its own id among them."""

    size = 40
    PortNumber, PortType, MaxDevices, PortSCSIID = u8(6), u8(21), u16(22), u16(24)
    LOGBUSADDR, LAN, TARGET, INITIATOR = u16(26).bit(0), u16(26).bit(1), u16(26).bit(2), u16(26).bit(3)
    MaxPostedCmdBuffers, MaxPersistentIDs, MaxLanBuckets, MaxInitiators = u16(28), u16(30), u16(32), u8(34)


class PORT_ENABLE(Request):
    """Look for devices; the reply comes when that is done."""

    function, size = Function.PORT_ENABLE, 12
    PortNumber = u8(6)


class PORT_ENABLE_REPLY(Reply):
    """Done."""

    PortNumber = u8(6)


# ---- events ----


class Event(IntEnum):
    """EVENT_NOTIFY_REPLY.Event (mpi_ioc.h)."""

    NONE = 0x00
    LOG_DATA = 0x01
    STATE_CHANGE = 0x02
    UNIT_ATTENTION = 0x03
    IOC_BUS_RESET = 0x04
    EXT_BUS_RESET = 0x05
    RESCAN = 0x06
    LINK_STATUS_CHANGE = 0x07
    LOOP_STATE_CHANGE = 0x08
    LOGOUT = 0x09
    EVENT_CHANGE = 0x0A
    INTEGRATED_RAID = 0x0B
    SCSI_DEVICE_STATUS_CHANGE = 0x0C
    ON_BUS_TIMER_EXPIRED = 0x0D
    QUEUE_FULL = 0x0E
    SAS_DEVICE_STATUS_CHANGE = 0x0F
    SAS_SES = 0x10
    PERSISTENT_TABLE_FULL = 0x11
    SAS_PHY_LINK_STATUS = 0x12
    SAS_DISCOVERY_ERROR = 0x13
    IR_RESYNC_UPDATE = 0x14
    IR2 = 0x15
    SAS_DISCOVERY = 0x16
    SAS_BROADCAST_PRIMITIVE = 0x17
    LOG_ENTRY_ADDED = 0x21


class EVENT_NOTIFY(Request):
    """Tell of events from now on (Switch 1), or no more."""

    function, size = Function.EVENT_NOTIFICATION, 12
    Switch = u8(0)


class EVENT_NOTIFY_REPLY(Reply):
    """An event; ``Data`` is what it carries, EventDataLength words of it."""

    size = REPLY_MOST
    EventDataLength, AckRequired = u16(0), u8(6)
    Event, EventContext, Data = u32(20), u32(24), octets(28, REPLY_MOST - 28)

    def data(self, kind: type[D]) -> D:
        """What it carries, as that kind of event has it."""
        return kind.at(memoryview(self.Data))


class EVENT_ACK(Request):
    """An event that asked for it was seen; both fields are the event's."""

    function, size = Function.EVENT_ACK, 20
    Event, EventContext = u32(12), u32(16)


class SasDeviceReason(IntEnum):
    """SAS_DEVICE_STATUS_CHANGE.ReasonCode (mpi_ioc.h) of devices that came or went."""

    ADDED = 0x03
    NOT_RESPONDING = 0x04
    NO_PERSIST_ADDED = 0x06


class SAS_DEVICE_STATUS_CHANGE(Descriptor):
    """Event data: a device came, went, or was reset."""

    size = 36
    TargetID, Bus, ReasonCode, ASC, ASCQ = u8(0), u8(1), u8(2), u8(4), u8(5)
    DevHandle, DeviceInfo, ParentDevHandle, PhyNum = u16(6), u32(8), u16(12), u8(14)
    SASAddress, LUN, TaskTag = u64(16), octets(24, 8), u16(32)


class SAS_DISCOVERY(Descriptor):
    """Event data: discovery begins (status 1), or has ended (0)."""

    size = 8
    DiscoveryStatus = u32(0)


class QUEUE_FULL(Descriptor):
    """Event data: a device took no more than so many commands."""

    size = 4
    TargetID, Bus, CurrentDepth = u8(0), u8(1), u16(2)


# ---- commands ----


class SCSI_IO(Request):
    """A SCSI command; its scatter/gather list follows at SGL. ChainOffset in words, 0 without a chain."""

    function, size = Function.SCSI_IO_REQUEST, 48
    TargetID, Bus, CDBLength, SenseBufferLength = u8(0), u8(1), u8(4), u8(5)
    LUN, Control, CDB = octets(12, 8), u32(20), octets(24, 16)
    DataLength, SenseBufferLowAddr = u32(40), u32(44)


class SCSI_IO_AND_SGE(SCSI_IO):
    """The same with the first element of its list."""

    size = SCSI_IO.size + SGE.size
    FlagsLength, Address = u32(SCSI_IO.size), u64(SCSI_IO.size + 4)


#: SCSI_IO.Control: direction of data (mpi_init.h). The task attribute 0 is simple.
NO_DATA_TRANSFER, WRITE, READ = 0x0000_0000, 0x0100_0000, 0x0200_0000


class SCSI_IO_REPLY(Reply):
    """The end of a command that needs words."""

    size = 36
    TargetID, Bus, SCSIStatus = u8(0), u8(1), u8(12)
    AUTOSENSE_VALID, AUTOSENSE_FAILED, NO_SCSI_STATUS = u8(13).bit(0), u8(13).bit(1), u8(13).bit(2)
    TERMINATED, RESPONSE_INFO_VALID, QUEUE_TAG_REJECTED = u8(13).bit(3), u8(13).bit(4), u8(13).bit(5)
    TransferCount, SenseCount, ResponseInfo, TaskTag = u32(20), u32(24), u32(28), u16(32)


#: SCSI_IO_REPLY.IOCLogInfo of a SAS IOC that lost its device for now (mpi_log_sas.h), and the bits that tell.
NEXUS_LOSS, NEXUS_LOSS_MASK = 0x3117_0000, 0xFFFF_0000


class TaskType(IntEnum):
    """SCSI_TASK_MGMT.TaskType (mpi_init.h)."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    TARGET_RESET = 3
    RESET_BUS = 4
    LOGICAL_UNIT_RESET = 5
    CLEAR_TASK_SET = 6
    QUERY_TASK = 7


class SCSI_TASK_MGMT(Request):
    """End commands: TaskMsgContext is that of the one to abort."""

    function, size = Function.SCSI_TASK_MGMT, 52
    TargetID, Bus, TaskType = u8(0), u8(1), u8(5)
    LUN, TaskMsgContext = octets(12, 8), u32(48)


class TaskResponse(IntEnum):
    """SCSI_TASK_MGMT_REPLY.ResponseCode (SAM's service responses)."""

    COMPLETE = 0x00
    INVALID_FRAME = 0x02
    NOT_SUPPORTED = 0x04
    FAILED = 0x05
    SUCCEEDED = 0x08
    INVALID_LUN = 0x09
    QUEUED_ON_IOC = 0x80


class SCSI_TASK_MGMT_REPLY(Reply):
    """TerminationCount: commands that were ended by it."""

    size = 24
    TargetID, Bus, ResponseCode, TaskType, TerminationCount = u8(0), u8(1), u8(4), u8(5), u32(20)


# ---- configuration pages ----


class ConfigAction(IntEnum):
    """CONFIG.Action (mpi_cnfg.h)."""

    PAGE_HEADER = 0
    PAGE_READ_CURRENT = 1
    PAGE_WRITE_CURRENT = 2
    PAGE_DEFAULT = 3


class CONFIG(Request):
    """Read a page, or its header: PageLength, of an extended page ExtPageLength, is in words."""

    function, size = Function.CONFIG, 40
    Action, ExtPageLength, ExtPageType = u8(0), u16(4), u8(6)
    PageVersion, PageLength, PageNumber, PageType = u8(20), u8(21), u8(22), u8(23)
    PageAddress, FlagsLength, BufferAddress = u32(24), u32(28), u64(32)


class CONFIG_REPLY(Reply):
    """The page's header."""

    size = 24
    Action, ExtPageLength, ExtPageType = u8(0), u16(4), u8(6)
    PageVersion, PageLength, PageNumber, PageType = u8(20), u8(21), u8(22), u8(23)
