"""Inventories in JSON of our own: what ``hcl inventory`` writes, and ``hcl.inventory`` describes."""

from __future__ import annotations

import re

import msgspec

from hcl.errors import BadInventory
from hcl.inventory import Inventory

_DECODER = msgspec.json.Decoder(Inventory)
_POSITION = re.compile(r"\(byte (\d+)\)")


def recognise(head: str) -> bool:
    """Whether it is JSON."""
    return head.lstrip()[:1] == "{"


def read(text: str, place: str) -> Inventory:
    """The inventory. BadInventory names the line, or of valid JSON the field."""
    return decode(text.encode(), place)


def decode(raw: bytes, place: str) -> Inventory:
    """The same from bytes."""
    try:
        return _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        raise BadInventory(f"not an inventory of version 1: {error}", where=place) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = _POSITION.search(str(error))
        line = raw.count(b"\n", 0, int(found[1]) if found else len(raw)) + 1
        raise BadInventory(f"not JSON: {error}", where=f"{place}:{line}") from error


def write(inventory: Inventory) -> bytes:
    """The JSON of an inventory, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(inventory), indent=2) + b"\n"
