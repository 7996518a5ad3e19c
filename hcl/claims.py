"""What a Linux module claims by itself (its MODULE_DEVICE_TABLE), beside what a row of the list says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from hcl.ladder import Row
from hcl.registry import Scope

# Linux's form of a PCI claim: do_pci_entry of scripts/mod/file2alias.c.
_PATTERN = re.compile(
    r"pci:v(?P<v>[0-9A-F]{8}|\*)d(?P<d>[0-9A-F]{8}|\*)sv(?P<sv>[0-9A-F]{8}|\*)sd(?P<sd>[0-9A-F]{8}|\*)"
    r"bc(?P<bc>[0-9A-F]{2}|\*)sc(?P<sc>[0-9A-F]{2}|\*)i(?P<i>[0-9A-F]{2}|\*)\*?"
)
_Claim = tuple[tuple[int | None, ...], int, int]


@lru_cache(maxsize=65536)
def _parsed(pattern: str) -> _Claim | None:
    """Ids, class and class mask of a pattern; None for a device of another bus."""
    found = _PATTERN.fullmatch(pattern)
    if found is None:
        return None
    ids = tuple(None if found[name] == "*" else int(found[name], 16) for name in ("v", "d", "sv", "sd"))
    pci_class = mask = 0
    for name, shift in (("bc", 16), ("sc", 8), ("i", 0)):
        if found[name] != "*":
            pci_class |= int(found[name], 16) << shift
            mask |= 0xFF << shift
    return ids, pci_class, mask


def scope(patterns: Iterable[str], row: Row) -> Scope | None:
    """By what a module of these patterns knows the devices of a row, the most telling; None when it knows none.

    A pattern that names no device knows them by class; one that names more of the subsystem than the row does knows some
    of its subsystems.
    """
    scopes = set(_scopes(patterns, row))
    return next((each for each in Scope if each in scopes), None)


def _scopes(patterns: Iterable[str], row: Row) -> Iterator[Scope]:
    for pattern in patterns:
        claim = _parsed(pattern)
        if claim is None:
            continue
        ids, pci_class, mask = claim
        if any(
            want is not None and have is not None and want != have
            for want, have in zip(ids, row.ids, strict=True)
        ):
            continue
        if (pci_class ^ row.pci_class) & mask & row.class_mask:
            continue
        if ids[1] is None and row.ids[1] is not None:
            yield Scope.CLASS
        elif all(want is None or have is not None for want, have in zip(ids, row.ids, strict=True)):
            yield Scope.IDS
        else:
            yield Scope.SUBSYSTEM
