"""Operations on iSCSI initiators, their targets and sessions: ``vmk iscsi``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from vmkernel_core.console.protocol import Nothing, operation
from vmkernel_core.console.storage_operations import AdapterFilter, adapters
from vmkernel_core.errors import NotSupported
from vmkernel_core.storage.adapter import AdapterState
from vmkernel_core.storage.iscsi import ChapDirection, ChapLevel, DiscoveryMethod, SessionState

if TYPE_CHECKING:
    from vmkernel_core.boot import VMkernel
    from vmkernel_core.storage.adapter import StorageAdapter
    from vmkernel_core.storage.iscsi import IscsiControls, TargetSession


class SendtargetAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an initiator, and a portal, ``host[:port]``."""

    adapter: str
    address: str


class TargetFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an initiator, the name of a target; none for all."""

    adapter: str | None = None
    name: str | None = None


class SessionFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an initiator, the name of a target, the ISID of a session; none for all."""

    adapter: str | None = None
    name: str | None = None
    isid: str | None = None


class SessionTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an initiator, the name of a target, the ISID of one of its sessions; none for all of them."""

    adapter: str
    name: str
    isid: str | None = None


class ChapChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: an initiator, and whose proof is meant."""

    adapter: str
    direction: ChapDirection = "uni"


class IscsiAdapter(msgspec.Struct, frozen=True):
    """An initiator; ``uid`` is its iSCSI name."""

    adapter: str
    driver: str
    state: AdapterState
    uid: str
    description: str


class Sendtarget(msgspec.Struct, frozen=True):
    """A portal that is asked for its targets."""

    adapter: str
    sendtarget: str


class IscsiTarget(msgspec.Struct, frozen=True):
    """A target. ``last_error`` is what a login to it failed with, while there is none."""

    adapter: str
    target: str
    alias: str
    discovery_method: DiscoveryMethod
    last_error: str | None


class IscsiSession(msgspec.Struct, frozen=True):
    """A session with a target. ``logins`` counts them; ``error`` is what ended the last one, while there is none.

    What was agreed on at the login is null while there is none, or when the target told nothing of it.
    """

    adapter: str
    target: str
    isid: str
    target_id: int
    portal: str
    state: SessionState
    logins: int
    authentication_method: str | None
    header_digest: str | None
    data_digest: str | None
    target_portal_group_tag: int | None
    initial_r2t: bool | None
    immediate_data: bool | None
    first_burst_length: int | None
    max_burst_length: int | None
    max_outstanding_r2t: int | None
    error_recovery_level: int | None
    error: str | None


class IscsiChap(msgspec.Struct, frozen=True):
    """How CHAP is used in one direction. There is no secret in it."""

    adapter: str
    direction: ChapDirection
    name: str
    level: ChapLevel


def _initiators(host: VMkernel, name: str | None) -> list[tuple[StorageAdapter, IscsiControls]]:
    """The adapter of that name, or all that are initiators. UsageError, NotSupported."""
    found = [(one, controls) for one in adapters(host, name) if (controls := one.iscsi) is not None]
    if name is not None and not found:
        raise NotSupported(f"{name} is no iSCSI initiator")
    return found


@operation("iscsi.adapter.list", Nothing, list[IscsiAdapter])
def adapter_list(host: VMkernel, _: Nothing) -> list[IscsiAdapter]:
    """Every initiator."""
    return [
        IscsiAdapter(adapter.name, adapter.driver, adapter.state, controls.name(), adapter.model)
        for adapter, controls in _initiators(host, None)
    ]


@operation("iscsi.adapter.discovery.sendtarget.list", AdapterFilter, list[Sendtarget])
def sendtarget_list(host: VMkernel, wanted: AdapterFilter) -> list[Sendtarget]:
    """Portals that are asked."""
    return [
        Sendtarget(adapter.name, portal)
        for adapter, controls in _initiators(host, wanted.adapter)
        for portal in controls.sendtargets()
    ]


