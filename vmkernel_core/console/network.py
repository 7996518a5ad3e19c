"""``vmk network``, in esxcli's grammar: uplinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from vmkernel_core.console.show import show
from vmkernel_core.console.target import asks

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.console.client import Caller

_COLUMNS = (
    "name", "pci_device", "driver", "state", "admin_status", "link_status", "speed", "duplex", "mac", "mtu",
    "description",
)  # fmt: skip


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-n", "--nic-name", "name", required=True, metavar="NIC", help="The uplink, like vmnic0."
    )(function)


@click.group()
def network() -> None:
    """Uplinks of a running vmkernel: see them, open and close them, change them."""


@network.group()
def nic() -> None:
    """Uplinks: network devices as the hypervisor sees them."""


@nic.command("list")
@asks()
def nic_list(vmkernel: Caller, as_json: bool) -> None:
    """Every uplink, with its device, driver and link."""
    from vmkernel_core.console.nic_operations import nic_list

    show(vmkernel.call(nic_list), as_json, _COLUMNS)


@nic.command("get")
@_named
@asks()
def nic_get(vmkernel: Caller, as_json: bool, name: str) -> None:
    """One uplink, with all that its driver tells of it."""
    from vmkernel_core.console.nic_operations import NicName, nic_get

    show(vmkernel.call(nic_get, NicName(name)), as_json)


@nic.command("stats")
@click.argument("get", type=click.Choice(["get"]), default="get")
@_named
@asks()
def nic_stats_get(vmkernel: Caller, as_json: bool, get: str, name: str) -> None:  # noqa: ARG001 - a word of grammar
    """The counters of an uplink, and its driver's own."""
    from vmkernel_core.console.nic_operations import NicName, nic_stats_get

    show(vmkernel.call(nic_stats_get, NicName(name)), as_json)


@nic.command("up")
@_named
@asks()
def nic_up(vmkernel: Caller, as_json: bool, name: str) -> None:
    """Open an uplink; its link comes up some time later."""
    from vmkernel_core.console.nic_operations import NicName, nic_up

    show(vmkernel.call(nic_up, NicName(name)), as_json)


@nic.command("down")
@_named
@asks()
def nic_down(vmkernel: Caller, as_json: bool, name: str) -> None:
    """Close an uplink: no frame and no interrupt comes from it any more."""
    from vmkernel_core.console.nic_operations import NicName, nic_down

    show(vmkernel.call(nic_down, NicName(name)), as_json)


@nic.command("suspend")
@_named
@asks()
def nic_suspend(vmkernel: Caller, as_json: bool, name: str) -> None:
    """Put an uplink to sleep; its wake-on-LAN setting tells what may wake the machine."""
    from vmkernel_core.console.nic_operations import NicName, nic_suspend

    show(vmkernel.call(nic_suspend, NicName(name)), as_json)


@nic.command("resume")
@_named
@asks()
def nic_resume(vmkernel: Caller, as_json: bool, name: str) -> None:
    """Wake an uplink up; its link comes back some time later."""
    from vmkernel_core.console.nic_operations import NicName, nic_resume

    show(vmkernel.call(nic_resume, NicName(name)), as_json)


@nic.command("set")
@_named
@click.option("--mtu", type=int, metavar="BYTES", help="The largest payload of a frame.")
@click.option("--mac", metavar="ADDRESS", help="The MAC address, like 52:54:00:12:34:56.")
@click.option("-a", "--auto", is_flag=True, help="Negotiate speed and duplex.")
@click.option("-S", "--speed", type=int, metavar="MBPS", help="Force this speed, with --duplex.")
@click.option("-D", "--duplex", type=click.Choice(["half", "full"]), help="Force this duplex, with --speed.")
@click.option(
    "-w", "--wake-on-lan", metavar="EVENTS", help='What wakes the machine: "magic,unicast", or "none".'
)
@click.option(
    "-l", "--message-level", metavar="SUBJECTS", help='What the driver logs: "drv,probe,link", or "none".'
)
@asks()
def nic_set(
    vmkernel: Caller,
    as_json: bool,
    name: str,
    mtu: int | None,
    mac: str | None,
    auto: bool,
    speed: int | None,
    duplex: Literal["half", "full"] | None,
    wake_on_lan: str | None,
    message_level: str | None,
) -> None:
    """Change settings of an uplink. What was changed before one that fails stays so."""
    from vmkernel_core.console.nic_operations import NicSettings, nic_set

    settings = NicSettings(
        name,
        mtu,
        mac,
        auto,
        speed,
        duplex,
        wake_on_lan=_words(wake_on_lan),
        message_level=_words(message_level),
    )
    show(vmkernel.call(nic_set, settings), as_json)


def _words(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text == "none" else text.split(",")
