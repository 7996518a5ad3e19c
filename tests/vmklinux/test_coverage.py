"""How much of the driver world is served: every module under drivers/net/ethernet of Debian's own kernels, each with
all that it depends on. That they load and unload is the modules' own word."""

from __future__ import annotations

from tests.vmklinux import module_family
from vmklinux.image import Image
from vmklinux.kernels import Kernel
from vmklinux.linux import Linux
from vmklinux.resolve import survey

#: The Linux drivers of ESX's own network adapters.
ESX = {"e100", "e1000", "tg3", "bnx2", "forcedeth", "pcnet32"}
#: Drivers whose init gives -ENODEV when it finds no card.
SHY = {"tlan"}


def test_most_network_drivers_are_served_completely(kernel: Kernel, image: Image) -> None:
    reports = module_family.reports("net", kernel, image)
    found = survey(list(reports.values()), len(reports))
    assert found.totals.total > 100
    assert found.totals.percent >= 70
    lacking = {report.module: report.unresolved for report in found.modules if not report.resolved}
    assert not ESX & set(lacking), lacking


def test_what_counts_as_served_loads_and_leaves_nothing(linux: Linux) -> None:
    """Init and exit of each run; a PCI driver's only registers it. No module leaves anything behind."""
    assert module_family.load_and_unload("net", linux, SHY) > 60