@operation("iscsi.adapter.discovery.sendtarget.add", SendtargetAddress, list[Sendtarget])
def sendtarget_add(host: VMkernel, wanted: SendtargetAddress) -> list[Sendtarget]:
    """Ask one more; all of the initiator."""
    for _, controls in _initiators(host, wanted.adapter):
        controls.add_sendtarget(wanted.address)
    return sendtarget_list(host, AdapterFilter(wanted.adapter))


@operation("iscsi.adapter.discovery.sendtarget.remove", SendtargetAddress, list[Sendtarget])
def sendtarget_remove(host: VMkernel, wanted: SendtargetAddress) -> list[Sendtarget]:
    """Ask one less; all of the initiator."""
    for _, controls in _initiators(host, wanted.adapter):
        controls.remove_sendtarget(wanted.address)
    return sendtarget_list(host, AdapterFilter(wanted.adapter))


@operation("iscsi.adapter.target.list", TargetFilter, list[IscsiTarget])
def target_list(host: VMkernel, wanted: TargetFilter) -> list[IscsiTarget]:
    """Targets that initiators know."""
    return [
        IscsiTarget(adapter.name, one.name, one.alias, one.method, str(one.error) if one.error else None)
        for adapter, controls in _initiators(host, wanted.adapter)
        for one in controls.targets()
        if wanted.name in (None, one.name)
    ]


@operation("iscsi.session.list", SessionFilter, list[IscsiSession])
def session_list(host: VMkernel, wanted: SessionFilter) -> list[IscsiSession]:
    """Sessions."""
    return [
        _session(adapter.name, one)
        for adapter, controls in _initiators(host, wanted.adapter)
        for one in controls.sessions()
        if wanted.name in (None, one.target) and wanted.isid in (None, one.isid)
    ]


@operation("iscsi.session.add", SessionTarget, list[IscsiSession])
def session_add(host: VMkernel, wanted: SessionTarget) -> list[IscsiSession]:
    """Log in; the sessions with that target."""
    for _, controls in _initiators(host, wanted.adapter):
        controls.add_session(wanted.name, wanted.isid)
    return session_list(host, SessionFilter(wanted.adapter, wanted.name, wanted.isid))


@operation("iscsi.session.remove", SessionTarget, list[IscsiSession])
def session_remove(host: VMkernel, wanted: SessionTarget) -> list[IscsiSession]:
    """Log out; the sessions with that target."""
    for _, controls in _initiators(host, wanted.adapter):
        controls.remove_session(wanted.name, wanted.isid)
    return session_list(host, SessionFilter(wanted.adapter, wanted.name, wanted.isid))


@operation("iscsi.adapter.auth.chap.get", ChapChoice, IscsiChap)
def chap_get(host: VMkernel, wanted: ChapChoice) -> IscsiChap:
    """How CHAP is used."""
    [(adapter, controls)] = _initiators(host, wanted.adapter)
    chap = controls.chap(wanted.direction)
    return IscsiChap(adapter.name, wanted.direction, chap.name, chap.level)


def _session(adapter: str, one: TargetSession) -> IscsiSession:
    told = one.negotiated
    return IscsiSession(
        adapter=adapter,
        target=one.target,
        isid=one.isid,
        target_id=one.id,
        portal=one.portal,
        state=one.state,
        logins=one.logins,
        authentication_method=told.get("AuthMethod"),
        header_digest=told.get("HeaderDigest"),
        data_digest=told.get("DataDigest"),
        target_portal_group_tag=_number(told.get("TargetPortalGroupTag")),
        initial_r2t=_flag(told.get("InitialR2T")),
        immediate_data=_flag(told.get("ImmediateData")),
        first_burst_length=_number(told.get("FirstBurstLength")),
        max_burst_length=_number(told.get("MaxBurstLength")),
        max_outstanding_r2t=_number(told.get("MaxOutstandingR2T")),
        error_recovery_level=_number(told.get("ErrorRecoveryLevel")),
        error=str(one.error) if one.error else None,
    )


def _number(text: str | None) -> int | None:
    """A number of a login's text (RFC 7143, 6.1), which the target may have written as it liked."""
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None


def _flag(text: str | None) -> bool | None:
    return {"Yes": True, "No": False}.get(text or "")
