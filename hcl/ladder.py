"""The ladder: rows that say which devices they mean, found by a device's ids and class, the nearest first.

Both the list and what sites lay over it are such rows. The order in which they are given never matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeAlias, TypeVar

from hcl.verdict import Rung

Ids: TypeAlias = tuple[int, int | None, int | None, int | None]
"""Vendor, device, subsystem vendor, subsystem device; None stands for any, and only more None follow it."""

CLASS_BITS = 24


class Row(Protocol):
    """What the ladder asks of its rows."""

    @property
    def ids(self) -> Ids:
        """The ids that a device must have."""

    @property
    def pci_class(self) -> int:
        """A device's class must equal this in the bits of ``class_mask``."""

    @property
    def class_mask(self) -> int:
        """0: any class."""


AnyRow = TypeVar("AnyRow", bound=Row)


def rung_of(ids: Ids) -> Rung:
    """The rung at which a row of these ids matches."""
    _, device, _, subdevice = ids
    if device is None:
        return Rung.CLASS
    return Rung.VENDOR_DEVICE if subdevice is None else Rung.EXACT


class Ladder(Generic[AnyRow]):
    """Rows, indexed once.

    Of the rows that fit a device those go first that name more of its ids, then those that name more of its class, then
    those of the greater ``priority``.
    """

    def __init__(self, rows: Iterable[AnyRow], priority: Callable[[AnyRow], int]) -> None:
        index: dict[Ids, list[AnyRow]] = {}
        self._by_vendor: dict[int, list[AnyRow]] = {}
        for row in rows:
            index.setdefault(row.ids, []).append(row)
            self._by_vendor.setdefault(row.ids[0], []).append(row)
        self._priority = priority
        for bucket in index.values():
            bucket.sort(key=lambda row: (self._rank(row), row.pci_class), reverse=True)
        self._index = {ids: tuple(bucket) for ids, bucket in index.items()}

    def _rank(self, row: AnyRow) -> tuple[int, int]:
        return row.class_mask.bit_count(), self._priority(row)

    def find(self, vendor: int, device: int, subvendor: int, subdevice: int, pci_class: int) -> list[AnyRow]:
        """The rows that fit a device, the nearest first.

        A row's class narrows what a rung offers; it never keeps a rung from being asked: devices with an unfitting
        class (an MCP55 NIC says 0680) must still be found by their ids.
        """
        rungs: tuple[Ids, ...] = (
            (vendor, device, subvendor, subdevice),
            (vendor, device, subvendor, None),
            (vendor, device, None, None),
            (vendor, None, None, None),
        )
        index = self._index
        return [
            row
            for ids in rungs
            for row in index.get(ids, ())
            if (pci_class ^ row.pci_class) & row.class_mask == 0
        ]

    def rows(self, ids: Ids) -> tuple[AnyRow, ...]:
        """The rows of just these ids, whatever their class."""
        return self._index.get(ids, ())

    def told_apart(self, vendor: int, device: int) -> tuple[set[tuple[int, int]], set[int]]:
        """The subsystems, and the classes, by which rows tell such devices apart.

        A subsystem of which only the vendor is named stands there with a device that none has (0xffff).
        """
        subsystems, classes = set(), set()
        for row in self._by_vendor.get(vendor, ()):
            if row.ids[1] not in (None, device):
                continue
            if row.ids[2] is not None:
                subsystems.add((row.ids[2], 0xFFFF if row.ids[3] is None else row.ids[3]))
            if row.class_mask:
                classes.add(row.pci_class)
        return subsystems, classes

    def undecided(self) -> Iterator[tuple[AnyRow, AnyRow]]:
        """Pairs of rows that mean the same device with nothing to decide between them."""
        for bucket in self._index.values():
            for number, row in enumerate(bucket):
                for other in bucket[:number]:
                    if _overlap(row, other) and self._rank(row) == self._rank(other):
                        yield row, other

    def shadowed(self) -> Iterator[tuple[AnyRow, list[AnyRow]]]:
        """Rows that win no device, each with those rows that win all of its devices.

        (Rows that name every one of 65,536 ids one by one could do that to a row that names none. They are not looked
        for.)
        """
        for bucket in self._index.values():
            for row in bucket:
                above = [
                    other for other in bucket if self._rank(other) > self._rank(row) and _overlap(row, other)
                ]
                if above and _covered(row.pci_class, row.class_mask, above):
                    yield row, above

    def decided_by_priority(self) -> Iterator[AnyRow]:
        """Rows that win a device by nothing but their priority."""
        for bucket in self._index.values():
            for row in bucket:
                if any(
                    _overlap(row, other)
                    and other.class_mask.bit_count() == row.class_mask.bit_count()
                    and self._priority(row) > self._priority(other)
                    for other in bucket
                ):
                    yield row


def _overlap(row: Row, other: Row) -> bool:
    """Whether some class fits both."""
    return (row.pci_class ^ other.pci_class) & row.class_mask & other.class_mask == 0


def _covered(pci_class: int, mask: int, rows: list[AnyRow]) -> bool:
    """Whether each class that equals ``pci_class`` in ``mask`` fits one of the rows."""
    meeting = [row for row in rows if (row.pci_class ^ pci_class) & row.class_mask & mask == 0]
    if any(row.class_mask & ~mask == 0 for row in meeting):
        return True
    if not meeting:
        return False
    # A bit that some row asks for, and that is still open here: both values of it have to be covered.
    open_bits = meeting[0].class_mask & ~mask
    bit = open_bits & -open_bits
    return _covered(pci_class, mask | bit, meeting) and _covered(pci_class | bit, mask | bit, meeting)
