"""IPsec (Linux net/xfrm): no state is ever handed to a driver, so no frame belongs to one."""

from __future__ import annotations

from vmklinux.api import no_op

no_op(
    "xfrm.py",
    "Null says that there is no room for a frame's IPsec state: it then goes on without.",
    "secpath_set",
)
