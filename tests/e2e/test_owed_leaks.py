"""What modules below a driver that was stopped took for it is told as that, and what others left stays their own.

Independent: Debian's mptsas, mptscsih, mptbase and scsi_transport_sas, which depend on each other.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.storage import CONTROLLERS, blank, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.memory import store_bytes
from vmkernel_core.storage.errors import PathLost
from vmklinux.kernels import Kernel

#: ud2 where no WARN or BUG is noted: the driver is stopped there.
UD2 = b"\x0f\x0b"


def test_what_is_left_for_a_driver_that_was_stopped_is_excused(kernel: Kernel, tmp_path: Path) -> None:
    platform = CONTROLLERS["mptsas1068"].platform("hd", *raw_drive(blank(tmp_path / "disk.raw")))
    with VMkernel(platform, kernel=kernel.release) as host:
        disk = only_disk(host)
        store_bytes(host.loader.modules["mptsas"].linked.symbols["mptsas_qcmd"], UD2)
        with pytest.raises(PathLost):
            disk.read(0, 1)
    left = {leak.where.partition("[")[2].rstrip("]") for leak in host.leaks}
    assert "scsi_transport_sas" in left
    assert {leak.excuse for leak in host.leaks} == {"mptsas, which built on it, was stopped before"}


def test_a_driver_that_unloads_excuses_nothing(kernel612: Kernel, tmp_path: Path) -> None:
    platform = CONTROLLERS["mptsas1068"].platform("hd", *raw_drive(blank(tmp_path / "disk.raw")))
    with VMkernel(platform, kernel=kernel612.release) as host:
        only_disk(host)
        assert [module.owed for module in host.loader.modules.values()] == [[]] * len(host.loader.modules)
    assert host.leaks == []
