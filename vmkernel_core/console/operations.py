"""The table of all that can be asked of a running vmkernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vmkernel_core.console import hcl_operations as hcl
from vmkernel_core.console import iscsi_operations as iscsi
from vmkernel_core.console import module_operations as module
from vmkernel_core.console import nic_operations as nic
from vmkernel_core.console import pci_operations as pci
from vmkernel_core.console import storage_bench
from vmkernel_core.console import storage_operations as storage

if TYPE_CHECKING:
    from vmkernel_core.console.protocol import Operation

#: By name, as requests call them.
OPERATIONS: Final[dict[str, Operation[Any, Any]]] = {
    one.name: one
    for one in (
        nic.nic_list,
        nic.nic_get,
        nic.nic_stats_get,
        nic.nic_up,
        nic.nic_down,
        nic.nic_suspend,
        nic.nic_resume,
        nic.nic_set,
        pci.pci_list,
        hcl.hcl_get,
        module.module_list,
        module.module_get,
        module.module_load,
        module.module_unload,
        module.parameters_list,
        module.parameters_set,
        storage.adapter_list,
        storage.adapter_rescan,
        storage.adapter_stats_get,
        storage.device_list,
        storage.device_get,
        storage.device_stats_get,
        storage.path_list,
        storage_bench.bench,
        iscsi.adapter_list,
        iscsi.sendtarget_list,
        iscsi.sendtarget_add,
        iscsi.sendtarget_remove,
        iscsi.target_list,
        iscsi.chap_get,
        iscsi.session_list,
        iscsi.session_add,
        iscsi.session_remove,
    )
}
