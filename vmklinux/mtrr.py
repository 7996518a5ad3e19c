"""How the CPU caches registers (Linux arch/x86/kernel/cpu/mtrr)."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "mtrr.py",
    "Every access to registers traps and goes out by itself: there is nothing to combine.",
    "arch_phys_wc_add", "arch_phys_wc_del", "arch_io_reserve_memtype_wc", "arch_io_free_memtype_wc",
)  # fmt: skip
