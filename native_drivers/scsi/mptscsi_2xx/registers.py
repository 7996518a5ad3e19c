"""The system interface registers of Fusion-MPT chips, the same for SPI, FC and SAS.

Names and places are the MPI specification's, version 1.5, as LSI published them in mpi.h (FreeBSD's sys/dev/mpt/mpilib).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from vmklinux.native.register import Register, Registers, bit, bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmklinux.native.pci import Window


class IocState(IntEnum):
    """What DOORBELL.STATE reads as."""

    RESET = 0
    READY = 1
    OPERATIONAL = 2
    FAULT = 4


class WhoInit(IntEnum):
    """Who initialised the IOC: DOORBELL.WHO_INIT, and a field of IOC Init and IOC Facts."""

    NO_ONE = 0
    SYSTEM_BIOS = 1
    ROM_BIOS = 2
    PCI_PEER = 3
    HOST_DRIVER = 4
    MANUFACTURER = 5


class DoorbellFunction(IntEnum):
    """What DOORBELL_COMMAND.FUNCTION asks for."""

    IOC_MESSAGE_UNIT_RESET = 0x40
    IO_UNIT_RESET = 0x41
    HANDSHAKE = 0x42


class DOORBELL(Register):
    """System Doorbell, as it is read: the IOC's state; while it is in use, half a word of a message.

    In state FAULT, DATA is the fault's code.
    """

    offset = 0x00
    STATE = bits(28, 31)
    USED = bit(27)
    WHO_INIT = bits(24, 26)
    DATA = bits(0, 15)


class DOORBELL_COMMAND(Register):
    """System Doorbell, as it is written: a function, or, behind HANDSHAKE, a word of a message as it is."""

    offset = 0x00
    FUNCTION = bits(24, 31)
    ADD_DWORDS = bits(16, 23)


class WRITE_SEQUENCE(Register):
    """Write Sequence: DIAGNOSTIC takes writes after five certain keys in a row (KEYS); another key ends that."""

    offset = 0x04
    KEY = bits(0, 3)


#: What WRITE_SEQUENCE.KEY gets, one after the other, behind one that is none of them.
KEYS = (0xF, 0x4, 0xB, 0x2, 0x7, 0xD)


class DIAGNOSTIC(Register):
    """Host Diagnostic: resets the whole chip, whatever state its firmware is in."""

    offset = 0x08
    CLEAR_FLASH_BAD_SIG = bit(10)
    PREVENT_IOC_BOOT = bit(9)
    DRWE = bit(7)
    FLASH_BAD_SIG = bit(6)
    RESET_HISTORY = bit(5)
    RW_ENABLE = bit(4)
    RESET_ADAPTER = bit(2)
    DISABLE_ARM = bit(1)
    MEM_ENABLE = bit(0)


class HOST_INTERRUPT_STATUS(Register):
    """Host Interrupt Status. IOP_DOORBELL: the IOC has not taken what was last written to the doorbell. Any write clears
    DOORBELL; REPLY goes down when the reply FIFO was read empty.
    """

    offset = 0x30
    IOP_DOORBELL = bit(31)
    REPLY = bit(3)
    DOORBELL = bit(0)


class HOST_INTERRUPT_MASK(Register):
    """Host Interrupt Mask: a set bit keeps an interrupt from the pin."""

    offset = 0x34
    REPLY = bit(3)
    DOORBELL = bit(0)


class REQUEST_FIFO(Register):
    """Request queue, written: the bus address of a request frame, its lower 32 bits."""

    offset = 0x40


class REPLY_FIFO(Register):
    """Reply queue. Read: EMPTY; a context reply, which is the context of a SCSI IO that ended well; or an address reply:
    with bit 31, the address of a reply frame, halved. Written: the address of a reply frame that the IOC may use.
    """

    offset = 0x44
    ADDRESS_REPLY = bit(31)


#: What REPLY_FIFO reads as when no reply waits.
EMPTY = 0xFFFF_FFFF


class FusionRegisters(Registers):
    """The registers, with the two ways to use them in batches that make the driver fast."""

    window: Window

    def replies(self, count: int) -> list[int]:
        """Read the reply FIFO so often: one exchange with the bus instead of one for each reply."""
        return self.window.read_rep(REPLY_FIFO.offset, 4, count)

    def post(self, register: type[Register], addresses: Sequence[int]) -> None:
        """Write frames' addresses to a FIFO, together."""
        write, offset = self.window.write, register.offset
        with self.window.corked():
            for address in addresses:
                write(offset, 4, address)
