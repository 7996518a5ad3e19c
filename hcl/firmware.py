"""Firmware that a device is to run, or its driver is to have, and how versions of it compare."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_PREFIX = re.compile(r"\A(?:firmware|fw|version|ver|v|rev)?[.:= ]*(?=\d)")
_PIECE = re.compile(r"\d+|[a-z]+")


class Firmware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is wanted; at least one of both is told."""

    minimum: _Text | None = None
    """The least version that the device is to run."""
    file: _Text | None = None
    """The file that its driver loads into it."""

    def __post_init__(self) -> None:
        """Refuse a wish for nothing."""
        if not (self.minimum or self.file):
            raise ValueError("firmware names a minimum, a file, or both")


def compare(version: str, other: str) -> int | None:
    """-1, 0 or 1 as the version is older than the other, the same, or newer; None where that cannot be told.

    Numbers are compared as numbers, whatever stands between them, and what is missing at the end is 0. Letters compare
    with nothing but themselves: nobody knows whether 1.2b is a beta of 1.2 or what came after it.
    """
    mine, others = _pieces(version), _pieces(other)
    if not mine or not others:
        return None
    for index in range(max(len(mine), len(others))):
        left, right = (pieces[index] if index < len(pieces) else 0 for pieces in (mine, others))
        if left == right:
            continue
        if isinstance(left, str) or isinstance(right, str):
            return None
        return -1 if left < right else 1
    return 0


def _pieces(version: str) -> list[int | str]:
    plain = _PREFIX.sub("", version.strip().lower())
    return [int(piece) if piece.isdecimal() else piece for piece in _PIECE.findall(plain)]
