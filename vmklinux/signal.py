"""Signals of tasks (Linux kernel/signal.c): a world gets none."""

from vmklinux.api import no_op

no_op(
    "signal.py",
    "Nobody can send a world a signal, so none is ever pending.",
    "flush_signals",
)
