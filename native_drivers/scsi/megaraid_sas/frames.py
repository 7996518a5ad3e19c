"""MFI: the message frames between host and firmware, and what is in them (FreeBSD sys/dev/mfi/mfireg.h).

A frame is a header and what its command needs, then its scatter list, in pieces of 64 bytes. The firmware writes the
frame's ``context`` into the reply queue when it is done with it, and ``cmd_status`` into the frame.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from vmklinux.native.descriptor import Descriptor, octets, u8, u16, u32, u64

#: Bytes of a piece of a frame, of a frame with all its pieces (IQP.EXTRA counts to 15), of a frame's sense data.
PIECE, FRAME_MOST, SENSE = 64, 1024, 128
#: Logical drives that the firmware lists, and bytes of a logical block as the firmware counts them.
MAX_LD, SECTOR = 64, 512


class Cmd(IntEnum):
    """What a frame asks for."""

    INIT = 0x00
    LD_READ = 0x01
    LD_WRITE = 0x02
    LD_SCSI_IO = 0x03
    PD_SCSI_IO = 0x04
    DCMD = 0x05
    ABORT = 0x06


class Dcmd(IntEnum):
    """Direct commands, for the controller itself."""

    CTRL_GET_INFO = 0x01010000
    CTRL_EVENT_GETINFO = 0x01040100
    CTRL_EVENT_WAIT = 0x01040500
    CTRL_SHUTDOWN = 0x01050000
    HIBERNATE_STANDBY = 0x01060000
    CTRL_CACHE_FLUSH = 0x01101000
    PD_LIST_QUERY = 0x02010100
    PD_GET_INFO = 0x02020000
    LD_GET_LIST = 0x03010000
    LD_GET_INFO = 0x03020000
    CFG_READ = 0x04010000
    CLUSTER_RESET_LD = 0x08010200


class Flag(IntFlag):
    """Of a frame."""

    DONT_POST = 0x01  # in the reply queue: whoever sent it looks at cmd_status
    SGL64 = 0x02
    SENSE64 = 0x04
    DIR_WRITE = 0x08
    DIR_READ = 0x10


class Stat(IntEnum):
    """What became of a frame; there are more."""

    OK = 0x00
    DEVICE_NOT_FOUND = 0x0C
    LD_INIT_IN_PROGRESS = 0x18
    SCSI_DONE_WITH_ERROR = 0x2D
    SCSI_IO_FAILED = 0x2E
    SCSI_RESERVATION_CONFLICT = 0x2F
    LD_OFFLINE = 0x33
    PENDING = 0xFF


#: Which caches CTRL_CACHE_FLUSH is about: the controller's, and the disks'.
FLUSH_CTRL, FLUSH_DISK = 0x01, 0x02
#: Which physical drives PD_LIST_QUERY lists: those that the host may use by themselves.
PD_EXPOSED_TO_HOST = 5
#: Classes of events, EventDetail.evt_class (a signed byte); there are worse ones than critical.
DEBUG, PROGRESS, INFO, WARNING, CRITICAL = 0xFE, 0xFF, 0, 1, 2
#: Class "progress" and all locales: events that CTRL_EVENT_WAIT waits for.
EVENTS = PROGRESS << 24 | 0xFFFF


class Header(Descriptor):
    """What every frame begins with; of a DCMD as far as its scatter list."""

    size = 24
    frame_cmd, sense_len, cmd_status, scsi_status = u8(0), u8(1), u8(2), u8(3)
    target_id, lun_id, cdb_len, sge_count = u8(4), u8(5), u8(6), u8(7)
    context = u32(8)
    flags, timeout, data_len = u16(16), u16(18), u32(20)


class Segment(Descriptor):
    """A segment of a scatter list, with SGL64."""

    size = 12
    addr, length = u64(0), u32(8)


class InitFrame(Header):
    """INIT: where the reply queue is described."""

    size = 64
    qinfo = u64(24)


class InitQinfo(Descriptor):
    """The reply queue: how many entries it has and where they are, and the indices of producer and consumer."""

    size = 32
    flags, rq_entries = u32(0), u32(4)
    rq_addr, pi_addr, ci_addr = u64(8), u64(16), u64(24)


class IoFrame(Header):
    """LD_READ and LD_WRITE: ``data_len`` blocks from ``lba`` on."""

    size = 40
    sense_addr, lba = u64(24), u64(32)


class IoSegment(IoFrame):
    """The same with the first segment of its scatter list."""

    size = IoFrame.size + Segment.size
    sg_addr, sg_len = u64(IoFrame.size), u32(IoFrame.size + 8)


class PassFrame(Header):
    """LD_SCSI_IO and PD_SCSI_IO: a CDB, and ``data_len`` bytes."""

    size = 48
    sense_addr = u64(24)
    cdb = octets(32, 16)


class PassSegment(PassFrame):
    """The same with the first segment of its scatter list."""

    size = PassFrame.size + Segment.size
    sg_addr, sg_len = u64(PassFrame.size), u32(PassFrame.size + 8)


class DcmdFrame(Header):
    """DCMD: an opcode, its arguments, and at most one segment."""

    size = 52
    opcode, mbox = u32(24), octets(28, 12)
    sg_addr, sg_len = u64(40), u32(48)


class AbortFrame(Header):
    """ABORT: the frame at an address that was posted with a context."""

    size = 64
    abort_context, abort_addr = u64(24), u64(32)


# ---- what direct commands fetch ----


class CtrlInfo(Descriptor):
    """CTRL_GET_INFO."""

    size = 2048
    fw_version = octets(0xC0, 32)  # of the first component, APP
    product_name, serial_number = octets(0x540, 80), octets(0x590, 32)
    max_cmds, max_sg_elements, max_request_size = u16(0x5B8), u16(0x5BA), u32(0x5BC)
    lds_present, lds_degraded, lds_offline = u16(0x5C0), u16(0x5C2), u16(0x5C4)
    pd_disks_present, pd_disks_failed = u16(0x5C8), u16(0x5CC)
    max_strips_per_io, stripe_min = u16(0x5DA), u8(0x5E8)  # a strip has SECTOR << stripe_min bytes
    package_version = octets(0x640, 96)


class EventLogState(Descriptor):
    """CTRL_EVENT_GETINFO: sequence numbers."""

    size = 20
    newest = u32(0)


class EventDetail(Descriptor):
    """CTRL_EVENT_WAIT."""

    size = 256
    seq, code, locale, evt_class = u32(0), u32(8), u16(12), u8(15)
    description = octets(128, 128)


class LdList(Descriptor):
    """LD_GET_LIST: how many logical drives there are; an LdListEntry for each follows."""

    size = 8
    ld_count = u32(0)


class LdListEntry(Descriptor):
    """One of them; its size in sectors."""

    size = 16
    target_id, state, sectors = u8(0), u8(4), u64(8)


class LdInfo(Descriptor):
    """LD_GET_INFO. What the firmware does with it meanwhile: a bit for each, and how far it is, of 0xFFFF."""

    size = 384
    target_id, name = u8(0), octets(4, 16)
    primary_raid_level, secondary_raid_level, num_drives = u8(32), u8(34), u8(36)
    span_depth, state = u8(37), u8(38)
    CHECK, BACKGROUND_INIT, INIT, RECONSTRUCTION = (u32(264).bit(n) for n in range(4))
    checked, background_initialised, initialised, reconstructed = (u16(268 + 4 * n) for n in range(4))


class PdInfo(Descriptor):
    """PD_GET_INFO: likewise of a physical drive."""

    size = 512
    device_id, fw_state = u16(0), u16(184)
    REBUILD, rebuilt = u32(260).bit(0), u16(264)


class PdList(Descriptor):
    """PD_LIST_QUERY: how many physical drives there are; a PdAddress for each follows."""

    size = 8
    count = u32(4)


class PdAddress(Descriptor):
    """One of them."""

    size = 24
    device_id, encl_device_id, encl_index, slot_number = u16(0), u16(2), u8(4), u8(5)


class ConfigData(Descriptor):
    """CFG_READ: arrays of disks, of which logical drives are made; ArrayConfig and LdConfig follow, so many of each."""

    size = 32
    array_count, log_drv_count = u16(4), u16(8)


class ArrayConfig(Descriptor):
    """An array; an ArrayDisk for each place follows."""

    size = 32
    num_drives, array_ref = u8(8), u16(10)


class ArrayDisk(Descriptor):
    """A place of an array, and the disk that is there."""

    size = 8
    device_id, fw_state, slot = u16(0), u16(4), u8(7)


#: Places of an array, and spans of a logical drive.
ARRAY_PLACES, SPANS = 32, 8


class LdConfig(Descriptor):
    """A logical drive; a Span for each of SPANS follows."""

    size = 64
    target_id, span_depth = u8(0), u8(37)


class Span(Descriptor):
    """Which array a part of a logical drive lies in."""

    size = 24
    array_ref = u16(16)
