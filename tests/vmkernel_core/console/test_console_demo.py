"""``vmk demo`` of network devices, the real command, on both platforms and both kernels.

Independent side: Debian's drivers, QEMU's devices, and the peer, a process that knows nothing of drivers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.vmkernel_core.console.vmk_command import said, vmk
from vmkernel_core.console.demo.frame_pattern import LONGEST, SHORTEST
from vmkernel_core.console.demo.nic import NicResult
from vmkernel_core.console.demo.result import HclSays, Left, NotVerified, Seconds, judge
from vmkernel_core.console.demo.traffic import Way
from vmklinux.kernels import Kernel

KEYS = {
    "platform", "device", "engine", "hcl", "module_path", "kernel", "mac", "link_mbps", "tx", "rx",
    "mmio_per_frame", "seconds", "leaks",
}  # fmt: skip
PARTS = {
    "hcl": {"driver", "rung", "module"},
    "tx": {"frames", "bytes", "verified"},
    "rx": {"frames", "bytes", "verified"},
    "seconds": {"image", "load", "probe", "traffic"},
}

#: QEMU's network devices, one for each driver, and what the HCL says of each: driver of ESX 3, rung, Linux module.
E1000 = ("net/e1000", "vendor:device", "e1000")
E100 = ("net/e100", "vendor:device", "e100")
VIRTIO = (None, "compatible", "virtio_pci")
CARDS = {
    "e1000-82545em": E1000,
    "e1000e": ("net/e1000", "vendor:device", "e1000e"),
    "i82557b": E100,
    "ne2k_pci": (None, "compatible", "ne2k_pci"),
    "pcnet": ("net/pcnet32", "vendor:device", "pcnet32"),
    "rtl8139": (None, "compatible", "8139cp"),
    "tulip": (None, "compatible", "tulip"),
    "virtio-net-pci": VIRTIO,
    "vmxnet3": (None, "compatible", "vmxnet3"),
}
#: Others of the same drivers.
VARIANTS = {
    "e1000-82544gc": E1000,
    "virtio-net-pci-non-transitional": VIRTIO,
    "virtio-net-pci-transitional": VIRTIO,
    **dict.fromkeys(
        (
            "i82550", "i82557a", "i82557c", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c", "i82559er",
            "i82562", "i82801",
        ),
        E100,
    ),
}  # fmt: skip
Says = tuple[str | None, str, str]


def _ended_well(run: subprocess.CompletedProcess[str]) -> None:
    """Done, with nothing said but how far it is: a run that takes long, on a busy machine, tells that.

    e100.ko asks for microcode for some cards, and does without.
    """
    assert run.returncode == 0
    usual = ("frames ", "firmware e100/")
    assert [line for line in run.stderr.splitlines() if not any(text in line for text in usual)] == []


def _demo(*arguments: str) -> dict[str, Any]:
    run = vmk("demo", "--json", *arguments)
    _ended_well(run)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@pytest.mark.parametrize("platform", ["qemu", "model"])
def test_frames_cross_both_ways(platform: str, kernel: Kernel) -> None:
    count = 1455  # every size comes up once
    result = _demo("--platform", platform, "--kernel", kernel.release, "--frames", str(count))
    assert set(result) == KEYS
    for part, keys in PARTS.items():
        assert set(result[part]) == keys
    assert (result["platform"], result["device"]) == (platform, "e1000")
    assert result["hcl"] == {"driver": "net/e1000", "rung": "vendor:device", "module": "e1000"}
    assert result["kernel"] == kernel.release
    assert result["module_path"] == str(kernel.find_module("e1000"))
    assert result["mac"] == "52:54:00:12:34:56"
    assert result["link_mbps"] == 1000
    expected = {"frames": count, "bytes": sum(range(SHORTEST, LONGEST + 1)), "verified": count}
    assert result["tx"] == expected
    assert result["rx"] == expected
    assert result["leaks"] == 0
    assert 0 < result["mmio_per_frame"] < 2
    assert all(seconds > 0 for seconds in result["seconds"].values())


def _is_driven(device: str, says: Says, kernel: Kernel) -> None:
    driver, rung, module = says
    result = _demo("--device", device, "--kernel", kernel.release, "--frames", "100")
    assert set(result) == KEYS
    assert result["hcl"] == {"driver": driver, "rung": rung, "module": module}
    assert (result["device"], result["module_path"]) == (device, str(kernel.file_of(module)))
    assert result["tx"]["verified"] == result["rx"]["verified"] == 100
    assert result["leaks"] == 0


@pytest.mark.parametrize(("device", "says"), CARDS.items())
def test_any_card_for_which_the_kernel_has_a_driver(device: str, says: Says, kernel: Kernel) -> None:
    _is_driven(device, says, kernel)


@pytest.mark.parametrize(("device", "says"), VARIANTS.items())
def test_variants_of_a_card(device: str, says: Says, kernel61: Kernel) -> None:
    _is_driven(device, says, kernel61)


def test_frames_that_qemu_damages_are_not_verified(kernel61: Kernel) -> None:
    """QEMU's 82558 and later put more behind some frames; all arrive, and the demo does not call them right."""
    run = vmk("demo", "--json", "--device", "i82559c", "--frames", "200")
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert 190 <= result["tx"]["verified"] < 200 == result["rx"]["verified"]
    assert f"{200 - result['tx']['verified']} of 200 frames out were not verified" in run.stderr
    assert "QEMU's 82558 and later" in run.stderr.splitlines()[-1]


