"""Readers of inventories: whatever tells of a machine's devices becomes an ``Inventory``.

``read`` takes a file or a directory and finds out itself which reader it is for. Each reader is a module of this package
with two functions: ``recognise(head)``, whether a text that begins so is its kind, and ``read(text, place)``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from hcl.errors import BadInventory
from hcl.inventory import Inventory

HEAD = 64 << 10
"""Characters of a text that a reader is shown to recognise it."""
MOST = 256 << 20
"""Bytes of a file beyond which it is no inventory."""

READERS = ("document", "udev", "lsusb", "lspci")
"""The readers of text, each a module of this package; the first that recognises a text reads it."""


class Reader(Protocol):
    """What a reader's module has."""

    def recognise(self, head: str) -> bool:
        """Whether a text that begins with ``head`` is of this kind."""

    def read(self, text: str, place: str) -> Inventory:
        """The inventory; BadInventory, whose ``where`` is ``place:line``, when the text is malformed."""


def read(path: Path) -> Inventory:
    """The inventory in a file, or in a ``/sys`` tree or a copy of one. BadInventory."""
    if path.is_dir():
        from hcl.readers import sysfs

        return sysfs.read_tree(path)
    return read_bytes(content(path), str(path))


def content(path: Path) -> bytes:
    """What is in a file that may be an inventory. BadInventory when it cannot be."""
    try:
        if path.stat().st_size > MOST:
            raise BadInventory(
                f"more than {MOST >> 20} MB", where=str(path), remedy="name one inventory's file"
            )
        return path.read_bytes()
    except OSError as error:
        raise BadInventory(f"cannot read the inventory: {error.strerror}", where=str(path)) from error


def read_bytes(raw: bytes, place: str) -> Inventory:
    """The inventory in a file's content; ``place`` names it. BadInventory."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInventory("not UTF-8", where=f"{place}:{line}", remedy="save it as UTF-8 text") from error
    return read_text(text, place)


def read_text(text: str, place: str) -> Inventory:
    """The inventory in a text; ``place`` names it in errors, and its machine where the text does not. BadInventory."""
    return reader_of(text, place).read(text, place)


def reader_of(text: str, place: str) -> Reader:
    """The reader for a text. BadInventory when it is for none."""
    head = text[:HEAD]
    for name in READERS:
        reader = cast(Reader, import_module(f"hcl.readers.{name}"))
        if reader.recognise(head):
            return reader
    raise BadInventory(
        "nobody here can read this",
        where=place,
        remedy="an inventory is what `lspci -nn`, `lspci -vmmnn`, `lsusb -v`, `udevadm info --export-db` or "
        "`umockdev-record` prints, or our own JSON (hcl inventory)",
    )
