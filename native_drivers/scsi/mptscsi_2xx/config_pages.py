"""Configuration pages: what an IOC tells of itself and of the devices behind it.

Names and places are the MPI specification's, version 1.5, as LSI published them in mpi_cnfg.h and mpi_sas.h (FreeBSD's
sys/dev/mpt/mpilib).
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Self

from vmklinux.native.descriptor import Descriptor, octets, u8, u16, u32, u64


class PageType(IntEnum):
    """CONFIG.PageType."""

    IO_UNIT = 0x00
    IOC = 0x01
    MANUFACTURING = 0x09
    EXTENDED = 0x0F


class ExtPageType(IntEnum):
    """CONFIG.ExtPageType, where PageType is EXTENDED."""

    SAS_IO_UNIT = 0x10
    SAS_EXPANDER = 0x11
    SAS_DEVICE = 0x12
    SAS_PHY = 0x13


class ConfigPage(Descriptor):
    """A page: ``size`` bytes of it, its header included, are what this driver knows; longer ones are cut off."""

    page_type: ClassVar[PageType]
    ext_page_type: ClassVar[int] = 0
    number: ClassVar[int]
    size = 4

    @classmethod
    def of(cls, page: bytes) -> Self:
        """The page in these bytes; what an older IOC does not tell is 0."""
        return cls.at(memoryview(bytearray(page.ljust(cls.size, b"\0"))))


class MANUFACTURING_0(ConfigPage):
    """What chip and board are called."""

    page_type, number, size = PageType.MANUFACTURING, 0, 76
    ChipName, ChipRevision, BoardName = octets(4, 16), octets(20, 8), octets(28, 16)
    BoardAssembly, BoardTracerNumber = octets(44, 16), octets(60, 16)


class IOC_2(ConfigPage):
    """Integrated RAID: how many volumes there are, and disks that belong to them."""

    page_type, number, size = PageType.IOC, 2, 12
    CapabilitiesFlags, NumActiveVolumes, MaxVolumes = u32(4), u8(8), u8(9)
    NumActivePhysDisks, MaxPhysDisks = u8(10), u8(11)


class SAS_IO_UNIT_0(ConfigPage):
    """How many phys the controller has."""

    page_type, ext_page_type, number, size = PageType.EXTENDED, ExtPageType.SAS_IO_UNIT, 0, 16
    NvdataVersionDefault, NvdataVersionPersistent, NumPhys = u16(8), u16(10), u8(12)


class SAS_DEVICE_0(ConfigPage):
    """A device behind a SAS controller: its handle, its address, and the bus and target id that it is reached by."""

    page_type, ext_page_type, number, size = PageType.EXTENDED, ExtPageType.SAS_DEVICE, 0, 36
    Slot, EnclosureHandle, SASAddress = u16(8), u16(10), u64(12)
    ParentDevHandle, PhyNum, AccessStatus, DevHandle = u16(20), u8(22), u8(23), u16(24)
    TargetID, Bus = u8(26), u8(27)
    DEVICE_TYPE, SATA_DEVICE = u32(28).bits(0, 2), u32(28).bit(7)
    SMP_TARGET, STP_TARGET, SSP_TARGET = u32(28).bit(8), u32(28).bit(9), u32(28).bit(10)
    DEVICE_PRESENT, DEVICE_MAPPED = u16(32).bit(0), u16(32).bit(1)
    PhysicalPort = u8(34)


#: SAS_DEVICE_0.DEVICE_TYPE: neither a phy without a device, nor an expander.
END_DEVICE = 1


def after_handle(handle: int) -> int:
    """The PageAddress of the SAS device whose handle is the next one; 0xFFFF: of the first."""
    return handle