def test_more_frames_than_are_ever_under_way(kernel61: Kernel) -> None:
    result = _demo("--kernel", kernel61.release, "--frames", "10000")
    assert result["tx"]["verified"] == result["rx"]["verified"] == 10000


def test_the_table_is_for_people(kernel61: Kernel) -> None:
    run = vmk("demo", "--platform", "model", "--kernel", kernel61.release, "--frames", "9", COLUMNS="200")
    assert run.returncode == 0
    # A run that takes long, on a busy machine, tells how far it is.
    assert [line for line in run.stderr.splitlines() if not line.startswith("frames ")] == []
    for text in ("net/e1000, by vendor:device: module e1000", "9 arrived, every byte checked", "1000 Mb/s"):
        assert text in run.stdout


def test_a_module_parameter_arrives(kernel61: Kernel) -> None:
    """The driver says in its log how many descriptors it was told to have."""
    run = vmk("-v", "demo", "--platform", "model", "--frames", "9", "-p", "TxDescriptors=80")
    assert run.returncode == 0
    assert "Transmit Descriptors set to 80" in run.stderr


def test_another_module_is_unsupported(kernel61: Kernel) -> None:
    run = vmk("demo", "--platform", "model", "--module", "8139cp")
    assert run.returncode == 4
    warning, error = run.stderr.splitlines()
    assert "an operator chose 8139cp instead of e1000 for 8086:100e: unsupported" in warning
    assert error == "vmk: 8139cp does not claim the device (0000:00:01.0 [8086:100e])"


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (["--device", "nosuch"], 3, ["'nosuch' is not a valid device model name", "-device help"]),
        (["--device", "nvme"], 4, ["-device nvme", "serial property not set"]),
        (["--device", "cirrus-vga"], 3, ["cirrus-vga is neither a network device nor a storage controller"]),
        (["--mib", "9"], 3, ["e1000 is a network device; --frames says how much it moves"]),
        (["--device", "i82551"], 7, ["e100 refused to open", "e100/d102e_ucode.bin", "VMK_FIRMWARE"]),
        (["--device", "rocker"], 3, ["rocker is neither"]),
        (["--device", "pvrdma"], 4, ["-device pvrdma"]),
        (
            ["--device", "rtl8139", "--hcl", "strict"],
            4,
            [
                "is compatible and left alone",
                "10ec:8139",
                "the profile strict asks for a certification run",
                "8139cp",
            ],
        ),
        (
            ["--platform", "model", "--device", "igb"],
            3,
            ["the model platform has no device igb", "--platform qemu"],
        ),
        (["--platform", "model", "-p", "nosuch=1"], 3, ["no parameter 'nosuch'", "debug"]),
        (["--platform", "model", "-p", "debug=much"], 3, ["debug (int) does not take 'much'"]),
        (["--platform", "model", "-p", "debug"], 3, ["debug"]),
        (["--platform", "model", "--kernel", "2.6"], 1, ["no kernel 2.6", "run: vmk kernel fetch 2.6"]),
        (["--platform", "model", "--module", "nosuch"], 1, ["has no module nosuch"]),
    ],
)
def test_errors(arguments: list[str], code: int, texts: list[str], kernel61: Kernel) -> None:
    run = vmk("demo", *arguments)
    assert (run.returncode, run.stdout) == (code, "")
    told = run.stderr.splitlines()[-1]
    assert told.startswith("vmk: ")
    assert "Traceback" not in run.stderr
    for text in texts:
        assert text in told


