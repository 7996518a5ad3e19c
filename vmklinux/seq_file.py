"""Files that are generated (Linux fs/seq_file.c). What prints into one runs from the image."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "seq_file.py",
    "No file of a driver's can be opened: neither debugfs nor proc is there.",
    "seq_open", "seq_read", "seq_lseek", "seq_release", "single_open", "single_release", "seq_open_private",
    "seq_release_private",
)  # fmt: skip
