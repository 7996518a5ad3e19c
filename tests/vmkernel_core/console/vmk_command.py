"""The real ``vmk`` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "vmkernel_core.console.main"]
#: Seconds after which a command hangs.
LIMIT = 120.0


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, with this tree's packages to be found first."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | changes


def vmk(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run ``vmk`` with these arguments and changes of the environment."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def said(run: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error that tells what went wrong, without its ``vmk: ``."""
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("vmk: ")
    return lines[0].removeprefix("vmk: ")
