"""Registers of MegaRAID SAS controllers with MFI firmware: those of the SAS1078 and of its successors (GEN2).

Names and meanings as FreeBSD's sys/dev/mfi/mfireg.h has them; LSI's manuals are not public.
"""

from __future__ import annotations

from vmklinux.native.register import Register, bit, bits


class IDB(Register):
    """Inbound doorbell: what the firmware is told to become."""

    offset = 0x20
    ABORT = bit(0)  # all commands that it has
    READY = bit(1)  # from operational to ready
    MFIMODE = bit(2)  # forget frames that were posted
    CLEAR_HANDSHAKE = bit(3)  # the answer to WAIT_HANDSHAKE
    HOTPLUG = bit(4)  # the answer to BOOT_MESSAGE_PENDING
    STOP_ADP = bit(5)  # for ever


class OSTS(Register):
    """Outbound interrupt status."""

    offset = 0x30
    GEN2_REPLY = bit(0)
    GEN2_DOORBELL = bit(2)  # the firmware is in another state
    REPLY_1078 = bit(31)


class OMSK(Register):
    """Outbound interrupt mask: a bit that is set masks."""

    offset = 0x34
    GEN2_REPLY = bit(0)
    GEN2_DOORBELL = bit(2)
    REPLY_1078 = bit(31)


class IQP(Register):
    """Inbound queue port: where a frame lies, and how many more pieces of 64 bytes than one it has."""

    offset = 0x40
    POSTED = bit(0)
    EXTRA = bits(1, 4)
    ADDRESS = bits(5, 31)


class ODCR0(Register):
    """Outbound doorbell clear: interrupts are acknowledged here."""

    offset = 0xA0
    REPLY = bits(0, 31)


class OSP0(Register):
    """Outbound scratch pad: what the firmware is, and what it takes."""

    offset = 0xB0
    MAXCMD = bits(0, 15)  # frames that it takes, and entries of its reply queue
    MAXSGL = bits(16, 23)  # segments of a frame
    MSIX = bit(26)
    STATE = bits(28, 31)


class DIAG(Register):
    """Host diagnostics: a reset of the adapter, once SEQ got its key."""

    offset = 0xF8
    RESET_ADP = bit(2)
    WRITE_ENABLE = bit(7)


class SEQ(Register):
    """Sequencer: SEQ_KEY, one word after the other, enables writes of DIAG."""

    offset = 0xFC
    WORD = bits(0, 7)


SEQ_KEY = (0x00, 0x04, 0x0B, 0x02, 0x07, 0x0D)
