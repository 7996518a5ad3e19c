"""Device names from a pci.ids file.

Independent side: ``parsed`` below reads the whole file line by line as its format is described, where the
package searches; and Debian's own pci.ids.
"""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hcl
from hcl import names

SAMPLE = """# comment
#\t100e  not a device

1022  AMD
\t2000  79c970 [PCnet32 LANCE]
\t\t1014 2000  NetFinity 10/100 Fast Ethernet
8086  Intel Corporation
\t0007  82379AB
# a comment between devices
\t100e  82540EM Gigabit Ethernet Controller
\t\t1af4 1100  QEMU Virtual Machine
\t10d3  82574L \u2013 Gigabit
ffff  Illegal Vendor ID


C 02  Network controller
\t00  Ethernet controller
"""


def parsed(text: str) -> dict[tuple[int, int], str]:
    """All names of a pci.ids file."""
    found: dict[tuple[int, int], str] = {}
    vendor: tuple[int, str] | None = None
    for line in text.splitlines():
        head, _, name = line.strip("\t").partition("  ")
        if not line or line.startswith(("#", "\t\t")):
            continue
        if not line.startswith("\t"):
            # Behind the vendors come the classes, "C 02  Network controller".
            vendor = (int(head, 16), name) if re.fullmatch("[0-9a-f]{4}", head) else None
        elif vendor:
            found[vendor[0], int(head, 16)] = f"{vendor[1]} {name}"
    return found


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    caches = names.device_name, names._database
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.mark.parametrize("compressed", [False, True])
def test_names_come_from_the_first_file_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    place = tmp_path / ("pci.ids.gz" if compressed else "pci.ids")
    place.write_bytes(gzip.compress(SAMPLE.encode()) if compressed else SAMPLE.encode())
    monkeypatch.setattr(names, "PLACES", (str(tmp_path / "absent"), str(place), str(tmp_path / "later")))
    assert hcl.device_name(0x8086, 0x100E) == "Intel Corporation 82540EM Gigabit Ethernet Controller"
    assert hcl.device_name(0x8086, 0x10D3) == "Intel Corporation 82574L \u2013 Gigabit"
    assert hcl.device_name(0x1022, 0x2000) == "AMD 79c970 [PCnet32 LANCE]"
    for vendor, device in [(0x1022, 0x100E), (0x8086, 0x2000), (0x8086, 0x1AF4), (0xFFFF, 0), (1, 1)]:
        assert hcl.device_name(vendor, device) is None


def test_no_file_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PLACES", (str(tmp_path / "absent"),))
    assert hcl.device_name(0x8086, 0x100E) is None


def test_a_damaged_file_is_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, cut, good = tmp_path / "a.gz", tmp_path / "b.gz", tmp_path / "c"
    bad.write_bytes(b"no gzip")
    cut.write_bytes(gzip.compress(SAMPLE.encode())[:-20])
    good.write_text(SAMPLE)
    monkeypatch.setattr(names, "PLACES", (str(bad), str(cut), str(good)))
    with caplog.at_level(logging.WARNING):
        assert hcl.device_name(0x1022, 0x2000) == "AMD 79c970 [PCnet32 LANCE]"
    assert [str(place) in message for place, message in zip((bad, cut), caplog.messages, strict=True)] == [
        True
    ] * 2


WORD = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
ID = st.integers(0, 0xFFFF)


@given(st.dictionaries(ID, st.tuples(WORD, st.dictionaries(ID, WORD, max_size=4)), max_size=6), ID, ID)
def test_the_search_finds_what_a_reading_finds(
    vendors: dict[int, tuple[str, dict[int, str]]], vendor: int, device: int
) -> None:
    text = "".join(
        f"{number:04x}  {name}\n"
        + "".join(f"\t{each:04x}  {title}\n\t\t8086 100e  Sub\n" for each, title in devices.items())
        for number, (name, devices) in vendors.items()
    )
    whole = parsed(text)
    database = b"\n" + text.encode()
    for ids in [*whole, (vendor, device), *((number, device) for number in vendors)]:
        assert names.find_name(database, *ids) == whole.get(ids)


def test_the_systems_own_file_reads_the_same() -> None:
    """The file is Debian's, from its package pci.ids."""
    whole = parsed(names._database(names.PLACES).decode(errors="replace"))
    assert whole[0x8086, 0x100E].startswith("Intel Corporation 82540EM")
    for ids in [(0x8086, 0x100E), (0x1000, 0x0054), (0x14E4, 0x1644), (0x8086, 0xFFFF), (0x0000, 0x0000)]:
        assert hcl.device_name(*ids) == whole.get(ids)
