"""Tests that share what they boot are run by one worker of pytest-xdist. Independent of us: xdist, which tells them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 120.0


def test_groups_are_heeded() -> None:
    """Else a host would be booted for each test: pytest-xdist has to see the marks, and pytest to take its names."""
    options = ("-n", "1", "--dist", "loadgroup", "-v", "-p", "no:cacheprovider")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/vmkernel_core/test_cores.py"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "test_a_core_that_is_not_there_is_refused@test_cores.py" in run.stdout
