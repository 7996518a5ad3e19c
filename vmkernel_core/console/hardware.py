"""``vmk hardware``, in esxcli's grammar: what is on the PCI bus."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from vmkernel_core.console.show import show
from vmkernel_core.console.target import asks
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from vmkernel_core.console.client import Caller

_COLUMNS = (
    "address", "vmkernel_name", "vendor_id", "device_id", "device_class_name", "device_name", "module_name", "engine",
    "bound", "hcl_status", "error",
)  # fmt: skip


@click.group()
def hardware() -> None:
    """Devices of a running vmkernel's machine."""


@hardware.group()
def pci() -> None:
    """The PCI bus."""


@pci.command("list")
@click.option(
    "-c", "--class", "pci_class", default="", metavar="CLASS",
    help="Only devices whose class code begins with these hexadecimal digits: 02 or 0x0200.",
)  # fmt: skip
@asks(config_flags=("--config",))
def pci_list(vmkernel: Caller, as_json: bool, pci_class: str) -> None:
    """Every device, with the HCL's verdict and the module that drives it."""
    from vmkernel_core.console.pci_operations import PciFilter, pci_list

    digits = pci_class.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{0,6}", digits):
        raise UsageError(
            f"{pci_class!r} is no PCI class", remedy="use up to six hexadecimal digits, such as 0200"
        )
    show(vmkernel.call(pci_list, PciFilter(digits)), as_json, _COLUMNS)
