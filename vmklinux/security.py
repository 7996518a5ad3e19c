"""What a process may do (Linux kernel/capability.c, security/security.c): who can call into this one may do anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@linux_api("ns_capable")
def capable(linux: Linux, cap: int) -> bool:
    """Whether the caller may do it: yes."""
    return True


no_op(
    "security.py",
    "The kernel is not locked down: whoever runs it can read its memory anyway.",
    "security_locked_down",
)
