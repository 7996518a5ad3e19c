"""How much of the driver world is served: every module under drivers/scsi of Debian's own kernels, each with all that
it depends on. That they load and unload is the modules' own word."""

from __future__ import annotations

from tests.vmklinux import module_family
from vmklinux.image import Image
from vmklinux.kernels import Kernel
from vmklinux.linux import Linux
from vmklinux.resolve import survey

#: The Linux drivers of ESX's own SCSI and RAID adapters, and the modules under them.
ESX = {
    "aacraid", "aic79xx", "aic7xxx", "aic94xx", "hpsa", "ips", "libsas", "lpfc", "megaraid", "megaraid_mbox",
    "megaraid_mm", "megaraid_sas", "mptbase", "mptfc", "mptsas", "mptscsih", "mptspi", "qla2xxx", "qla4xxx",
    "raid_class", "scsi_transport_fc", "scsi_transport_iscsi", "scsi_transport_sas", "scsi_transport_spi",
    "scsi_transport_srp",
}  # fmt: skip
#: Drivers whose init gives -ENODEV when it finds no adapter.
SHY = {"ips"}


def test_most_scsi_modules_are_served_completely(kernel: Kernel, image: Image) -> None:
    reports = module_family.reports("scsi", kernel, image)
    found = survey(list(reports.values()), len(reports))
    assert found.totals.total > 90
    assert found.totals.percent >= 80
    assert {report.module for report in found.modules if report.resolved} >= ESX


def test_what_counts_as_served_loads_and_leaves_nothing(linux: Linux) -> None:
    """Init and exit of each run; a PCI driver's only registers it. No module leaves anything behind."""
    shy = SHY if "isa_register_driver" in linux.symbols else SHY | {"advansys"}
    assert module_family.load_and_unload("scsi", linux, shy) >= 78
