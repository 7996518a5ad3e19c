"""Progress shows nothing of a short run, and lines of a long one where there is no terminal.

Independent side: rich's bar on a pseudo-terminal of the operating system.
"""

from __future__ import annotations

import os
import pty
import sys

import pytest

from vmkernel_core.console import progress


def test_a_short_run_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("frames", 3) as shown:
        for done in range(4):
            shown.at(done)
    assert capsys.readouterr() == ("", "")


def test_a_long_run_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with progress.Progress("frames", 40) as shown:
        for done in range(0, 40, 10):
            shown.at(done)
            now[0] += 4
    assert capsys.readouterr() == ("", "frames: 20 of 40\nframes: 30 of 40\n")


def test_a_long_run_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary = pty.openpty()
    with open(primary, "rb", buffering=0) as screen, open(secondary, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(progress, "PATIENCE", 0.0)
        monkeypatch.setenv("TERM", "xterm")
        with progress.Progress("frames", 40) as shown:
            shown.at(0)
            shown.at(30)
        os.set_blocking(primary, False)
        drawn = screen.read()
    assert b"frames" in drawn
    assert b"30/40" in drawn
