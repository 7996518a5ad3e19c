"""Limits to power saving (Linux kernel/power/qos.c)."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "qos.py",
    "The CPU's idle states are the host's affair: no latency can be asked for here.",
    "cpu_latency_qos_add_request", "cpu_latency_qos_update_request", "cpu_latency_qos_remove_request",
)  # fmt: skip
no_op(
    "qos.py",
    "It shows a device's flags in sysfs, which is not mounted: nobody sets any.",
    "dev_pm_qos_expose_flags", "dev_pm_qos_hide_flags",
)  # fmt: skip
