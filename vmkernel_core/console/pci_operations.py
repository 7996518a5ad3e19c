"""Operations on the PCI bus: ``vmk hardware pci``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from vmkernel_core.console.protocol import operation
from vmkernel_core.engine import EngineName
from vmkernel_core.pci_classes import class_name

if TYPE_CHECKING:
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.boot import VMkernel


class PciFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: the first digits of a class code, ``02`` for every network controller; "" for all devices."""

    pci_class: str = ""


class PciBar(msgspec.Struct, frozen=True):
    """A base address register: what it decodes (io, memory32, memory64), where on the bus, how many bytes."""

    index: int
    kind: str
    address: int
    size: int


class PciDevice(msgspec.Struct, frozen=True):
    """A PCI function, the HCL's verdict on it, and who drives it. Ids and codes are hexadecimal, without 0x."""

    address: str
    vmkernel_name: str | None
    vendor_id: str
    device_id: str
    subvendor_id: str
    subdevice_id: str
    device_class: str
    device_class_name: str
    revision_id: str
    interrupt_pin: int
    bars: list[PciBar]
    device_name: str | None
    module_name: str | None
    """The module that may serve it, by the HCL or an override."""
    engine: EngineName | None
    """Whose that module is: Linux's, or a driver in Python."""
    bound: bool
    """Whether its driver has it."""
    hcl_driver: str | None
    hcl_rung: str
    hcl_status: str
    hcl_reason: str
    taint: str | None
    """What an operator overrode for it."""
    error: str | None
    """Why its driver does not have it."""


@operation("hardware.pci.list", PciFilter, list[PciDevice])
def pci_list(host: VMkernel, wanted: PciFilter) -> list[PciDevice]:
    """The devices of the machine, by address."""
    devices = (
        _device(host, adapter) for adapter in sorted(host.adapters, key=lambda one: one.function.address)
    )
    return [device for device in devices if device.device_class.startswith(wanted.pci_class)]


def _device(host: VMkernel, adapter: Adapter) -> PciDevice:
    import hcl

    function, verdict = adapter.function, adapter.verdict
    names = [one.name for one in host.storage_adapters.values() if one.pci_address == function.address]
    if adapter.uplink:
        names.append(adapter.uplink.name)
    return PciDevice(
        address=str(function.address),
        vmkernel_name=", ".join(names) or None,
        vendor_id=f"{function.vendor:04x}",
        device_id=f"{function.device:04x}",
        subvendor_id=f"{function.subsystem_vendor:04x}",
        subdevice_id=f"{function.subsystem_device:04x}",
        device_class=f"{function.class_code:06x}",
        device_class_name=class_name(function.class_code),
        revision_id=f"{function.revision:02x}",
        interrupt_pin=function.interrupt_pin,
        bars=[PciBar(bar.index, str(bar.kind), bar.address, bar.size) for bar in function.bars],
        device_name=hcl.device_name(function.vendor, function.device),
        module_name=adapter.module,
        engine=adapter.engine if adapter.module else None,
        bound=adapter.bound,
        hcl_driver=verdict.driver,
        hcl_rung=str(verdict.rung),
        hcl_status=str(verdict.status),
        hcl_reason=verdict.reason,
        taint=adapter.taint or None,
        error=str(adapter.error) if adapter.error else None,
    )
