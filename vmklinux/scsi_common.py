"""What SCSI answers mean, by their bytes alone (Linux drivers/scsi/scsi_common.c): the mid-layers of both engines."""

from __future__ import annotations

import struct

# Peripheral device types (SPC-4, 6.6.2), and levels as INQUIRY tells them, plus one (include/scsi/scsi.h).
TYPE_ROM, TYPE_RBC = 0x05, 0x0E
SCSI_2, SCSI_3 = 3, 4
#: Seconds for an INQUIRY (scsi_inq_timeout).
INQUIRY_TIMEOUT = 20.0
INQUIRY, REPORT_LUNS = 0x12, 0xA0
#: LUNs that a scan without REPORT LUNS tries, and those that REPORT LUNS is asked for.
SEQUENTIAL_MOST, REPORT_MOST = 256, 511
#: Pages of vital product data that name a device and its limits (SPC-4, 7.8; SBC-3, 6.6).
SUPPORTED_PAGES, SERIAL_NUMBER, IDENTIFICATION = 0x00, 0x80, 0x83
NAMING_PAGES = (SERIAL_NUMBER, IDENTIFICATION, 0x89, 0xB0, 0xB1, 0xB2)
#: Host statuses by which drivers say that there is nobody: DID_NO_CONNECT, DID_BAD_TARGET (include/scsi/scsi_status.h).
NOBODY = (1, 4)


def scsilun_to_int(raw: bytes) -> int:
    """The 16-bit levels of a LUN, the first one lowest."""
    return sum(int.from_bytes(raw[at : at + 2], "big") << 8 * at for at in range(0, 8, 2))


def report_luns_cdb() -> bytes:
    """REPORT LUNS for as many as a scan looks at (SPC-4, 6.33); REPORT_MOST and a header of them."""
    return struct.pack(">B5xIxx", REPORT_LUNS, (REPORT_MOST + 1) * 8)


def reported_luns(data: bytes) -> list[int]:
    """The LUNs in the answer to REPORT LUNS."""
    end = min(8 + int.from_bytes(data[:4], "big"), len(data))
    return [scsilun_to_int(data[at : at + 8]) for at in range(8, end - 7, 8)]


def sanitized(raw: bytes) -> bytes:
    """A text field of INQUIRY data with blanks for what is no text (scsi_sanitize_inquiry_string)."""
    text, end, _ = raw.partition(b"\0")
    return bytes(c if 0x20 <= c <= 0x7E else 0x20 for c in text).ljust(len(raw) if end else len(text))


def sanitized_inquiry(data: bytes) -> bytes:
    """INQUIRY data with its vendor, model and revision sanitized."""
    return data[:8] + sanitized(data[8:16]) + sanitized(data[16:32]) + sanitized(data[32:36]) + data[36:]


def scsi_level(data: bytes) -> int:
    """The level of the standard that INQUIRY data claims, plus one from SCSI-2 on."""
    level = data[2] & 7
    return level + 1 if level >= 2 or (level == 1 and data[3] & 0xF == 1) else level


def is_absent(data: bytes) -> bool:
    """Whether INQUIRY data says that there is no device at this address (SPC-4, 6.6.2)."""
    return not data or data[0] >> 5 == 3 or (data[0] >> 5 == 1 and data[0] & 0x1F == 0x1F)
