"""``vmk demo`` of storage controllers, the real command, on both kernels.

Independent side: Debian's drivers, QEMU's controllers and disks; sfdisk and mkfs.ext4, which make what is read, and
sfdisk and e2fsck, which look at it. Disks go wrong in a QEMU whose arguments are changed on the way.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.vmkernel_core.console.vmk_command import COMMAND, environment, said, vmk
from vmkernel_core.console.demo import disk_image
from vmkernel_core.console.demo.block_pattern import BEFORE, BLOCK, WRITTEN, BlockPattern, differing
from vmkernel_core.console.demo.disk import Disk, DiskResult, FileSystem, Moved, OnDisk
from vmkernel_core.console.demo.disk_image import DiskImage, ToolMissing
from vmkernel_core.console.demo.ext4 import read_superblock
from vmkernel_core.console.demo.gpt import read_gpt
from vmkernel_core.console.demo.one_device import QEMU
from vmkernel_core.console.demo.result import HclSays, NotVerified, Seconds, judge
from vmkernel_core.platform.qemu_device import kind_of
from vmklinux.kernels import Kernel

#: What every result has, and what else there is.
KEYS = {"platform", "device", "engine", "hcl", "module_path", "kernel", "disks", "read", "write", "leaks"}
ADDED = {"partitions", "file_system", "mmio_per_command", "seconds"}
NAA = "naa.300000000000de30"
MIB = 1 << 20

#: QEMU's controllers, what the HCL says of each (driver of ESX 3, rung, Linux module), and where the disk is.
MEGARAID = ("scsi/megaraid_sas", "vendor:device", "megaraid_sas")
CONTROLLERS = {
    "megasas": (*MEGARAID, "vmhba0:C2:T0:L0"),
    "megasas-gen2": (*MEGARAID, "vmhba0:C2:T0:L0"),
    "mptsas1068": ("scsi/mptscsi_2xx", "vendor:device", "mptsas", "vmhba0:C0:T0:L0"),
    "lsi53c810": (None, "compatible", "sym53c8xx", "vmhba0:C0:T0:L0"),
    "lsi53c895a": (None, "compatible", "sym53c8xx", "vmhba0:C0:T0:L0"),
    "pvscsi": (None, "compatible", "vmw_pvscsi", "vmhba0:C0:T0:L0"),
    "virtio-scsi-pci": (None, "compatible", "virtio_pci", "vmhba0:C0:T0:L0"),
}


def _demo(*arguments: str, **changes: str) -> dict[str, Any]:
    """The result of a demo that ends well and says nothing but how far it is; QEMU's pvscsi lacks a command."""
    run = vmk("demo", "--json", *arguments, **changes)
    assert run.returncode == 0, run.stderr
    usual = ("MiB ", "PVSCSI_CMD_CONFIG")
    assert [line for line in run.stderr.splitlines() if not any(text in line for text in usual)] == []
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@pytest.mark.parametrize("device", CONTROLLERS)
def test_any_controller_for_which_the_kernel_has_a_driver(device: str, kernel: Kernel) -> None:
    driver, rung, module, name = CONTROLLERS[device]
    result = _demo("--device", device, "--kernel", kernel.release)
    assert set(result) == KEYS | ADDED
    assert (result["platform"], result["device"], result["kernel"]) == ("qemu", device, kernel.release)
    assert result["hcl"] == {"driver": driver, "rung": rung, "module": module}
    assert result["module_path"] == str(kernel.file_of(str(module)))
    blocks = (1 + 16 + 16 + 1) * MIB // 512
    assert result["disks"] == [{"name": name, "naa": NAA, "blocks": blocks, "block_size": 512}]
    assert result["partitions"] == [
        {"name": "files", "lba": 2048, "blocks": 32768},
        {"name": "pattern", "lba": 34816, "blocks": 32768},
    ]
    UUID(result["file_system"].pop("uuid"))
    assert result["file_system"] == {"type": "ext4", "label": "vmk demo", "blocks": 16384, "block_size": 1024}
    assert result["read"] == {"bytes": 18 * MIB, "verified": 18 * MIB}
    assert result["write"] == {"bytes": 16 * MIB, "verified": 16 * MIB}
    assert result["leaks"] == 0
    assert result["mmio_per_command"] > 0
    # Of 6.12 virtio_pci is in the image: nothing is loaded.
    assert all(spent > 0 for part, spent in result["seconds"].items() if part != "load")


