"""``vmk iscsi``, in esxcli's grammar: sessions with targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmkernel_core.console.show import show
from vmkernel_core.console.target import asks

if TYPE_CHECKING:
    from vmkernel_core.console.client import Caller


@click.group()
def iscsi() -> None:
    """Sessions of a running vmkernel with iSCSI targets."""


@iscsi.group()
def session() -> None:
    """Sessions with targets: each is a target of an adapter."""


@session.command("list")
@click.option("-A", "--adapter", metavar="HBA", help="Only those of this adapter, like vmhba0.")
@asks()
def session_list(vmkernel: Caller, as_json: bool, adapter: str | None) -> None:
    """Every session, or those of one adapter."""
    from vmkernel_core.console.iscsi_operations import session_list
    from vmkernel_core.console.storage_operations import AdapterFilter

    show(vmkernel.call(session_list, AdapterFilter(adapter)), as_json)
