"""The operation ``vmk system hcl get``: the HCL's verdicts on the machine of a running vmkernel."""

from __future__ import annotations

import platform
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from hcl.inventory import Inventory, PciDevice
from hcl.report import MachineReport
from vmkernel_core.adapter import SERIES
from vmkernel_core.console.protocol import Nothing, operation
from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.boot import VMkernel


@operation("system.hcl.get", Nothing, MachineReport)
def hcl_get(host: VMkernel, _: Nothing) -> MachineReport:
    """What ``hcl validate`` says of an inventory of this machine, with all that an operator overrode: of each device it
    judges the driver of the engine that is to have it.
    """
    from hcl.judging import Judge
    from hcl.reading import installed

    adapters = sorted(host.adapters, key=lambda one: one.function.address)
    engines = {str(one.function.address): one.engine for one in adapters}
    ask = partial(Judge, installed(), profile=host.policy, overrides=host.overrides, engines=engines)
    try:
        kernel = host.kernel
    except VmkError:  # a host without one
        judge = ask(SERIES)
    else:
        judge = ask(kernel.release, kernel)
    inventory = Inventory(
        host=platform.node(), source="the running vmkernel", devices=tuple(map(_device, adapters))
    )
    return msgspec.structs.replace(judge.machine(inventory), tainted=host.taints)


def _device(adapter: Adapter) -> PciDevice:
    function = adapter.function
    return PciDevice(
        address=str(function.address),
        vendor=f"{function.vendor:04x}",
        device=f"{function.device:04x}",
        subvendor=f"{function.subsystem_vendor:04x}",
        subdevice=f"{function.subsystem_device:04x}",
        pci_class=f"{function.class_code:06x}",
        revision=f"{function.revision:02x}",
        driver=adapter.module if adapter.bound else "",
    )
