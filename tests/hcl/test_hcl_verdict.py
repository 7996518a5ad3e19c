"""The verdict as data, overrides, and what importing the package costs.

Independent side: the standard library's json reads what is written, a fresh interpreter does the import.
"""

from __future__ import annotations

import doctest
import json
import logging
import subprocess
import sys

import msgspec
import pytest

import hcl


def verdict() -> hcl.Verdict:
    return hcl.lookup(0x14E4, 0x1645, 0x1028, 0xFEED, 0x020000)


def test_a_verdict_is_plain_json() -> None:
    told = json.loads(msgspec.json.encode(verdict()))
    assert told == {
        "device": "14e4:1645",
        "subsystem": "1028:feed",
        "pci_class": "020000",
        "kernel": "6.1",
        "rung": "vendor:device",
        "driver": "net/tg3",
        "module": "tg3",
        "status": "unknown",
        "evidence": None,
        "losers": [
            {
                "driver": "net/bcm5700",
                "module": "tg3",
                "rung": "vendor:device",
                "reason": "net/tg3 has priority 10 over 0: "
                "where both list a chip alike, ESX 3.5's own PCI map gives it to tg3",
            }
        ],
        "reason": "14e4:1645 is net/tg3's by vendor and device; tg3 serves it in Linux 6.1.",
        "claimants": [],
        "proof": None,
        "function": None,
        "obstacle": "",
        "limits": [],
        "firmware": None,
        "overlay": None,
        "engines": ["linux"],
        "engine": "linux",
    }
    assert msgspec.convert(told, hcl.Verdict) == verdict()


def test_a_verdict_cannot_be_changed() -> None:
    for field in hcl.Verdict.__struct_fields__:
        with pytest.raises(AttributeError, match="immutable"):
            setattr(verdict(), field, None)


@pytest.mark.parametrize(
    ("device", "instead_of"), [(0x100E, "e1000"), (0xFFFF, "no module")], ids=["listed", "unlisted"]
)
def test_an_override_is_logged_and_unsupported(
    device: int, instead_of: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = hcl.lookup(0x8086, device, 0, 0, 0x020000)
    with caplog.at_level(logging.WARNING):
        after = before.overridden("e1000e")
    assert (after.module, after.status, after.evidence) == ("e1000e", "unsupported", None)
    assert after.reason == f"an operator chose e1000e instead of {instead_of} for 8086:{device:04x}."
    assert (after.driver, after.rung, after.losers) == (before.driver, before.rung, before.losers)
    ((name, level, message),) = caplog.record_tuples
    assert (name, level) == ("hcl.verdict", logging.WARNING)
    assert after.reason.rstrip(".") in message


def test_an_override_that_says_the_same_is_none(caplog: pytest.LogCaptureFixture) -> None:
    before = hcl.lookup(0x8086, 0x100E, 0, 0, 0x020000)
    assert before.overridden("e1000") == before
    assert not caplog.records


def test_what_is_overridden_stays_so() -> None:
    again = hcl.lookup(0x8086, 0x100E, 0, 0, 0x020000).overridden("e1000e").overridden("e1000")
    assert (again.module, again.status) == ("e1000", "unsupported")


def fresh(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_importing_is_cheap() -> None:
    program = "import time; t = time.perf_counter(); import hcl; print(time.perf_counter() - t)"
    assert min(float(fresh(program)) for _ in range(5)) < 0.015


def test_importing_reads_nothing_and_a_lookup_needs_nobody_elses_package() -> None:
    program = """
import hcl, json, sys
imported = list(sys.modules)
hcl.lookup(1, 2, 3, 4, 5), hcl.device_name(1, 2)
print(json.dumps([imported, list(sys.modules)]))
"""
    imported, used = json.loads(fresh(program))
    assert [name for name in imported if name.startswith("hcl.") or name == "msgspec"] == []
    assert "hcl.reading" in used
    assert {name.partition(".")[0] for name in used}.isdisjoint(
        {"vmklinux", "vmkernel_core", "native_drivers"}
    )


def test_public_names() -> None:
    assert [getattr(hcl, name).__name__ for name in hcl.__all__] == hcl.__all__
    other = "nothing"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(hcl, other)


def test_the_example_in_the_package() -> None:
    result = doctest.testmod(hcl)
    assert (result.failed, result.attempted) == (0, 3)
