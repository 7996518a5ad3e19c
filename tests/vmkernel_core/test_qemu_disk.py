"""Disks of a QEMU machine, from a line each.

Independent side: QEMU, whose monitor says what it made of them, and qemu-img, which makes the images.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmkernel_core.errors import UsageError
from vmkernel_core.memory import MachineMemory
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.platform.qemu_disk import disk_arguments


def _image(path: Path, kind: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "4M"], check=True)
    return path


def test_disks_hang_where_they_shall(memory: MachineMemory, tmp_path: Path) -> None:
    raw, other = _image(tmp_path / "a,b.raw", "raw"), _image(tmp_path / "c.qcow2", "qcow2")
    platform = QemuPlatform(
        ["megasas,id=raid", "mptsas1068,id=sas"],
        disks=[
            f"{str(raw).replace(',', ',,')},serial=0815,cache=writethrough",
            f"{other},format=qcow2,readonly=on,bus=raid.0,scsi-id=5,id=named",
            "null-co://,readonly=on,type=scsi-cd,bus=raid.0",
        ],
    )
    platform.start(memory)
    try:
        blocks: Any = platform.monitor("query-block")
        told = {block["device"]: block["inserted"] for block in blocks}
        assert [(name, one["drv"], one["ro"], one["file"]) for name, one in told.items()] == [
            ("disk0", "raw", False, str(raw)),
            ("disk1", "qcow2", True, str(other)),
            ("disk2", "raw", True, "null-co://"),
        ]
        assert [one["cache"]["writeback"] for one in told.values()] == [False, True, True]
        for device, name, value in (
            ("disk0", "type", "scsi-hd"),
            ("disk0", "parent_bus", "/machine/peripheral/sas/sas.0"),
            ("disk0", "serial", "0815"),
            ("named", "parent_bus", "/machine/peripheral/raid/raid.0"),
            ("named", "scsi-id", 5),
            ("disk2", "type", "scsi-cd"),
        ):
            assert platform.monitor("qom-get", path=f"/machine/peripheral/{device}", property=name) == value
    finally:
        platform.stop()


@pytest.mark.parametrize(
    ("disk", "what"),
    [
        ("nowhere.raw", "there is no file 'nowhere.raw'; make one: qemu-img create -f raw nowhere.raw 64M"),
        ("nowhere.raw,lun=1", r"there is no file 'nowhere.raw' \(disk nowhere.raw,lun=1\)"),
        ("null-co://,serial", "'serial' is no option of a disk"),
        ("null-co://,=1", "'=1' is no option of a disk"),
        ("null-co://,drive=hd", "'drive=hd' is no option of a disk"),
    ],
)
def test_disks_that_cannot_be(disk: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        list(disk_arguments([disk]))
