"""Names of PCI class codes (PCI Code and ID Assignment Specification 1.11, chapter 1)."""

from __future__ import annotations

from typing import Final

#: By base class, bits 23 to 16 of the class code.
BASE_CLASSES: Final = {
    0x00: "Unclassified device",
    0x01: "Mass storage controller",
    0x02: "Network controller",
    0x03: "Display controller",
    0x04: "Multimedia device",
    0x05: "Memory controller",
    0x06: "Bridge",
    0x07: "Communication controller",
    0x08: "System peripheral",
    0x09: "Input device",
    0x0A: "Docking station",
    0x0B: "Processor",
    0x0C: "Serial bus controller",
    0x0D: "Wireless controller",
    0x0E: "Intelligent controller",
    0x0F: "Satellite communication controller",
    0x10: "Encryption controller",
    0x11: "Signal processing controller",
    0x12: "Processing accelerator",
}
#: By base class and subclass, bits 23 to 8, for what hypervisors drive and what stands beside it.
SUBCLASSES: Final = {
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0104: "RAID controller",
    0x0106: "SATA controller",
    0x0107: "Serial attached SCSI controller",
    0x0108: "Non-volatile memory controller",
    0x0200: "Ethernet controller",
    0x0207: "InfiniBand controller",
    0x0280: "Network controller of another kind",
    0x0300: "VGA controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI-to-PCI bridge",
    0x0700: "Serial controller",
    0x0C03: "USB controller",
    0x0C04: "Fibre Channel controller",
    0x0C05: "SMBus controller",
}


def class_name(code: int) -> str:
    """What a class code of 24 bits says the device is, as closely as the tables know."""
    return SUBCLASSES.get(code >> 8) or BASE_CLASSES.get(code >> 16, "Device of an unknown class")
