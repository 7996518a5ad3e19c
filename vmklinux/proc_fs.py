"""The proc file system (Linux fs/proc/generic.c): it is not mounted."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "proc_fs.py",
    "No proc file system is mounted: nobody could open the file.",
    "proc_mkdir", "proc_mkdir_data", "proc_create", "proc_create_data", "proc_create_single_data",
    "proc_create_seq_private",
    "proc_remove", "remove_proc_entry", "remove_proc_subtree", "proc_set_size", "proc_symlink",
)  # fmt: skip
