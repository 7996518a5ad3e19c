"""How much of the driver world is served: every module under drivers/net/ethernet of Debian's own kernels, each with
all that it depends on. That they load and unload is the modules' own word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.loader import Loader
from vmklinux.module.console import FAMILIES
from vmklinux.resolve import Report, check

if TYPE_CHECKING:
    from pathlib import Path

    from vmklinux.image import Image
    from vmklinux.kernels import Kernel
    from vmklinux.linux import Linux


def _reports(kernel: Kernel, image: Image) -> dict[Path, Report]:
    files = [file for directory in FAMILIES["net"] for file in kernel.modules_under(directory)]
    return {file: check(file, kernel, image) for file in files}


def test_what_counts_as_served_loads_and_leaves_nothing(linux: Linux) -> None:
    """Init and exit of each run; a PCI driver's only registers it. No module leaves anything behind."""
    loader = Loader(linux)
    loaded = 0
    for file, report in _reports(linux.kernel, linux.image).items():
        if report.resolved:
            module = loader.load(file)
            assert list(loader.modules)[-1] == module.name
            loaded += 1
        for name in reversed(list(loader.modules)):
            assert loader.unload(name) == [], f"{name}, loaded for {report.module}"
    assert loaded > 60
