"""Limits to power saving (Linux kernel/power/qos.c)."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "qos.py",
    "The CPU's idle states are the host's affair: no latency can be asked for here.",
    "cpu_latency_qos_add_request", "cpu_latency_qos_update_request", "cpu_latency_qos_remove_request",
)  # fmt: skip
