"""The 8255x's control/status registers (CSR), behind BAR 0 (memory) and BAR 1 (ports).

After "Intel 8255x 10/100 Mbps Ethernet Controller Family Open Source Software Developer Manual" (revision 1.3), 6.3.
"""

from __future__ import annotations

from vmklinux.native.register import Register, bit, bits

#: What the status of a device that has gone reads as; of SCB_STATUS, all that tells why it interrupts.
GONE, ALL_CAUSES = 0xFFFF, 0xFF00

#: Of SCB_STATUS.RUS: it ran out of descriptors (6.3.1).
RU_NO_RESOURCES = 2

#: Values of SCB_COMMAND.CUC.
CUC_START, CUC_RESUME, CUC_LOAD_DUMP_ADDRESS, CUC_LOAD_BASE, CUC_DUMP_RESET = 1, 2, 4, 6, 7
#: Values of SCB_COMMAND.RUC.
RUC_START, RUC_LOAD_BASE = 1, 6

#: Values of PORT.FUNCTION.
SOFTWARE_RESET, SELF_TEST, SELECTIVE_RESET = 0, 1, 2

#: Values of MDI.OPCODE.
MDI_WRITE, MDI_READ = 1, 2


class SCB_STATUS(Register):
    """System control block, status word: why it interrupts (writing ones acknowledges) and what its units do."""

    offset, width = 0x00, 16
    RUS = bits(2, 5)  # receive unit
    CUS = bits(6, 7)  # command unit
    FCP = bit(8)  # flow control pause (82558 and later)
    ER = bit(9)  # early receive
    SWI = bit(10)  # software's own interrupt
    MDI = bit(11)  # an MDI access is done
    RNR = bit(12)  # the receive unit ran out of descriptors
    CNA = bit(13)  # the command unit is not active any more
    FR = bit(14)  # a frame came
    CX = bit(15)  # a command with its I bit is done

    @property
    def causes(self) -> int:
        """The bits that tell why it interrupts, to be written for an acknowledgement."""
        return self.raw & ALL_CAUSES


class SCB_COMMAND(Register):
    """System control block, command byte; 0 again when it was accepted."""

    offset, width = 0x02, 8
    RUC = bits(0, 2)
    CUC = bits(4, 7)


class SCB_INTERRUPT(Register):
    """System control block, interrupt control byte. The masks of single causes are there from the 82558 on."""

    offset, width = 0x03, 8
    M = bit(0)  # no interrupts
    SI = bit(1)  # interrupt now
    FCP = bit(2)
    ER = bit(3)
    RNR = bit(4)
    CNA = bit(5)
    FR = bit(6)
    CX = bit(7)


class SCB_POINTER(Register):
    """General pointer: the address that goes with a command."""

    offset, width = 0x04, 32


class PORT(Register):
    """Resets and the self test (6.3.3)."""

    offset, width = 0x08, 32
    FUNCTION = bits(0, 3)
    POINTER = bits(4, 31)


class EEPROM_CONTROL(Register):
    """The pins of the serial EEPROM (6.3.5)."""

    offset, width = 0x0E, 8
    EESK = bit(0)  # clock
    EECS = bit(1)  # chip select
    EEDI = bit(2)  # to the EEPROM
    EEDO = bit(3)  # from it


class MDI(Register):
    """Accesses to the PHY's registers (6.3.7)."""

    offset, width = 0x10, 32
    DATA = bits(0, 15)
    REGADD = bits(16, 20)
    PHYADD = bits(21, 25)
    OPCODE = bits(26, 27)
    R = bit(28)  # ready
    IE = bit(29)  # interrupt when ready
