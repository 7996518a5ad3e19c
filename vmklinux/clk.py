"""Clocks (Linux drivers/clk/clk.c): only boards without a BIOS describe theirs, so no driver here gets one."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "clk.py",
    "A driver that asks for a clock gets none, and none may be prepared and enabled: Linux too gives 0 for NULL.",
    "clk_get", "clk_put", "clk_prepare", "clk_unprepare", "clk_enable", "clk_disable", "clk_get_rate", "clk_set_rate",
    "devm_clk_get_optional", "devm_clk_get_optional_enabled",
)  # fmt: skip
