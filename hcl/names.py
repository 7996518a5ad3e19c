"""The names of devices, read at run time from the pci.ids and usb.ids files of the system."""

from __future__ import annotations

import gzip
import logging
import re
import zlib
from functools import cache, lru_cache

_log = logging.getLogger(__name__)

PLACES = (
    "/usr/share/misc/pci.ids",
    "/usr/share/hwdata/pci.ids",
    "/usr/share/misc/pci.ids.gz",
    "/usr/share/hwdata/pci.ids.gz",
)
"""Where distributions keep the file, in the order in which it is looked for."""

USB_PLACES = tuple(place.replace("pci.ids", "usb.ids") for place in PLACES)
"""The same for the names of USB devices."""

# A line that begins at the margin, comments aside, ends what belongs to a vendor.
_NEXT_VENDOR = re.compile(rb"\n[^\t#\n]")


@lru_cache(maxsize=4096)
def device_name(vendor: int, device: int) -> str | None:
    """Vendor's and device's name as lspci prints them, or None when the system's pci.ids does not have them.

    A system without a pci.ids file has no names, and that is no error.
    """
    return find_name(_database(PLACES), vendor, device)


@lru_cache(maxsize=4096)
def usb_name(vendor: int, product: int) -> str | None:
    """The same for a USB device, as lsusb prints it."""
    return find_name(_database(USB_PLACES), vendor, product)


def find_name(database: bytes, vendor: int, device: int) -> str | None:
    """The same from the content of a pci.ids or usb.ids file; it is searched, never parsed as a whole.

    Its format: ``vvvv  Vendor`` at the margin, then for each of its devices ``<tab>dddd  Device``, each
    followed by its subsystems behind two tabs.
    """
    start = _after(database, b"\n%04x  " % vendor, 0, len(database))
    if start is None:
        return None
    following = _NEXT_VENDOR.search(database, start)
    found = _after(database, b"\n\t%04x  " % device, start, following.start() if following else len(database))
    if found is None:
        return None
    return f"{_line(database, start)} {_line(database, found)}"


def _after(database: bytes, key: bytes, start: int, end: int) -> int | None:
    found = database.find(key, start, end)
    return None if found < 0 else found + len(key)


def _line(database: bytes, start: int) -> str:
    end = database.find(b"\n", start)
    return database[start : end if end >= 0 else None].decode(errors="replace").strip()


@cache
def _database(places: tuple[str, ...]) -> bytes:
    """The first file that can be read, about 1.4 MB, behind a newline so that its first line is found too."""
    for place in places:
        try:
            with gzip.open(place) if place.endswith(".gz") else open(place, "rb") as file:
                return b"\n" + file.read()
        except FileNotFoundError:
            continue
        except (OSError, EOFError, zlib.error) as error:
            _log.warning("no device names from %s: %s", place, error)
    return b""
