"""``vmk storage core`` at a running vmkernel with two controllers of QEMU's, one of which is another way to a disk.

Independent side: QEMU's megasas and mptsas1068 with their disks, Debian's megaraid_sas and mptsas, the image files.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmkernel_core.console.running import Running
from tests.vmkernel_core.console.vmk_command import said, vmk
from vmkernel_core.console.protocol import one_of
from vmklinux.kernels import Kernel

MACHINE = """
kernel = "{kernel}"
[platform]
devices = ["megasas,id=raid,addr=5", "mptsas1068,id=sas,addr=6"]
disks = [
  "{raid},bus=raid.0,wwn=0x5000c50000000001,file.locking=off,share-rw=on",
  "{both},bus=raid.0,wwn=0x5000c50000000002,file.locking=off,share-rw=on",
  "{both},bus=sas.0,wwn=0x5000c50000000002,file.locking=off,share-rw=on",
]
"""
#: Bytes of the images.
RAID, BOTH = 8 << 20, 4 << 20
ONE, TWO = "naa.5000c50000000001", "naa.5000c50000000002"
#: Which path leads where; QEMU's megasas shows its disks as logical drives on channel 2.
PATHS = {"vmhba0:C2:T0:L0": ONE, "vmhba0:C2:T1:L0": TWO, "vmhba1:C0:T0:L0": TWO}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> str:
    """The machine's file; two vmkernels use its images, which hold nothing."""
    images = [tmp_path_factory.mktemp("disks") / name for name in ("raid.raw", "both.raw")]
    for image, size in zip(images, (RAID, BOTH), strict=True):
        with image.open("wb") as file:
            file.truncate(size)
    return MACHINE.format(kernel=kernel.release, raid=images[0], both=images[1])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, machine: str) -> Iterator[Running]:
    with Running(machine, tmp_path_factory.mktemp("storage")) as running:
        yield running
        assert running.end() == 0


def test_they_are_told_as_they_appear(running: Running) -> None:
    """All of them before the vmkernel was ready: it waits for as many devices as the machine has disks."""
    assert "megaraid_sas: Avago SAS based MegaRAID driver" in running.expect("vmk: vmhba0: appeared")
    assert "QEMU QEMU HARDDISK, 16384 blocks of 512 bytes" in running.expect(f"vmk: {ONE}: appeared")
    assert "vmhba0:C2:T1:L0" in running.expect(f"vmk: {TWO}: appeared")
    running.expect("vmk: vmhba1: appeared (mptsas: ")
    running.expect("vmk: vmhba1:C0:T0:L0: appeared")


def test_adapter_list(running: Running) -> None:
    table = running.table("storage", "core", "adapter", "list")
    for text in ("vmhba0", "megaraid_sas", "vmhba1", "mptsas", "online", "0000:00:06.0"):
        assert text in table
    raid, sas = running.json("storage", "core", "adapter", "list")
    assert (raid["name"], raid["pci_device"], raid["driver"], raid["state"], raid["devices"]) == (
        "vmhba0", "0000:00:05.0", "megaraid_sas", "online", [ONE, TWO],
    )  # fmt: skip
    assert (sas["name"], sas["driver"], sas["devices"], sas["error"]) == ("vmhba1", "mptsas", [TWO], None)
    assert "LSISAS1068" in sas["model"]
    assert raid["queue_depth"] > 1
    cards = {
        card["address"]: card["vmkernel_name"] for card in running.json("hardware", "pci", "list", "-c", "01")
    }
    assert cards == {"0000:00:05.0": "vmhba0", "0000:00:06.0": "vmhba1"}


def test_device_list_has_a_device_once(running: Running) -> None:
    assert ONE in running.table("storage", "core", "device", "list")
    one, two = running.json("storage", "core", "device", "list")
    assert (one["name"], one["paths"], one["size"]) == (ONE, ["vmhba0:C2:T0:L0"], RAID)
    assert (two["name"], two["paths"], two["size"]) == (TWO, ["vmhba0:C2:T1:L0", "vmhba1:C0:T0:L0"], BOTH)
    assert (one["vendor"], one["model"], one["blocks"], one["block_size"]) == (
        "QEMU", "QEMU HARDDISK", RAID // 512, 512,
    )  # fmt: skip
    assert running.json("storage", "core", "device", "list", "-d", TWO) == [two]


def test_device_get(running: Running) -> None:
    table = running.table("storage", "core", "device", "get", "-d", ONE)
    assert "write cache" in table
    device = running.json("storage", "core", "device", "get", "-d", ONE)
    assert (device["state"], device["write_cache"], device["read_only"], device["error"]) == (
        "active", True, False, None,
    )  # fmt: skip
    assert device["maximum_transfer"] >= 4096
    assert device["queue_depth"] >= 1
    assert running.json("storage", "core", "device", "get", "-d", "vmhba0:C2:T0:L0") == device
    wrong = running.vmk("storage", "core", "device", "get", "-d", "naa.0")
    assert (wrong.returncode, said(wrong)) == (
        3,
        f"there is no storage device naa.0; use one of {ONE}, {TWO}",
    )


