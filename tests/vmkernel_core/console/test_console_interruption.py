"""Ctrl-C is noted at once and obeyed at a safe place.

Independent side: the operating system's signals.
"""

from __future__ import annotations

import signal
import time

import pytest

from vmkernel_core.console.interruption import Interruption


def test_one_ctrl_c_waits_for_a_safe_place() -> None:
    with Interruption() as ctrl_c:
        ctrl_c.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.check()


def test_the_second_does_not() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_it_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_wait_ends_with_what_it_waits_for_with_its_limit_or_with_ctrl_c() -> None:
    asked: list[float] = []

    def third(timeout: float) -> bool:
        asked.append(timeout)
        return len(asked) == 3

    def never(timeout: float) -> bool:
        time.sleep(timeout)
        return False

    with Interruption() as ctrl_c:
        assert ctrl_c.wait(third, 10)
        assert all(0 < timeout <= 0.2 for timeout in asked)
        began = time.monotonic()
        assert not ctrl_c.wait(never, 0.3)
        assert 0.3 <= time.monotonic() - began < 5
        assert not ctrl_c.wait(never, 0)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.wait(never, 10)
