"""What the controller says of itself and of its drives: logical ones, their members, disks that are passed through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from native_drivers.scsi.megaraid_sas.firmware import MfiError
from native_drivers.scsi.megaraid_sas.frames import (
    ARRAY_PLACES,
    MAX_LD,
    PD_EXPOSED_TO_HOST,
    SPANS,
    ArrayConfig,
    ArrayDisk,
    ConfigData,
    CtrlInfo,
    Dcmd,
    LdConfig,
    LdInfo,
    LdList,
    LdListEntry,
    PdAddress,
    PdInfo,
    PdList,
    Span,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from native_drivers.scsi.megaraid_sas.firmware import Firmware
    from vmklinux.native.descriptor import Descriptor

#: LdListEntry.state, and ArrayDisk.fw_state.
LD_STATES = {0: "offline", 1: "partially degraded", 2: "degraded", 3: "optimal"}
REBUILDING = 0x14
PD_STATES = {
    0x00: "unconfigured good", 0x01: "unconfigured bad", 0x02: "hot spare", 0x10: "offline", 0x11: "failed",
    REBUILDING: "rebuilding", 0x18: "online", 0x20: "copying back", 0x40: "passed through",
}  # fmt: skip
#: Bytes of configuration that are asked for, and physical drives.
_CONFIG, _PDS = 4096, 240

D = TypeVar("D", bound="Descriptor")


@dataclass(frozen=True, slots=True)
class Member:
    """A disk of a logical drive: its slot and how it is; ``rebuilding 37 %`` when it is being rebuilt."""

    slot: int
    state: str

    def __str__(self) -> str:
        """In words."""
        return f"slot {self.slot} {self.state}"


@dataclass(frozen=True, slots=True)
class LogicalDrive:
    """A logical drive: its target id, RAID level ("" unknown) and state, its size in sectors, its members; ``work`` is
    what the firmware does with it, in words.
    """

    target_id: int
    state: str
    sectors: int
    level: str = ""
    members: tuple[Member, ...] = ()
    work: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words: ``LD 0 RAID 0 optimal (slot 0 online)``."""
        about = "".join(f" {word}" for word in (self.level, self.state) if word)
        members = f" ({', '.join(map(str, self.members))})" if self.members else ""
        return f"LD {self.target_id}{about}{''.join(f', {work}' for work in self.work)}{members}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is: logical drives by target id, and the targets of the disks that are passed through."""

    logical: dict[int, LogicalDrive]
    physical: frozenset[int]


def controller_info(firmware: Firmware) -> CtrlInfo:
    """What the controller is. MfiError."""
    return CtrlInfo.at(memoryview(firmware.dcmd(Dcmd.CTRL_GET_INFO, CtrlInfo.size)))


def text(raw: bytes) -> str:
    """A text field."""
    return " ".join(raw.partition(b"\0")[0].decode("ascii", "replace").split())


def inventory(firmware: Firmware) -> Inventory:
    """What there is now. MfiError when the firmware does not list its drives; of the rest, what it tells."""
    raw = memoryview(firmware.dcmd(Dcmd.LD_GET_LIST, LdList.size + MAX_LD * LdListEntry.size))
    count = min(LdList.at(raw).ld_count, MAX_LD)
    members = _members(firmware)
    logical = {}
    for entry in _array(LdListEntry, raw, LdList.size, count):
        level, work = _info(firmware, entry.target_id)
        logical[entry.target_id] = LogicalDrive(
            entry.target_id, LD_STATES.get(entry.state, f"state {entry.state:#x}"), entry.sectors,
            level, members.get(entry.target_id, ()), work,
        )  # fmt: skip
    return Inventory(logical, _physical(firmware))


def _array(kind: type[D], raw: memoryview, offset: int, count: int, stride: int = 0) -> Iterator[D]:
    stride = stride or kind.size
    return (kind.at(raw, offset + n * stride) for n in range(count))


def _percent(progress: int) -> str:
    """How far the firmware is."""
    return f"{100 * progress // 0xFFFF} %"


def _info(firmware: Firmware, target_id: int) -> tuple[str, tuple[str, ...]]:
    """The RAID level (SNIA DDF 2.0, 4.2.5: the secondary level stripes over spans), and what is under way."""
    try:
        info = LdInfo.at(memoryview(firmware.dcmd(Dcmd.LD_GET_INFO, LdInfo.size, bytes([target_id]))))
    except MfiError:
        return "", ()
    work = (
        ("consistency check", info.CHECK, info.checked),
        ("background initialisation", info.BACKGROUND_INIT, info.background_initialised),
        ("initialisation", info.INIT, info.initialised),
        ("reconstruction", info.RECONSTRUCTION, info.reconstructed),
    )
    level = f"RAID {info.primary_raid_level}{'0' if info.span_depth > 1 else ''}"
    return level, tuple(f"{what} {_percent(progress)}" for what, active, progress in work if active)


def _pd_state(firmware: Firmware, disk: ArrayDisk) -> str:
    state = PD_STATES.get(disk.fw_state, f"state {disk.fw_state:#x}")
    if disk.fw_state != REBUILDING:
        return state
    try:
        raw = firmware.dcmd(Dcmd.PD_GET_INFO, PdInfo.size, disk.device_id.to_bytes(2, "little"))
    except MfiError:
        return state
    info = PdInfo.at(memoryview(raw))
    return f"{state} {_percent(info.rebuilt)}" if info.REBUILD else state


def _physical(firmware: Firmware) -> frozenset[int]:
    try:
        size = PdList.size + _PDS * PdAddress.size
        raw = memoryview(firmware.dcmd(Dcmd.PD_LIST_QUERY, size, bytes([PD_EXPOSED_TO_HOST])))
    except MfiError:
        return frozenset()
    count = min(PdList.at(raw).count, _PDS)
    # QEMU's ids have the target in the high byte, and the LUN in the other.
    return frozenset(pd.device_id >> 8 or pd.device_id for pd in _array(PdAddress, raw, PdList.size, count))


def _members(firmware: Firmware) -> dict[int, tuple[Member, ...]]:
    """The disks of each logical drive, by its target id."""
    try:
        raw = memoryview(firmware.dcmd(Dcmd.CFG_READ, _CONFIG))
    except MfiError:
        return {}
    config = ConfigData.at(raw)
    array_size, ld_size = ArrayConfig.size + ARRAY_PLACES * ArrayDisk.size, LdConfig.size + SPANS * Span.size
    lds = ConfigData.size + config.array_count * array_size
    if lds + config.log_drv_count * ld_size > _CONFIG:
        return {}
    arrays: dict[int, list[Member]] = {}
    for n, array in enumerate(_array(ArrayConfig, raw, ConfigData.size, config.array_count, array_size)):
        disks = _array(ArrayDisk, raw, ConfigData.size + n * array_size + ArrayConfig.size, array.num_drives)
        arrays[array.array_ref] = [Member(disk.slot, _pd_state(firmware, disk)) for disk in disks]
    found = {}
    for n, ld in enumerate(_array(LdConfig, raw, lds, config.log_drv_count, ld_size)):
        spans = _array(Span, raw, lds + n * ld_size + LdConfig.size, min(max(ld.span_depth, 1), SPANS))
        found[ld.target_id] = tuple(member for span in spans for member in arrays.get(span.array_ref, ()))
    return found
