"""What a machine has: the neutral model that every reader makes, and the JSON of our own that it is kept in.

Ids and classes are lower-case hexadecimal text, as lspci prints them. None always means that the source did not tell.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

import msgspec

VERSION = 1
"""Of the JSON; a file with another is refused."""

Hex2: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{2}\Z")]
Hex4: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}\Z")]
Hex6: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{6}\Z")]
Address: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]\Z")
]
"""``domain:bus:device.function``; the domain has four digits, or up to eight."""
PciClass: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}([0-9a-f]{2})?\Z")]
"""Base class and subclass, and the programming interface where it was told."""


class PciDevice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="bus", tag="pci"):
    """A PCI function."""

    kind: ClassVar[str] = "pci"
    address: Address
    vendor: Hex4
    device: Hex4
    subvendor: Hex4 | None = None
    subdevice: Hex4 | None = None
    pci_class: PciClass | None = None
    revision: Hex2 | None = None
    driver: str | None = None
    """The driver in use; "" where the source says that there is none."""
    driver_version: str | None = None
    modules: tuple[str, ...] = ()
    """Modules that the machine's own kernel would use, where told."""
    firmware: str | None = None
    """Version of the firmware that the device runs."""
    slot: str | None = None
    """The slot's name on the board."""
    name: str | None = None
    """What the source calls it."""

    @property
    def place(self) -> str:
        """Where it is in its machine."""
        return self.address


class UsbInterface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An interface of a USB device's configuration; drivers bind to these."""

    number: int
    usb_class: Hex6
    """Class, subclass and protocol."""
    driver: str | None = None


class UsbDevice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="bus", tag="usb"):
    """A USB device."""

    kind: ClassVar[str] = "usb"
    port: str
    """The kernel's name of it (``1-1.2``: bus, then the ports), or ``bus/number`` where only that was told."""
    vendor: Hex4
    product: Hex4
    release: Hex4 | None = None
    """bcdDevice."""
    usb_class: Hex6 | None = None
    interfaces: tuple[UsbInterface, ...] | None = None
    name: str | None = None

    @property
    def place(self) -> str:
        """Where it is in its machine."""
        return f"usb {self.port}"


class Unidentified(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="bus", tag="unidentified"
):
    """A device that the source shows without its ids: nothing can be said of it, and it is not left out either."""

    kind: ClassVar[str] = "unidentified"
    place: str
    name: str | None = None
    reason: str
    """What is missing, and how to get it: a clause."""


Device: TypeAlias = PciDevice | UsbDevice | Unidentified


class Inventory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The devices of one machine."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)] = VERSION
    host: str
    """The machine's name, else the file's that told of it."""
    source: str = ""
    """The reader, and the file: ``lspci: rack7/n1.txt``."""
    model: str | None = None
    """Manufacturer and product."""
    kernel: str | None = None
    """The kernel release that ran there."""
    notes: tuple[str, ...] = ()
    """What the reader could not find out, a sentence each."""
    devices: tuple[Device, ...]