def test_path_list(running: Running) -> None:
    assert "vmhba1:C0:T0:L0" in running.table("storage", "core", "path", "list")
    paths = running.json("storage", "core", "path", "list")
    assert {path["runtime_name"]: path["device"] for path in paths} == PATHS
    assert {path["state"] for path in paths} == {"active"}
    [last] = running.json("storage", "core", "path", "list", "-d", "vmhba1:C0:T0:L0")
    assert (last["adapter"], last["channel"], last["target"], last["lun"]) == ("vmhba1", 0, 0, 0)
    assert len(running.json("storage", "core", "path", "list", "-d", TWO)) == 2


@pytest.mark.parametrize("verb", [["get"], []])
def test_stats(running: Running, verb: list[str]) -> None:
    """Each device was asked for its capacity at least; an adapter's counters are those of its devices."""
    assert "successful commands" in running.table("storage", "core", "adapter", "stats", *verb)
    one, two = running.json("storage", "core", "device", "stats", *verb)
    raid, sas = running.json("storage", "core", "adapter", "stats", *verb)
    assert running.json("storage", "core", "adapter", "stats", *verb, "-A", "vmhba1") == [sas]
    assert [told["name"] for told in (one, two, raid, sas)] == [ONE, TWO, "vmhba0", "vmhba1"]
    for counter in ("successful_commands", "bytes_read"):
        assert one[counter] > 0
        assert one[counter] + two[counter] == raid[counter] + sas[counter]
    assert {told["in_flight"] for told in (one, two, raid, sas)} == {0}
    wrong = running.vmk("storage", "core", "adapter", "stats", *verb, "-A", "vmhba9")
    assert (wrong.returncode, said(wrong)) == (
        3,
        "there is no storage adapter vmhba9; use one of vmhba0, vmhba1",
    )


def test_rescan(running: Running) -> None:
    before = running.json("storage", "core", "adapter", "list")
    assert running.json("storage", "core", "adapter", "rescan", "-A", "vmhba1") == before[1:]
    assert running.json("storage", "core", "adapter", "rescan", "--all") == before
    for options in ([], ["-A", "vmhba0", "--all"]):
        wrong = running.vmk("storage", "core", "adapter", "rescan", *options)
        assert (wrong.returncode, said(wrong)) == (
            3, "one adapter is scanned, or all are; give -A vmhba0, or --all",
        )  # fmt: skip


def test_a_module_goes_and_comes(running: Running) -> None:
    """Its device stays usable by the other path; when the module is back, so is its path."""
    assert running.json("system", "module", "unload", "-m", "mptsas")["leaks"] == []
    assert (
        running.expect("vmk: vmhba1:C0:T0:L0: removed") == f"vmk: vmhba1:C0:T0:L0: removed ({TWO} has gone)"
    )
    assert running.expect("vmk: vmhba1: removed") == "vmk: vmhba1: removed (vmhba1 has gone)"
    assert len(running.json("storage", "core", "path", "list")) == 2
    running.table("system", "module", "load", "-m", "mptsas")
    running.expect("vmk: vmhba1:C0:T0:L0: appeared")
    assert len(running.json("storage", "core", "path", "list")) == 3


def test_qemu_killed(tmp_path: Path, kernel: Kernel) -> None:
    """Devices are dead at once, and gone from the list as soon as their driver has let go of them."""
    text = f'kernel = "{kernel.release}"\n[platform]\ndevices = ["pvscsi"]\ndisks = ["null-co://,wwn=0x{ONE[4:]}"]'
    with Running(text, tmp_path) as running:
        os.kill(running.qemu(), signal.SIGKILL)
        assert running.expect("vmhba0: dead") == "vmk: vmhba0: dead (vmhba0 has gone)"
        running.expect(f"vmk: {ONE}: dead (vmhba0 has gone)")
        for path in running.json("storage", "core", "path", "list"):
            assert path["state"] == "dead"
            assert "has gone" in path["error"]
        for adapter in running.json("storage", "core", "adapter", "list"):
            assert (adapter["state"], adapter["model"]) == ("dead", None)
        running.expect("vmk: vmhba0: removed")
        assert running.json("storage", "core", "device", "list") == []
        assert running.table("storage", "core", "adapter", "list") == ""
        wrong = running.vmk("storage", "core", "device", "get", "-d", ONE)
        assert (wrong.returncode, said(wrong)) == (3, f"there is no storage device {ONE}; {one_of([])}")
        assert running.end() == 0


def test_a_vmkernel_for_the_call(tmp_path: Path, kernel61: Kernel) -> None:
    image = tmp_path / "disk,1.raw"
    with image.open("wb") as file:
        file.truncate(RAID)
    run = vmk(
        "storage", "core", "device", "list", "--json", "--kernel", kernel61.release,
        "--device", "mptsas1068", "--disk", str(image).replace(",", ",,"), "--disk", "null-co://,serial=0815",
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    disk, null = json.loads(run.stdout)
    assert (disk["name"], disk["size"]) == ("naa.3000000000000001", RAID)
    assert (null["name"], null["size"]) == ("naa.3000000000000002", 1 << 30)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--disk", "a.raw"], "--disk is a disk of the machine of --device; give a controller too"),
        (
            ["--device", "megasas", "--disk", "nowhere.raw"],
            "there is no file 'nowhere.raw'; make one: qemu-img",
        ),
        (["--device", "e1000", "--platform", "model", "--disk", "a.raw"], "device models take no disks"),
    ],
)
def test_disks_that_cannot_be(options: list[str], what: str, kernel61: Kernel) -> None:
    run = vmk("storage", "core", "device", "list", *options)
    assert run.returncode == 3
    assert what in said(run)
