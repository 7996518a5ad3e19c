"""What the tests of coverage share: the modules of a family of Debian's, checked, and really loaded and unloaded."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

import pytest

from vmklinux.errors import DriverRefused
from vmklinux.image import Image
from vmklinux.kernels import Kernel
from vmklinux.linux import Linux
from vmklinux.loader import Loader
from vmklinux.module.console import FAMILIES
from vmklinux.resolve import Report, check


def reports(family: str, kernel: Kernel, image: Image) -> dict[Path, Report]:
    """Who serves the imports of each module of the family, by its file."""
    files = [file for directory in FAMILIES[family] for file in kernel.modules_under(directory)]
    return {file: check(file, kernel, image) for file in files}


def load_and_unload(family: str, linux: Linux, shy: Collection[str]) -> int:
    """Run init and exit of each module that is served completely; how many there are. No module leaves anything behind.

    The init of the ``shy`` gives -ENODEV when it finds no device.
    """
    loader = Loader(linux)
    loaded = 0
    for file, report in reports(family, linux.kernel, linux.image).items():
        if report.resolved:
            refuses = report.module in shy
            with pytest.raises(DriverRefused, match="No such device") if refuses else nullcontext():
                loader.load(file)
            loaded += 1
        for name in reversed(list(loader.modules)):
            assert loader.unload(name) == [], f"{name}, loaded for {report.module}"
    return loaded
