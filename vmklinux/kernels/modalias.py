"""Devices by the names that Linux's buses give them, and the patterns by which modules claim them.

A device's modalias is made by its bus (pci_uevent in drivers/pci/pci-driver.c and its like):
``pci:v000010ECd00008139sv00001AF4sd00001100bc02sc00i00``, ``virtio:d00000001v00001AF4``. Modules carry patterns of the
same form, which modprobe compares with fnmatch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import msgspec

_WILDCARDS = frozenset("*?[")
# The beginnings by which the index finds a pattern: a PCI device's vendor and device, its vendor, a bus.
_BEGINS = tuple(
    re.compile(begin) for begin in (r"pci:v[0-9A-F]{8}d[0-9A-F]{8}", r"pci:v[0-9A-F]{8}", r"[A-Za-z0-9_-]+:")
)


class Alias(msgspec.Struct, frozen=True, array_like=True):
    """A pattern of modaliases, and the module that carries it."""

    pattern: str
    module: str
    """Its name, with ``_`` for ``-``: ``8139cp``, ``virtio_net``."""
    builtin: bool = False
    """Whether the kernel has it built in, so that there is no file to load."""

    @property
    def detail(self) -> int:
        """How much the pattern says: its characters that are no wildcards. Names of fields are the same in all."""
        return len(self.pattern) - self.pattern.count("*") - self.pattern.count("?")

    def fits(self, modalias: str) -> bool:
        """Whether modprobe would take the pattern for that modalias: fnmatch, ``-`` and ``_`` being equal."""
        modalias, pattern = _plain(modalias), _plain(self.pattern)
        if "?" in pattern or "[" in pattern:
            return fnmatchcase(modalias, pattern)
        # The shape of nearly all; a look-up tries some, and to compile each for fnmatch would take ten times as long.
        first, *pieces = pattern.split("*")
        if not pieces:
            return modalias == first
        last = pieces.pop()
        if len(modalias) < len(first) + len(last) or not (
            modalias.startswith(first) and modalias.endswith(last)
        ):
            return False
        at, end = len(first), len(modalias) - len(last)
        for piece in pieces:
            at = modalias.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


def _keys(alias: str) -> Iterator[str]:
    """What a pattern or a modalias begins with, the most telling first."""
    plain = _plain(alias)
    return (found[0] for begin in _BEGINS if (found := begin.match(plain)))


def _plain(alias: str) -> str:
    """With ``_`` for ``-``, but for ranges in brackets."""
    if "-" not in alias:
        return alias
    return "".join(
        part if part.startswith("[") else part.replace("-", "_") for part in re.split(r"(\[[^]]*\])", alias)
    )


class Aliases:
    """The index of one kernel. A look-up of a PCI device takes some microseconds."""

    def __init__(self, buckets: dict[str, list[Alias]]) -> None:
        """What ``of`` made: of equally telling patterns the first in a bucket goes first."""
        self.buckets = buckets

    @classmethod
    def of(cls, aliases: Iterable[Alias]) -> Aliases:
        """Index them: by themselves when they have no wildcards, else by what they begin with."""
        buckets: dict[str, list[Alias]] = {}
        for alias in aliases:
            concrete = _WILDCARDS.isdisjoint(alias.pattern)
            key = _plain(alias.pattern) if concrete else next(_keys(alias.pattern), "")
            buckets.setdefault(key, []).append(alias)
        return cls(buckets)

    def matching(self, modalias: str) -> list[Alias]:
        """One alias of each module that claims the device, the one that says most about it first.

        Of those that say as much, the order is that in which the kernel's build lists its modules, as with modprobe.
        """
        found: dict[str, Alias] = {}
        for bucket in dict.fromkeys((_plain(modalias), *_keys(modalias), "")):
            for alias in self.buckets.get(bucket, ()):
                if alias.fits(modalias):
                    found.setdefault(alias.module, alias)
        return sorted(found.values(), key=lambda alias: -alias.detail)

    def naming(self, vendor: int, device: int) -> list[Alias]:
        """The aliases that fit this PCI vendor and device, whatever they say of subsystem; none by class alone."""
        pair = f"pci:v{vendor:08X}d{device:08X}"
        unknown = f"{pair}sv00000000sd00000000bc00sc00i00"
        return [
            alias
            for key in _keys(pair)
            for alias in self.buckets.get(key, ())
            if key == pair or alias.fits(unknown)
        ]
