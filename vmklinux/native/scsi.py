"""The SCSI mid-layer for drivers in Python (Linux drivers/scsi/scsi.c): the hosts, and who is told of them.

Hosts are in scsi_host.py, devices in scsi_device.py, the queues of their commands in scsi_lib.py, the scan in
scsi_scan.py, error handling in scsi_error.py. What both mid-layers, this one and that for Linux's modules, do alike is
in scsi_common.py, scsi_policy.py and scsi_error.c.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmklinux.native.device import Device
    from vmklinux.native.scsi_device import ScsiDevice
    from vmklinux.native.scsi_host import ScsiHost


class ScsiHosts:
    """The hosts of all drivers in Python; who is told of hosts and devices as they come, change and go.

    ``on_host`` and ``on_device`` are told of what appears, ``on_host_gone`` and ``on_device_gone`` of what goes,
    ``on_device_state`` of devices whose state is another one now, ``on_device_changed`` of those to be asked again.
    """

    def __init__(self) -> None:
        """No host yet."""
        self.hosts: list[ScsiHost] = []
        self.numbers = count()
        self.on_host: Callable[[ScsiHost], None] = lambda _host: None
        self.on_host_gone: Callable[[ScsiHost], None] = lambda _host: None
        self.on_device: Callable[[ScsiDevice], None] = lambda _device: None
        self.on_device_gone: Callable[[ScsiDevice], None] = lambda _device: None
        self.on_device_state: Callable[[ScsiDevice], None] = lambda _device: None
        self.on_device_changed: Callable[[ScsiDevice], None] = lambda _device: None

    def of_device(self, device: Device) -> list[ScsiHost]:
        """The hosts of a device's driver."""
        return [host for host in self.hosts if host.parent is device]


#: There is one mid-layer in a process, as there is one vmkernel.
scsi_hosts = ScsiHosts()
