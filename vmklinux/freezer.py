"""Stopping threads before the machine sleeps (Linux kernel/freezer.c)."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "freezer.py",
    "Suspending calls the drivers' own functions; no world is stopped for it, so none is ever to be frozen.",
    "set_freezable", "__refrigerator", "freezing_slow_path",
)  # fmt: skip
