"""Operations on sessions with targets over a network: ``vmk iscsi``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from vmkernel_core.console.protocol import operation
from vmkernel_core.console.storage_operations import AdapterFilter, adapters
from vmkernel_core.storage.adapter import SessionState

if TYPE_CHECKING:
    from vmkernel_core.boot import VMkernel


class IscsiSession(msgspec.Struct, frozen=True):
    """A session with a target. ``logins`` counts them; ``error`` is what ended the last one, while there is none."""

    adapter: str
    target_id: int
    target: str
    portal: str
    state: SessionState
    logins: int
    error: str | None


@operation("iscsi.session.list", AdapterFilter, list[IscsiSession])
def session_list(host: VMkernel, wanted: AdapterFilter) -> list[IscsiSession]:
    """Sessions, of all adapters or of one."""
    return [
        IscsiSession(
            adapter=adapter.name,
            target_id=one.id,
            target=one.target,
            portal=one.portal,
            state=one.state,
            logins=one.logins,
            error=str(one.error) if one.error else None,
        )
        for adapter in adapters(host, wanted.adapter)
        for one in adapter.target_sessions()
    ]