def test_what_linux_keeps_is_told_and_forgiven(kernel61: Kernel) -> None:
    """esp_scsi frees no entry of its pool of commands."""
    run = vmk("demo", "--device", "am53c974", "--mib", "1", COLUMNS="200")
    assert run.returncode == 0, run.stderr
    assert "[esp_scsi] (the driver keeps it, in Linux too)" in run.stdout
    result = json.loads(vmk("demo", "--json", "--device", "dc390", "--mib", "1").stdout)
    assert result["hcl"] == {"driver": None, "rung": "compatible", "module": "am53c974"}
    assert result["read"]["verified"] == 18 * MIB
    assert result["write"]["verified"] == MIB
    assert result["leaks"] > 0


def test_as_much_as_is_asked_for(kernel61: Kernel) -> None:
    result = _demo("--device", "mptsas1068", "--mib", "40")
    assert result["write"] == {"bytes": 40 * MIB, "verified": 40 * MIB}


def test_no_place_for_temporary_files_is_needed(kernel61: Kernel, tmp_path: Path) -> None:
    assert _demo("--device", "mptsas1068", "--mib", "1", TMPDIR=str(tmp_path / "none"))["leaks"] == 0
    assert _demo("--device", "mptsas1068", "--mib", "1", TMPDIR=str(tmp_path))["leaks"] == 0
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_for_people(kernel61: Kernel) -> None:
    run = vmk("demo", "--device", "megasas", "--kernel", kernel61.release, "--mib", "2", COLUMNS="200")
    assert run.returncode == 0
    for text in (
        "scsi/megaraid_sas, by vendor:device: module megaraid_sas",
        f"{NAA}, 40960 blocks of 512",
        "files, 32768 blocks; pattern, 4096 blocks",
        "ext4, 'vmk demo', ",
        f"{18 * MIB} bytes; {18 * MIB} are as the image has them",
        f"{2 * MIB} bytes; {2 * MIB} were read back, and are in the image",
    ):
        assert text in run.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--device", "megasas", "--frames", "9"], 3, "megasas is a storage controller; --mib says how much"),
        (["--device", "megasas", "--mib", "0"], 3, "--mib"),
        (["--device", "megasas,nosuch=1"], 4, "Property 'megasas.nosuch' not found"),
        (["--platform", "model", "--device", "megasas"], 3, "the model platform has no device megasas"),
        (["--device", "pvscsi", "--hcl", "strict"], 4, "the profile strict asks for a certification run"),
        (["--device", "pvscsi", "--module", "e1000"], 4, "e1000 does not claim the device"),
        (["--device", "pvscsi", "-p", "nosuch=1"], 3, "no parameter 'nosuch'"),
    ],
)
def test_errors(arguments: list[str], code: int, text: str, kernel61: Kernel) -> None:
    run = vmk("demo", *arguments)
    assert (run.returncode, run.stdout) == (code, "")
    told = run.stderr.splitlines()[-1]
    assert told.startswith("vmk: ")
    assert text in told
    assert "Traceback" not in run.stderr


# ---- disks that go wrong ----

Wrap = Callable[[str], str]

#: Changes of the arguments that QEMU gets, by ``change(word)``. A disk that keeps nothing of what is written:
FORGETFUL = """
def change(word):
    return word.replace("if=none", "if=none,snapshot=on")
"""
#: One that takes two commands a second:
SLOW = """
def change(word):
    return word.replace("if=none", "if=none,throttling.iops-total=2")
"""
#: One that fails as the rules in a file say:
BROKEN = """
def change(word):
    return word.replace("file=/proc", "file=blkdebug:{rules}:/proc")
"""
#: One that is a copy of the image with a bit of one byte changed:
DAMAGED = """
def change(word):
    found = re.search("file=(/proc/[^,]*)", word)
    if not found:
        return word
    content = bytearray(open(found[1], "rb").read())
    content[{at}] ^= 1
    open("{copy}", "wb").write(content)
    return word.replace(found[1], "{copy}")
"""


@pytest.fixture
def qemu_with(tmp_path: Path) -> Wrap:
    """Makes a PATH whose QEMU passes its arguments through ``change`` before it starts."""

    def wrap(change: str) -> str:
        real = str(shutil.which(QEMU))
        programs = tmp_path / "programs"
        programs.mkdir()
        program = programs / QEMU
        program.write_text(
            f"#!{sys.executable}\nimport os, re, sys\n{change}\n"
            f"os.execv({real!r}, [{real!r}, *map(change, sys.argv[1:])])\n"
        )
        program.chmod(0o755)
        return f"{programs}:{environment()['PATH']}"

    return wrap


