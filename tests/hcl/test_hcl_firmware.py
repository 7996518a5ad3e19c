"""Versions of firmware: how they compare, and when nobody can tell.

Independent side: for versions of numbers, Python's own order of tuples; the single ones are of real adapters.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl.firmware import Firmware, compare

NUMBERS = st.lists(st.integers(0, 300), min_size=1, max_size=5)
MARKS = st.sampled_from([".", "-", "_", " "])


@settings(deadline=None)
@given(NUMBERS, NUMBERS, MARKS, st.sampled_from(["", "v", "FW ", "Version: "]))
def test_numbers_compare_as_numbers(mine: list[int], other: list[int], mark: str, prefix: str) -> None:
    longest = max(len(mine), len(other))
    left, right = (each + [0] * (longest - len(each)) for each in (mine, other))
    texts = [prefix + mark.join(map(str, each)) for each in (mine, other)]
    assert compare(*texts) == (left > right) - (left < right)


@settings(deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_any_texts_compare_both_ways_alike(one: str, two: str) -> None:
    order, back = compare(one, two), compare(two, one)
    assert back == (None if order is None else -order)
    assert compare(one, one) in (0, None)


@pytest.mark.parametrize(
    ("version", "other", "order"),
    [
        ("2.00A12", "2.00A12", 0),
        ("2.00A12", "2.00A3", 1),
        ("2.00A12", "2.00B1", None),
        ("1.2b", "1.2", None),
        ("5.10-2, 0x80000a3c", "5.9", 1),
        ("bc 5.2.3", "6", None),
        ("", "1", None),
        ("unknown", "1", None),
    ],
)
def test_versions_of_real_adapters(version: str, other: str, order: int | None) -> None:
    assert compare(version, other) == order


def test_firmware_that_is_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a minimum, a file, or both"):
        Firmware()
