"""virtio's drivers come and go: the one of the device, the one of its PCI function, and one that was stopped.

Independent: Debian's drivers, modules in 6.1 and partly built into the image in 6.12, and QEMU's device.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import LIMIT, exchange
from tests.e2e.packets import PEER, sized
from tests.e2e.virtio import adapter_of, boot_with
from vmkernel_core.memory import store_bytes
from vmklinux.errors import DriverStopped
from vmklinux.kernels import Kernel

#: ud2 where no WARN or BUG is noted: the driver is stopped there.
UD2 = b"\x0f\x0b"


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
            assert (host.uplinks, adapter.uplink, adapter.bound) == ({}, None, False)
            host.bind(adapter)
            assert adapter.uplink is host.uplinks["vmnic0"]
        exchange(host)
    assert host.leaks == []


@pytest.mark.parametrize("where", ["start_xmit", "vp_notify"])
def test_a_driver_that_goes_wrong_takes_its_uplink_with_it(kernel: Kernel, where: str) -> None:
    """The network driver's own code, then the transport's, which is another module, or in the image."""
    with boot_with(kernel, "virtio-net-pci") as host:
        nic = host.uplinks["vmnic0"]
        nic.open()
        nic.wait_link(timeout=LIMIT)
        symbols = host.loader.modules["virtio_net"].linked.symbols
        if where not in symbols:
            transport = host.loader.modules.get("virtio_pci")
            symbols = (
                transport.linked.symbols
                if transport
                else {where: host.linux.image.kallsyms.address(where) or 0}
            )
        store_bytes(symbols[where], UD2)
        with pytest.raises(DriverStopped):
            nic.transmit([sized(PEER, 100, 1)])
        assert isinstance(nic.error, DriverStopped)
