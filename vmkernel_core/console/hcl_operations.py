"""The operation ``vmk system hcl get``: the HCL's verdicts on the machine of a running vmkernel."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import msgspec

from hcl.inventory import Inventory, PciDevice
from hcl.report import DeviceReport, Judgement, MachineReport, counts_of, exit_code_of
from hcl.verdict import Status
from vmkernel_core.console.protocol import Nothing, operation
from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.boot import VMkernel

#: The series for which the list is asked where no kernel is.
SERIES = "6.1"


@operation("system.hcl.get", Nothing, MachineReport)
def hcl_get(host: VMkernel, _: Nothing) -> MachineReport:
    """What ``hcl validate`` says of an inventory of this machine, with all that an operator overrode.

    Of a device that a driver in Python has, or is to have, that driver is judged and not Linux's module.
    """
    from hcl.judging import Judge
    from hcl.reading import installed

    try:
        kernel = host.kernel
    except VmkError:  # a host without one
        judge = Judge(installed(), SERIES, profile=host.policy, overrides=host.overrides)
    else:
        judge = Judge(installed(), kernel.release, kernel, profile=host.policy, overrides=host.overrides)
    adapters = sorted(host.adapters, key=lambda one: one.function.address)
    inventory = Inventory(
        host=platform.node(), source="the running vmkernel", devices=tuple(map(_device, adapters))
    )
    report = judge.machine(inventory)
    devices = tuple(
        _by_python(device, adapter) if adapter.engine == "native" else device
        for device, adapter in zip(report.devices, adapters, strict=True)
    )
    counts = counts_of(devices)
    return msgspec.structs.replace(
        report, devices=devices, counts=counts, exit_code=exit_code_of(counts), tainted=host.taints
    )


def _by_python(report: DeviceReport, adapter: Adapter) -> DeviceReport:
    found = Judgement(
        Status.COMPATIBLE if adapter.bound else Status.UNSUPPORTED,
        f"The driver {adapter.module} in Python has it." if adapter.bound else str(adapter.error),
    )
    return msgspec.structs.replace(
        report,
        status=found.status,
        reason=found.reason,
        engine="native",
        module=adapter.module,
        driver=found,
        firmware=Judgement(Status.SKIPPED, "Drivers in Python bring no firmware."),
        proof=None,
        proof_age=None,
    )


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
