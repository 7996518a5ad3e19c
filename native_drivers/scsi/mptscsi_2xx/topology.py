"""Where a port's targets are: which bus and target ids are worth a question."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from native_drivers.scsi.mptscsi_2xx.config_pages import END_DEVICE, SAS_DEVICE_0, after_handle

if TYPE_CHECKING:
    from native_drivers.scsi.mptscsi_2xx.ioc import Ioc

log = logging.getLogger(__name__)

#: The handle before the first; and how many devices a port can have at most.
BEFORE_FIRST, DEVICES_MOST = 0xFFFF, 1024


@dataclass(frozen=True)
class Target:
    """A device that takes SCSI commands: bus and target id that the IOC knows it by, its handle and its SAS address."""

    bus: int
    id: int
    handle: int
    sas_address: int


def sas_targets(ioc: Ioc) -> list[Target]:
    """What the IOC's device pages tell of: end devices that are there and that it maps to a bus and a target id.

    Not in an interrupt handler. TimedOut, IocError.
    """
    targets: list[Target] = []
    handle = BEFORE_FIRST
    for _ in range(DEVICES_MOST):
        page = ioc.page(SAS_DEVICE_0, after_handle(handle))
        if page is None:
            break
        handle = page.DevHandle
        reachable = page.DEVICE_PRESENT and page.DEVICE_MAPPED and page.DEVICE_TYPE == END_DEVICE
        if reachable and (page.SSP_TARGET or page.STP_TARGET or page.SATA_DEVICE):
            targets.append(Target(page.Bus, page.TargetID, handle, page.SASAddress))
    return targets