DEMO = ("demo", "--json", "--device", "mptsas1068", "--mib", "1")


def test_writes_that_never_reach_the_file_are_not_verified(qemu_with: Wrap, kernel61: Kernel) -> None:
    """They are read back well; only who looks from outside sees it."""
    run = vmk(*DEMO, PATH=qemu_with(FORGETFUL))
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert result["read"] == {"bytes": 18 * MIB, "verified": 18 * MIB}
    assert result["write"] == {"bytes": MIB, "verified": 0}
    assert f"{MIB} of {MIB} bytes written were not verified" in said(run)


def test_one_bit_that_is_read_wrong_is_found(qemu_with: Wrap, tmp_path: Path, kernel61: Kernel) -> None:
    copy = tmp_path / "copy.raw"
    run = vmk(*DEMO, PATH=qemu_with(DAMAGED.format(at=10 * MIB, copy=copy)))
    assert run.returncode == 1
    assert json.loads(run.stdout)["read"] == {"bytes": 18 * MIB, "verified": 18 * MIB - 512}
    assert f"512 of {18 * MIB} bytes read were not verified" in said(run)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (512, "there is no partition table at block 1"),
        (512 + 60, "the partition table's header at block 1 is damaged"),
        (1024 + 40, "the partition table at block 2 is damaged"),
        (-512 + 60, "the partition table's header at block 38911 is damaged"),
        (MIB + 1024 + 0x38, "there is no ext4 file system at block 2048"),
        (MIB + 1024 + 0x68, "the superblock is not what mkfs.ext4 wrote"),
    ],
)
def test_a_table_that_is_damaged_is_told(
    at: int, text: str, qemu_with: Wrap, tmp_path: Path, kernel61: Kernel
) -> None:
    run = vmk(*DEMO, PATH=qemu_with(DAMAGED.format(at=at, copy=tmp_path / "copy.raw")))
    assert (run.returncode, run.stdout) == (1, "")
    assert text in said(run)


@pytest.mark.parametrize(
    ("event", "number", "text"),
    [
        ("read_aio", 61, "medium error: unrecovered read error"),
        ("write_aio", 28, "data protect: space allocation failed, write protect"),
        ("flush_to_disk", 5, "flush failed"),
    ],
)
def test_a_disk_that_fails_is_an_error(
    event: str, number: int, text: str, qemu_with: Wrap, tmp_path: Path, kernel61: Kernel
) -> None:
    """QEMU's disk fails the first time that something in the middle of it is asked for, and ever after."""
    rules = tmp_path / "rules"
    sector = "" if event == "flush_to_disk" else 'sector = "34900"\n'
    rules.write_text(f'[inject-error]\nevent = "{event}"\nerrno = "{number}"\n{sector}')
    run = vmk(*DEMO, PATH=qemu_with(BROKEN.format(rules=rules)))
    assert (run.returncode, run.stdout) == (1, "")
    assert text in said(run)
    assert NAA in said(run)


