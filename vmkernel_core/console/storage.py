"""``vmk storage``, in esxcli's grammar: adapters, devices, paths; and how fast a device is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from vmkernel_core.console.show import show
from vmkernel_core.console.target import asks
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.console.client import Caller

_DEVICES = ("name", "paths", "state", "vendor", "model", "revision", "size", "block_size", "error")

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20}


def _adapter(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-A", "--adapter", metavar="HBA", help="Only this adapter, like vmhba0.")(function)


def _device(*, required: bool) -> Callable[..., Any]:
    told = "The device" if required else "Only this device"
    return click.option(
        "-d", "--device-name", "device", required=required, metavar="NAME",
        help=f"{told}: its name, like naa.5000c50015ea71ac, or a path to it, like vmhba0:C0:T1:L0.",
    )  # fmt: skip


@click.group()
def storage() -> None:
    """Storage of a running vmkernel: adapters, devices, paths; and how fast a device is."""


@storage.group()
def core() -> None:
    """Adapters, the devices behind them, and the paths that lead there."""


@core.group()
def adapter() -> None:
    """Storage adapters: SCSI and RAID controllers."""


@adapter.command("list")
@asks()
def adapter_list(vmkernel: Caller, as_json: bool) -> None:
    """Every adapter, with its driver, state and devices."""
    from vmkernel_core.console.storage_operations import adapter_list

    show(vmkernel.call(adapter_list), as_json)


@adapter.command("rescan")
@_adapter
@click.option("-a", "--all", "every", is_flag=True, help="Every adapter.")
@asks()
def adapter_rescan(vmkernel: Caller, as_json: bool, adapter: str | None, every: bool) -> None:
    """Look for devices that came; what is there stays."""
    from vmkernel_core.console.storage_operations import AdapterFilter, adapter_rescan

    if every == (adapter is not None):
        raise UsageError("one adapter is scanned, or all are", remedy="give -A vmhba0, or --all")
    show(vmkernel.call(adapter_rescan, AdapterFilter(adapter)), as_json)


@adapter.command("stats")
@click.argument("get", type=click.Choice(["get"]), default="get")
@_adapter
@asks()
def adapter_stats_get(vmkernel: Caller, as_json: bool, get: str, adapter: str | None) -> None:  # noqa: ARG001 - a word of grammar
    """Counters of adapters."""
    from vmkernel_core.console.storage_operations import AdapterFilter, adapter_stats_get

    show(vmkernel.call(adapter_stats_get, AdapterFilter(adapter)), as_json)


@core.group()
def device() -> None:
    """Devices that hold blocks: disks, and what RAID controllers make of them."""


@device.command("list")
@_device(required=False)
@asks()
def device_list(vmkernel: Caller, as_json: bool, device: str | None) -> None:
    """Every device, with its paths and its size."""
    from vmkernel_core.console.storage_operations import DeviceFilter, device_list

    show(vmkernel.call(device_list, DeviceFilter(device)), as_json, _DEVICES)


@device.command("get")
@_device(required=True)
@asks()
def device_get(vmkernel: Caller, as_json: bool, device: str) -> None:
    """One device, with what can be done with it."""
    from vmkernel_core.console.storage_operations import DeviceName, device_get

    show(vmkernel.call(device_get, DeviceName(device)), as_json)


@device.command("stats")
@click.argument("get", type=click.Choice(["get"]), default="get")
@_device(required=False)
@asks()
def device_stats_get(vmkernel: Caller, as_json: bool, get: str, device: str | None) -> None:  # noqa: ARG001 - a word of grammar
    """Counters of devices."""
    from vmkernel_core.console.storage_operations import DeviceFilter, device_stats_get

    show(vmkernel.call(device_stats_get, DeviceFilter(device)), as_json)


@core.group()
def path() -> None:
    """Paths: which adapter leads to which device, and where it is there."""


@path.command("list")
@_device(required=False)
@asks()
def path_list(vmkernel: Caller, as_json: bool, device: str | None) -> None:
    """Every path, or those to one device."""
    from vmkernel_core.console.storage_operations import DeviceFilter, path_list

    show(vmkernel.call(path_list, DeviceFilter(device)), as_json)


@storage.command()
@_device(required=True)
@click.option(
    "--block-size", default="4K", show_default=True, metavar="BYTES", help="What a transfer carries; 4K, 1M."
)
@click.option("--depth", type=int, default=32, show_default=True, help="How many transfers are under way.")
@click.option("--read/--write", "read", default=True, help="What they do.  [default: read]")
@click.option("--random/--sequential", "random", default=True, help="Where.  [default: random]")
@click.option("--seconds", type=float, default=5.0, show_default=True, help="For how long, 30 at most.")
@click.option(
    "--yes-destroy-data", is_flag=True, help="What is on the device may be overwritten: for --write."
)
@asks()
def bench(
    vmkernel: Caller,
    as_json: bool,
    device: str,
    block_size: str,
    depth: int,
    read: bool,
    random: bool,
    seconds: float,
    yes_destroy_data: bool,
) -> None:
    """Measure a device: transfers and bytes a second, and how long a transfer takes.

    Writing overwrites what is on it, and has to be confirmed. A running vmkernel serves nobody else meanwhile.
    """
    from vmkernel_core.console.storage_bench import MOST_DEPTH, MOST_SECONDS, Bench, bench

    if not 0 < seconds <= MOST_SECONDS:
        raise UsageError(
            f"{seconds:g} seconds cannot be", remedy=f"use more than 0, at most {MOST_SECONDS:g}"
        )
    if not 1 <= depth <= MOST_DEPTH:
        raise UsageError(f"a depth of {depth} cannot be", remedy=f"use 1 to {MOST_DEPTH}")
    wanted = Bench(
        device,
        "read" if read else "write",
        "random" if random else "sequential",
        _bytes(block_size),
        depth,
        seconds,
        yes_destroy_data,
    )
    show(vmkernel.call(bench, wanted), as_json)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KM]?)", text.upper())
    if match is None:
        raise UsageError(f"{text!r} is no number of bytes", remedy="use 4096, 4K or 1M")
    return int(match[1]) * _UNITS[match[2]]