@pytest.fixture
def no_qemu(tmp_path: Path) -> str:
    """A PATH on which there is all but QEMU."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    (tmp_path / "setpriv").symlink_to(setpriv)
    return str(tmp_path)


def test_without_qemu(no_qemu: str, kernel61: Kernel) -> None:
    run = vmk("demo", PATH=no_qemu)
    assert run.returncode == 4
    assert said(run) == (
        "there is no program qemu-system-x86_64; apt-get install qemu-system-x86; "
        "to do without QEMU, use --platform model"
    )
    assert vmk("demo", "--platform", "model", "--frames", "9", PATH=no_qemu).returncode == 0


def test_without_qemu_and_without_a_kernel(
    no_qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMK_KERNELS", str(tmp_path / "none"))
    never = "6.99"  # a host may have a kernel of its own, but not this one
    run = vmk("demo", "--kernel", never, PATH=no_qemu)
    assert run.returncode == 1
    told = said(run)
    for remedy in (f"vmk kernel fetch {never}", "apt-get install qemu-system-x86", "--platform model"):
        assert remedy in told
    told = said(vmk("demo", "--platform", "model", "--kernel", never, PATH=no_qemu))
    assert f"vmk kernel fetch {never}" in told
    assert "apt-get install" not in told


GOOD = NicResult(
    platform="qemu",
    device="e1000",
    engine="linux",
    hcl=HclSays("net/e1000", "vendor:device", "e1000"),
    module_path="e1000.ko",
    kernel="6.1.0-56-amd64",
    mac="52:54:00:12:34:56",
    link_mbps=1000,
    tx=Way(10, 800, 10),
    rx=Way(10, 800, 10),
    mmio_per_frame=1.0,
    seconds=Seconds(0.1, 0.1, 0.1, 0.1),
    leaks=0,
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tx": Way(10, 800, 9)}, "1 of 10 frames out were not verified"),
        ({"rx": Way(10, 800, 8)}, "2 of 10 frames in were not verified"),
    ],
)
def test_what_does_not_hold_is_an_error(change: dict[str, Any], text: str) -> None:
    judge(GOOD, [])
    with pytest.raises(NotVerified, match=text) as error:
        judge(msgspec.structs.replace(GOOD, **change), [])
    assert error.value.exit_code == 1


def test_what_is_left_behind_is_an_error() -> None:
    """But for what the driver keeps in Linux, too."""
    kept, lost = Left("memory", kept=True), Left("irq", kept=False)
    judge(GOOD, [kept])
    with pytest.raises(NotVerified, match="e1000 left 2 things behind"):
        judge(GOOD, [lost, kept, lost])