@pytest.mark.parametrize("seconds", [0.6, 1.5, 4])
def test_ctrl_c_ends_it_at_any_moment(
    seconds: float, qemu_with: Wrap, kernel61: Kernel, tmp_path: Path
) -> None:
    """When it makes the image and boots, and while commands are under way to a disk that lets them wait."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        [*COMMAND, *DEMO],
        env=environment(PATH=qemu_with(SLOW), TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time.sleep(seconds)  # any moment is the point
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=60)
    assert (process.returncode, out, told) == (130, "", "vmk: interrupted\n")
    assert list(temporary.iterdir()) == []


# ---- the image, and what is read of it ----


@pytest.fixture(scope="module")
def image() -> Iterator[DiskImage]:
    """An image with a partition of 2 MiB for the pattern."""
    with DiskImage(2) as image:
        yield image


def test_the_tools_see_what_the_image_is_said_to_hold(image: DiskImage) -> None:
    table = json.loads(_tool("sfdisk", "--json", str(image.path)))["partitiontable"]
    assert (table["label"], table["id"]) == ("gpt", str(image.table.uuid).upper())
    assert [(one["name"], one["start"], one["size"]) for one in table["partitions"]] == [
        (one.name, one.lba, one.count) for one in image.table.partitions
    ]
    _tool("e2fsck", "-f", "-n", f"{image.path}?offset={MIB}")  # fails unless all is well
    assert read_gpt(image.read, image.blocks - 1) == image.table
    assert read_superblock(image.read, 2048) == image.superblock


def _tool(name: str, *arguments: str) -> str:
    path = shutil.which(name, path=f"{environment()['PATH']}:/usr/sbin:/sbin")
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout


def test_copies_of_the_table_that_differ(image: DiskImage) -> None:
    """Each is right by itself."""
    with DiskImage(2) as other:
        last = image.blocks - 1

        def read(lba: int, count: int) -> bytes:
            return (image if lba < 2048 else other).read(lba, count)

        with pytest.raises(NotVerified, match="the two copies of the partition table differ"):
            read_gpt(read, last)


def test_what_the_image_holds_besides_is_a_pattern(image: DiskImage) -> None:
    first = image.target.lba
    assert image.read(first, 2048) == image.pattern.blocks(first, 2048, BEFORE)
    assert sorted([*image.beside(), *image.inside()]) == [(lba, 2048) for lba in range(0, image.blocks, 2048)]


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_image, "TOOLS", disk_image.TOOLS | {"nosuch": "its-package", "nor": "another"})
    with pytest.raises(
        ToolMissing, match="no program nosuch and no nor; apt-get install its-package another"
    ):
        DiskImage(1)


def test_a_tool_that_fails_says_why(tmp_path: Path) -> None:
    fake = tmp_path / "sfdisk"
    fake.write_text("#!/bin/sh\necho no good >&2\nexit 3\n")
    fake.chmod(0o755)
    run = vmk(*DEMO, PATH=f"{tmp_path}:{environment()['PATH']}")
    assert (run.returncode, run.stdout) == (1, "")
    assert said(run) == "sfdisk failed: no good (making a disk image)"


def test_each_block_is_its_own() -> None:
    pattern = BlockPattern("seed")
    many = pattern.blocks(0, 3000, BEFORE) + pattern.blocks(0, 3000, WRITTEN)
    assert len({many[at : at + BLOCK] for at in range(0, len(many), BLOCK)}) == 6000
    assert pattern.blocks(7, 1, WRITTEN)[:16] == (7).to_bytes(8, "big") + WRITTEN.to_bytes(8, "big")
    assert pattern.blocks(0, 9, WRITTEN)[5 * BLOCK : 6 * BLOCK] == pattern.blocks(5, 1, WRITTEN)


def test_which_blocks_differ() -> None:
    some = bytearray(8 * BLOCK)
    assert differing(100, bytes(some), bytes(some)) == []
    some[0] = some[3 * BLOCK - 1] = 1
    assert differing(100, bytes(some), bytes(8 * BLOCK)) == [100, 102]


def test_qemu_says_what_kind_of_device_it_is() -> None:
    assert kind_of("e1000", QEMU).network
    assert kind_of("virtio-net-pci", QEMU).network
    for controller in ("megasas", "virtio-scsi-pci", "am53c974"):
        kind = kind_of(controller, QEMU)
        assert not kind.network
        assert "SCSI" in kind.parts
    assert "IDE" in kind_of("ich9-ahci", QEMU).parts


GOOD = DiskResult(
    platform="qemu",
    device="megasas",
    engine="linux",
    hcl=HclSays("scsi/megaraid_sas", "vendor:device", "megaraid_sas"),
    module_path="megaraid_sas.ko",
    kernel="6.1.0-56-amd64",
    seconds=Seconds(0.1, 0.1, 0.1, 0.1),
    leaks=0,
    disks=[Disk("vmhba0:C2:T0:L0", NAA, 4096, 512)],
    partitions=[OnDisk("files", 2048, 1024)],
    file_system=FileSystem("ext4", "vmk demo", UUID(int=1), 512, 1024),
    read=Moved(4096, 4096),
    write=Moved(8192, 8192),
    mmio_per_command=1.0,
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"read": Moved(4096, 3584)}, "512 of 4096 bytes read were not verified"),
        ({"write": Moved(8192, 0)}, "8192 of 8192 bytes written were not verified"),
    ],
)
def test_what_does_not_hold_is_an_error(change: dict[str, Any], text: str) -> None:
    judge(GOOD, [])
    with pytest.raises(NotVerified, match=text) as error:
        judge(msgspec.structs.replace(GOOD, **change), [])
    assert error.value.exit_code == 1
