"""``vmk iscsi``, in esxcli's grammar: initiators, portals, targets, sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vmkernel_core.console.show import show
from vmkernel_core.console.target import asks

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.console.client import Caller
    from vmkernel_core.storage.iscsi import ChapDirection

_SESSIONS = (
    "adapter", "target", "isid", "portal", "state", "logins", "authentication_method", "header_digest",
    "data_digest", "error",
)  # fmt: skip


def _adapter(*, required: bool) -> Callable[..., Any]:
    told = "The initiator, like vmhba0." if required else "Only this initiator, like vmhba0."
    return click.option("-A", "--adapter", required=required, metavar="HBA", help=told)


def _name(*, required: bool) -> Callable[..., Any]:
    told = "The target." if required else "Only this target."
    return click.option("-n", "--name", required=required, metavar="IQN", help=told)


_isid = click.option("-s", "--isid", metavar="ISID", help="Only this session, by its ISID.")
_address = click.option(
    "-a", "--address", required=True, metavar="HOST[:PORT]", help="The portal; its port is 3260 if none is given."
)  # fmt: skip


@click.group()
def iscsi() -> None:
    """iSCSI initiators of a running vmkernel, their targets and sessions."""


@iscsi.group()
def adapter() -> None:
    """Initiators: where they look for targets, what they found, how they prove who they are."""


@adapter.command("list")
@asks()
def adapter_list(vmkernel: Caller, as_json: bool) -> None:
    """Every initiator, with its iSCSI name as its UID."""
    from vmkernel_core.console.iscsi_operations import adapter_list

    show(vmkernel.call(adapter_list), as_json)


@adapter.group()
def discovery() -> None:
    """How targets are found."""


@discovery.group()
def sendtarget() -> None:
    """Portals that are asked for their targets."""


@sendtarget.command("list")
@_adapter(required=False)
@asks()
def sendtarget_list(vmkernel: Caller, as_json: bool, adapter: str | None) -> None:
    """Every portal that is asked."""
    from vmkernel_core.console.iscsi_operations import sendtarget_list
    from vmkernel_core.console.storage_operations import AdapterFilter

    show(vmkernel.call(sendtarget_list, AdapterFilter(adapter)), as_json)


@sendtarget.command("add")
@_adapter(required=True)
@_address
@asks()
def sendtarget_add(vmkernel: Caller, as_json: bool, adapter: str, address: str) -> None:
    """Ask one more portal, from the next `vmk storage core adapter rescan` on."""
    from vmkernel_core.console.iscsi_operations import SendtargetAddress, sendtarget_add

    show(vmkernel.call(sendtarget_add, SendtargetAddress(adapter, address)), as_json)


@sendtarget.command("remove")
@_adapter(required=True)
@_address
@asks()
def sendtarget_remove(vmkernel: Caller, as_json: bool, adapter: str, address: str) -> None:
    """Do not ask a portal any more; sessions stay."""
    from vmkernel_core.console.iscsi_operations import SendtargetAddress, sendtarget_remove

    show(vmkernel.call(sendtarget_remove, SendtargetAddress(adapter, address)), as_json)


@adapter.group("target")
def target() -> None:
    """Targets that initiators know."""


@target.command("list")
@_adapter(required=False)
@_name(required=False)
@asks()
def target_list(vmkernel: Caller, as_json: bool, adapter: str | None, name: str | None) -> None:
    """Every target, and why it cannot be used if it cannot."""
    from vmkernel_core.console.iscsi_operations import TargetFilter, target_list

    show(vmkernel.call(target_list, TargetFilter(adapter, name)), as_json)


@adapter.group()
def auth() -> None:
    """How initiator and targets prove who they are."""


@auth.group()
def chap() -> None:
    """CHAP, by names and secrets."""


@chap.command("get")
@_adapter(required=True)
@click.option(
    "-d", "--direction", type=click.Choice(["uni", "mutual"]), default="uni", show_default=True,
    help="Whose proof: the initiator's, or the target's.",
)  # fmt: skip
@asks()
def chap_get(vmkernel: Caller, as_json: bool, adapter: str, direction: ChapDirection) -> None:
    """Name and level, and never the secret. What they are is set by parameters of the driver."""
    from vmkernel_core.console.iscsi_operations import ChapChoice, chap_get

    show(vmkernel.call(chap_get, ChapChoice(adapter, direction)), as_json)


@iscsi.group()
def session() -> None:
    """Sessions with targets: each is a target of an adapter."""


@session.command("list")
@_adapter(required=False)
@_name(required=False)
@_isid
@asks()
def session_list(
    vmkernel: Caller, as_json: bool, adapter: str | None, name: str | None, isid: str | None
) -> None:
    """Every session, with what was agreed on at the login."""
    from vmkernel_core.console.iscsi_operations import SessionFilter, session_list

    show(vmkernel.call(session_list, SessionFilter(adapter, name, isid)), as_json, _SESSIONS)


@session.command("add")
@_adapter(required=True)
@_name(required=True)
@_isid
@asks()
def session_add(vmkernel: Caller, as_json: bool, adapter: str, name: str, isid: str | None) -> None:
    """Log in to a known target again, where there is no login."""
    from vmkernel_core.console.iscsi_operations import SessionTarget, session_add

    show(vmkernel.call(session_add, SessionTarget(adapter, name, isid)), as_json, _SESSIONS)


@session.command("remove")
@_adapter(required=True)
@_name(required=True)
@_isid
@asks()
def session_remove(vmkernel: Caller, as_json: bool, adapter: str, name: str, isid: str | None) -> None:
    """Take the devices of a target away and log out. It stays so until `add`."""
    from vmkernel_core.console.iscsi_operations import SessionTarget, session_remove

    show(vmkernel.call(session_remove, SessionTarget(adapter, name, isid)), as_json, _SESSIONS)
