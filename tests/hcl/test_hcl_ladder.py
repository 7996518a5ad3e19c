"""The ladder on generated registries.

Independent side: ``expected`` below, which tries each row by the definition, field by field, and takes the
greatest; it shares no index and no code with the registry.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hcl
from hcl.ladder import Ids
from hcl.registry import Claim, Driver, Registry, Scope, Service, Support

VENDORS = st.sampled_from([0x1000, 0x1001])
NUMBERS = st.sampled_from([1, 2])
CLASSES = [(0x020000, 0xFFFF00), (0x020000, 0xFF0000), (0x010400, 0xFFFF00), (0x000001, 0x0000FF)]
RUNGS = ["class", "vendor:device", "exact"]


@st.composite
def rows(draw: st.DrawFn) -> tuple[Ids, int, int]:
    """Ids, class and mask of a row, from so few values that rows overlap often."""
    named = draw(st.integers(0, 3))
    device, subvendor, subdevice = ([draw(NUMBERS) for _ in range(named)] + [None] * 3)[:3]
    pci_class, mask = draw(st.sampled_from(CLASSES if device is None else [(0, 0), *CLASSES]))
    return (draw(VENDORS), device, subvendor, subdevice), pci_class, mask


def claim(number: int, row: tuple[Ids, int, int], driver: str | None = None) -> Claim:
    return Claim(
        driver=driver or f"net/d{number}",
        ids=row[0],
        pci_class=row[1],
        class_mask=row[2],
        services={"6.1": Service("module", Scope.IDS)},
        source="test",
        place=f"ids.tsv:{number}",
    )


def driver(name: str, priority: int) -> Driver:
    modules = {"module": Support(hcl.Status.UNKNOWN)}
    reason = f"reason {priority}" if priority else ""
    return Driver(name=name, modules=modules, priority=priority, priority_reason=reason)


def registry(claims: list[Claim], priorities: dict[str, int]) -> Registry:
    drivers = {name: driver(name, priority) for name, priority in priorities.items()}
    return Registry(drivers, claims, ["6.1"], dict.fromkeys(drivers, "driver.toml:1"))


def expected(
    claims: list[Claim], priorities: dict[str, int], device: tuple[int, int, int, int], pci_class: int
) -> list[tuple[str, str]]:
    """Driver and rung of all rows that fit, the winner first."""
    ranked = []
    for each in claims:
        if any(want not in (None, have) for want, have in zip(each.ids, device, strict=True)):
            continue
        if pci_class & each.class_mask != each.pci_class:
            continue
        named = [want is not None for want in each.ids]
        rung = 2 if all(named) else 1 if named[1] else 0
        rank = (rung, named.count(True), f"{each.class_mask:b}".count("1"), priorities[each.driver])
        ranked.append((rank, (each.driver, RUNGS[rung])))
    return [answer for _, answer in sorted(ranked, reverse=True)]


@given(
    st.lists(rows(), max_size=12),
    st.tuples(VENDORS, NUMBERS, NUMBERS, NUMBERS),
    st.sampled_from([0x020000, 0x020001, 0x028000, 0x010401, 0x068001]),
    st.randoms(use_true_random=False),
)
def test_ladder_order_and_order_of_rows(
    given_rows: list[tuple[Ids, int, int]],
    device: tuple[int, int, int, int],
    pci_class: int,
    shuffler: random.Random,
) -> None:
    claims = [claim(number, row) for number, row in enumerate(given_rows)]
    numbers = list(range(1, len(claims) + 1))
    shuffler.shuffle(numbers)
    priorities = {each.driver: number for each, number in zip(claims, numbers, strict=True)}
    verdict = registry(claims, priorities).lookup(*device, pci_class)

    answers = [
        (str(verdict.driver), str(verdict.rung)),
        *((each.driver, each.rung) for each in verdict.losers),
    ]
    assert answers == (expected(claims, priorities, device, pci_class) or [("None", "unknown")])

    shuffled = shuffler.sample(claims, len(claims))
    assert registry(shuffled, priorities).lookup(*device, pci_class) == verdict


@given(rows(), rows(), st.booleans())
def test_rows_that_nothing_decides_between_are_refused(
    row: tuple[Ids, int, int], other: tuple[Ids, int, int], same: bool
) -> None:
    other = row if same else other
    overlap = row[0] == other[0] and (row[1] & other[2]) == (other[1] & row[2])
    undecided = overlap and row[2].bit_count() == other[2].bit_count()
    claims = [claim(7, row, "net/a"), claim(8, other, "net/b")]
    registry(claims, {"net/a": 0, "net/b": 1})
    if undecided:
        with pytest.raises(hcl.RegistryError, match=r"net/a and net/b .*ids\.tsv:7 and ids\.tsv:8"):
            registry(claims[::-1], {"net/a": 0, "net/b": 0})
    else:
        registry(claims, {"net/a": 0, "net/b": 0})


def test_detail_within_a_rung_goes_before_priority() -> None:
    device = (0x1000, 1, 2, 3)
    claims = [
        claim(1, ((0x1000, 1, None, None), 0, 0)),
        claim(2, ((0x1000, 1, 2, None), 0, 0)),
    ]
    verdict = registry(claims, {"net/d1": 5, "net/d2": 0}).lookup(*device, 0x020000)
    assert (verdict.driver, verdict.rung) == ("net/d2", "vendor:device")
    assert verdict.losers[0].reason == "net/d2's row describes the device in more detail on the same rung"
