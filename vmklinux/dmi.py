"""The BIOS's description of the board (Linux drivers/firmware/dmi_scan.c)."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "dmi.py",
    "The platform's firmware does not run, so there is no DMI table: no entry matches and no string is known.",
    "dmi_check_system", "dmi_first_match", "dmi_get_system_info", "dmi_find_device", "dmi_match",
)  # fmt: skip
