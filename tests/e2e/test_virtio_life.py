"""virtio's drivers come and go: the one of the device, the one of its PCI function, and one that was stopped.

Independent: Debian's drivers, modules in 6.1 and partly built into the image in 6.12, and QEMU's device.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import exchange
from tests.e2e.virtio import adapter_of, boot_with
from vmklinux.kernels import Kernel


@pytest.mark.parametrize("device", ["virtio-net-pci", "virtio-net-pci,packed=on,vectors=0"])
def test_modules_come_and_go(kernel: Kernel, device: str) -> None:
    with boot_with(kernel, device) as host:
        adapter = adapter_of(host)
        for _ in range(3):
            assert host.unload("virtio_net") == []
            assert (host.uplinks, adapter.uplink) == ({}, None)
            host.load("virtio_net")
            assert adapter.uplink is host.uplinks["vmnic0"]
        exchange(host)
        for _ in range(3):
            # The device goes from under its driver, which stays loaded.
            assert host.unload("virtio_pci") == []
            assert (host.uplinks, adapter.uplink, adapter.device) == ({}, None, None)
            host.bind(adapter)
            assert adapter.uplink is host.uplinks["vmnic0"]
        exchange(host)
    assert host.leaks == []
