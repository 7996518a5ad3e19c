"""Names by which a device is known whatever path leads to it, from its vital product data (SPC-4, 7.8.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Designator types.
_T10, _EUI64, _NAA = 1, 2, 3
_BINARY = 1  # the code set


class Designator(NamedTuple):
    """One identifier of page 0x83: what it names (``association`` 0: the logical unit), its kind and its bytes."""

    association: int
    kind: int
    code_set: int
    value: bytes


def designators(page: bytes) -> Iterator[Designator]:
    """The identifiers in page 0x83."""
    at, end = 4, min(len(page), 4 + int.from_bytes(page[2:4], "big")) if len(page) >= 4 else 0
    while at + 4 <= end:
        code, kind, length = page[at] & 0xF, page[at + 1], page[at + 3]
        yield Designator(kind >> 4 & 3, kind & 0xF, code, page[at + 4 : at + 4 + length])
        at += 4 + length


def device_name(identification: bytes, serial: bytes, inquiry: bytes) -> str:
    """``naa.…``, else ``eui.…``, else ``t10.…``, as ESX names devices; "" when the device tells nothing of the kind.

    ``identification`` is page 0x83, ``serial`` page 0x80 and ``inquiry`` the standard data, from which ESX makes a
    ``t10.`` name of vendor, model and serial number where the first has none.
    """
    units = [found for found in designators(identification) if found.association == 0 and found.value]
    for kind, word in ((_NAA, "naa"), (_EUI64, "eui")):
        for found in units:
            if found.kind == kind and found.code_set == _BINARY:
                return f"{word}.{found.value.hex()}"
    for found in units:
        if found.kind == _T10:
            return f"t10.{_plain(found.value)}"
    number = _plain(serial[4:])
    return f"t10.{_plain(inquiry[8:16])}_{_plain(inquiry[16:32])}_{number}" if number else ""


def _plain(raw: bytes) -> str:
    """Text without what a name may not hold."""
    text = raw.decode("ascii", "replace").strip(" \0")
    return "".join(character if character.isalnum() or character in "-._" else "_" for character in text)
