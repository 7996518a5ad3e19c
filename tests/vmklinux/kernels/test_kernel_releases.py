"""Which release begins with what, and which is newer.

Independent side: Debian's own order, by ``dpkg --compare-versions``.
"""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmklinux.kernels.releases import age_key, begins, series

NUMBER = st.integers(0, 999)


@pytest.mark.parametrize("prefix", ["6", "6.", "6.1", "6.1.0", "6.1.0-56", "6.1.0-56-amd64", ""])
def test_a_beginning_is_one(prefix: str) -> None:
    assert begins("6.1.0-56-amd64", prefix)


@pytest.mark.parametrize("prefix", ["6.12", "6.1.0-5", "5", "1", "6.1.0-56-amd64-dbg", "6.1.0-56-amd6", "?"])
def test_what_is_no_beginning(prefix: str) -> None:
    assert not begins("6.1.0-56-amd64", prefix)


@given(NUMBER, NUMBER, NUMBER, NUMBER)
def test_a_series_begins_its_own_releases_only(major: int, minor: int, other: int, patch: int) -> None:
    release = f"{major}.{other}.{patch}-amd64"
    assert begins(release, f"{major}.{minor}") == (minor == other)


@given(st.tuples(NUMBER, NUMBER, NUMBER), st.tuples(NUMBER, NUMBER, NUMBER))
def test_numbers_are_compared_as_numbers(one: tuple[int, ...], two: tuple[int, ...]) -> None:
    def release(numbers: tuple[int, ...]) -> str:
        return ".".join(map(str, numbers)) + "+deb13-amd64"

    assert (age_key(release(one)) < age_key(release(two))) == (one < two)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.0-9-amd64", "6.1.0-56-amd64"),
        ("6.12.9+deb13-amd64", "6.12.107+deb13-amd64"),
        ("6.12.107+deb12-amd64", "6.12.107+deb13-amd64"),
        ("6.12.90+deb12-amd64", "6.12.90+deb12.1-amd64"),
    ],
)
def test_debian_agrees_on_the_order(older: str, newer: str) -> None:
    debian = subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=False, timeout=60)
    assert debian.returncode == 0
    assert age_key(older) < age_key(newer)


def test_a_release_candidate_is_older_than_its_release() -> None:
    assert age_key("6.13-rc4-amd64") < age_key("6.13-amd64") < age_key("6.13.1-amd64")


def test_the_series_of_a_release() -> None:
    assert series("6.12.107+deb13-amd64") == "6.12"
