"""Memory of a driver's that programs map (Linux mm/memory.c, kernel/dma/mapping.c): no program does."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "memory.py",
    "Reached only from the mmap function of a driver's file, or through memory that it mapped: no file is open.",
    "remap_pfn_range", "generic_access_phys", "dma_mmap_attrs",
)  # fmt: skip
