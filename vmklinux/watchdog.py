"""Watching for a kernel that hangs, and its restart (Linux kernel/watchdog.c, kernel/reboot.c, kernel/power/main.c)."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "watchdog.py",
    "Nobody watches a world that computes for long: others wait for the baton.",
    "touch_softlockup_watchdog", "arch_touch_nmi_watchdog", "touch_nmi_watchdog",
)  # fmt: skip
no_op(
    "watchdog.py",
    "The machine does not restart under its drivers: each is unloaded before.",
    "register_reboot_notifier", "unregister_reboot_notifier",
)  # fmt: skip
no_op(
    "watchdog.py",
    "The system never sleeps as a whole.",
    "lock_system_sleep", "unlock_system_sleep", "pm_suspend_default_s2idle",
)  # fmt: skip
