"""Copies to and from a process (Linux arch/x86/lib/usercopy_64.c): who calls a driver's ioctl here is this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@linux_api(
    "_copy_to_user", named=False, note="A bad address stops the driver instead of giving the bytes left over."
)
def copy_to_user(linux: Linux, to: int, source: int, n: int) -> int:
    """Copy from the driver to its caller; 0 bytes are left over."""
    linux.call("memcpy", to, source, n)
    return 0


@linux_api(
    "_copy_from_user",
    named=False,
    note="A bad address stops the driver instead of giving the bytes left over.",
)
def copy_from_user(linux: Linux, to: int, source: int, n: int) -> int:
    """Copy from the driver's caller to the driver; 0 bytes are left over."""
    linux.call("memcpy", to, source, n)
    return 0


no_op(
    "uaccess.py",
    "What is copied has been allocated here and has no slab of Linux's to be checked.",
    "__check_object_size",
)
