"""The benchmark of the compatibility list measures what it says, on few machines.

Independent side: json.loads of the same files, and a bare interpreter, which it runs beside.
"""

from __future__ import annotations

from pathlib import Path

from bench.hcl import DEVICES, measure, write_fleet
from hcl.readers import read


def test_all_figures_come_out() -> None:
    results = measure(3)
    assert results.machines == 3
    assert 0 < results.lookup_floor_us < results.lookup_us
    assert 0 < results.one_floor_seconds < results.one_seconds
    assert 0 < results.fleet_floor_seconds < results.fleet_seconds


def test_a_fleet_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_fleet(tmp_path / name, 2)
    first, second = sorted((tmp_path / "one").iterdir())
    assert first.read_bytes() == (tmp_path / "two" / first.name).read_bytes()
    assert len(read(second).devices) == DEVICES
