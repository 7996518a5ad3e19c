"""A driver that was stopped, as the console tells it, and brought back by unloading and loading its module.

Independent side: Debian's e1000.ko, into whose memory the test writes what no driver would.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import PLATFORMS
from tests.e2e.test_e1000_trouble import adapter_field
from vmkernel_core.boot import VMkernel
from vmkernel_core.console.module_operations import ModuleName, module_list, module_load, module_unload
from vmkernel_core.console.nic_operations import NicName, nic_get, nic_list, nic_up
from vmkernel_core.console.pci_operations import PciFilter, pci_list
from vmkernel_core.console.protocol import failure
from vmkernel_core.console.target import InProcess
from vmkernel_core.memory import store
from vmklinux.errors import DriverStopped
from vmklinux.kernels import Kernel

E1000 = ModuleName("e1000")
VMNIC0 = NicName("vmnic0")


def test_a_stopped_driver_is_told_and_brought_back(kernel: Kernel) -> None:
    with VMkernel(PLATFORMS["model"](), kernel=kernel.release) as host:
        vmkernel = InProcess(host)
        store(adapter_field(host, "tx_ring"), 8, 0x6660_0000_0000)
        with pytest.raises(DriverStopped) as raised:
            vmkernel.call(nic_up, VMNIC0)
        told = failure(raised.value)
        assert (told.kind, told.exit_code) == ("DriverStopped", 7)
        [nic] = vmkernel.call(nic_list)
        assert (nic.state, nic.admin_status, nic.mac) == ("stopped", "down", None)
        assert nic.error is not None
        assert "e1000 was stopped" in nic.error
        assert vmkernel.call(nic_get, VMNIC0).message_level is None
        [module] = vmkernel.call(module_list)
        assert (module.is_loaded, module.is_stopped) == (True, True)

        vmkernel.call(module_unload, E1000)
        assert vmkernel.call(nic_list) == []
        [card] = vmkernel.call(pci_list, PciFilter("02"))
        assert (card.bound, card.vmkernel_name, card.module_name) == (False, None, "e1000")
        assert vmkernel.call(module_load, E1000).failed == {}
        assert vmkernel.call(nic_up, VMNIC0).admin_status == "up"
        assert vmkernel.call(module_list)[0].is_stopped is False
