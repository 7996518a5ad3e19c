"""The benchmark of vmkiscsi runs. Independent of us: tgt, and libiscsi's own program as the floor."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench import iscsi


def test_both_sides_read_from_the_same_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iscsi, "SIZES", (4096,))
    monkeypatch.setattr(iscsi, "DEPTHS", (8,))
    done = CliRunner().invoke(iscsi.main, ["--seconds=1", "--rounds=1", "--json"])
    assert done.exit_code == 0, done.output
    [case] = json.loads(done.stdout)
    assert (case["size"], case["depth"]) == (4096, 8)
    assert min(case["device"], case["floor"]) > 0
    assert case["of_floor"] == case["device"] / case["floor"]


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iscsi, "_SBIN", {"PATH": "/nonexistent"})
    monkeypatch.setenv("PATH", "/nonexistent")
    done = CliRunner().invoke(iscsi.main, ["--seconds=1", "--rounds=1"])
    assert done.exit_code == 1
    assert "apt-get install tgt" in done.output
