"""The demo's frames, and the checker that tells a right one from every other.

Independent side: none; that the frames cross real drivers and devices is test_console_demo.py's.
"""

from __future__ import annotations

import pytest

from vmkernel_core.console.demo.frame_pattern import (
    LONGEST,
    MOST_FRAMES,
    PROBE,
    SHORTEST,
    Checker,
    Pattern,
    patterns,
)

CARD = bytes.fromhex("525400123456")
SIZES = LONGEST - SHORTEST + 1


def test_every_size_comes_up() -> None:
    pattern, _ = patterns(CARD)
    frames = [pattern.frame(number) for number in range(SIZES)]
    assert {len(frame) for frame in frames} == set(range(60, 1515))
    assert pattern.total(SIZES) == sum(map(len, frames))
    assert len(set(frames)) == SIZES


def test_the_way_is_in_the_header() -> None:
    out, into = patterns(CARD)
    assert out.frame(7)[6:12] == into.frame(7)[:6] == CARD
    assert out.frame(7)[12:14] == into.frame(7)[12:14] == b"\x88\xb5"
    assert out.frame(7)[18:] != into.frame(7)[18:]


def test_the_last_number_has_a_frame() -> None:
    assert patterns(CARD)[0].frame(MOST_FRAMES - 1)[14:18] == (MOST_FRAMES - 1).to_bytes(4, "big")


@pytest.mark.parametrize("size", [SHORTEST, 700, LONGEST])
def test_one_wrong_byte_anywhere_does_not_count(size: int) -> None:
    pattern = Pattern("seed", b"\1" * 6, CARD)
    number = next(number for number in range(SIZES) if pattern.size(number) == size)
    right = pattern.frame(number)
    checker = Checker(pattern, SIZES)
    for place in range(size):
        checker.take(right[:place] + bytes([right[place] ^ 0x10]) + right[place + 1 :])
    for wrong in (right[:-1], right + b"\0", b"", right[:14], PROBE):
        checker.take(wrong)
    assert checker.verified == 0
    checker.take(right)
    assert checker.verified == 1


def test_a_frame_counts_once_and_only_if_it_is_awaited() -> None:
    pattern = Pattern("seed", b"\1" * 6, CARD)
    checker = Checker(pattern, 3)
    for number in (2, 0, 2, 3, 1, 1):
        checker.take(pattern.frame(number))
    assert checker.verified == 3
