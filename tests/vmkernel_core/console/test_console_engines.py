"""The engine on the command line: of a demo, of a vmkernel that is booted, of the modules that it tells of.

Independent side: QEMU's devices; in the demos, the peer and the disk's image as tests of the demo have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vmkernel_core.console.running import Running
from tests.vmkernel_core.console.vmk_command import said, vmk
from vmklinux.kernels import Kernel

NEVER = "6.99"  # a machine may have a kernel of its own, but not this one

MACHINE = """
engine = "linux"
kernel = "6.99"
open = ["vmnic0"]

[platform]
devices = ["e1000,netdev=wire0,addr=5", "megasas,addr=6"]

[engines]
"scsi/megaraid_sas" = "native"
"""


def demo(*arguments: str, **changes: str) -> dict[str, Any]:
    run = vmk("demo", "--json", *arguments, **changes)
    assert (run.returncode, run.stderr) == (0, "")
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with neither QEMU nor a kernel."""
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "VMK_KERNELS": str(tmp_path / "none")}


def test_a_demo_that_needs_nothing_but_python(bare: dict[str, str]) -> None:
    result = demo("--engine", "native", "--platform", "model", "--kernel", NEVER, **bare)
    assert (result["engine"], result["kernel"], result["platform"]) == ("native", "", "model")
    assert result["module_path"].endswith("native_drivers/net/e1000/__init__.py")
    assert result["hcl"] == {"driver": "net/e1000", "rung": "vendor:device", "module": "e1000"}
    assert result["tx"]["verified"] == result["rx"]["verified"] == 1000
    assert 0 < result["mmio_per_frame"] < 2
    assert result["leaks"] == 0
    assert not Path(bare["VMK_KERNELS"]).exists()
    table = vmk("demo", "--engine", "native", "--platform", "model", "--frames", "10", **bare).stdout
    assert "a driver in Python, no kernel" in table


def test_a_demo_of_linux_needs_a_kernel(bare: dict[str, str]) -> None:
    run = vmk("demo", "--engine", "linux", "--platform", "model", "--kernel", NEVER, **bare)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"no kernel {NEVER} here" in said(run)


@pytest.mark.parametrize("device", ["e1000", "e1000-82545em", "e1000e"])
def test_cards_of_qemu(device: str) -> None:
    result = demo("--engine", "native", "--device", device, "--kernel", NEVER)
    assert (result["engine"], result["device"]) == ("native", device)
    assert result["tx"]["verified"] == result["rx"]["verified"] == 1000


@pytest.mark.parametrize(("device", "module"), [("megasas", "megaraid_sas"), ("mptsas1068", "mptscsi_2xx")])
def test_controllers_of_qemu(device: str, module: str) -> None:
    result = demo("--engine", "native", "--device", device, "--kernel", NEVER, "--mib", "2")
    assert (result["engine"], result["hcl"]["module"]) == ("native", module)
    assert (result["write"]["bytes"], result["leaks"]) == (result["write"]["verified"], 0)


def test_a_device_that_only_linux_knows() -> None:
    run = vmk("demo", "--engine", "native", "--device", "rtl8139", "--kernel", NEVER)
    assert (run.returncode, run.stdout) == (4, "")
    assert f"run: vmk kernel fetch {NEVER}" in said(run)


# ---- a vmkernel that runs ----


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Booted with --engine native, on a machine that has no such kernel."""
    directory = tmp_path_factory.mktemp("engines")
    machine = MACHINE.replace('"native"', '"native"\n"8086:100e" = "native"')
    with Running(machine, directory, options=("--engine", "native")) as running:
        running.expect("vmk: vmnic0: link-up")
        yield running
        assert running.end() == 0


def test_what_boots(running: Running, tmp_path: Path) -> None:
    [nic] = running.json("network", "nic", "list")
    assert (nic["name"], nic["driver"], nic["state"], nic["link_status"]) == (
        "vmnic0", "e1000", "ready", "up",
    )  # fmt: skip
    [hba] = running.json("storage", "core", "adapter", "list")
    assert (hba["name"], hba["driver"]) == ("vmhba0", "megaraid_sas")
    told = {one["module_name"]: one["engine"] for one in running.json("hardware", "pci", "list")}
    assert told == {"e1000": "native", "megaraid_sas": "native", None: None}
    file = tmp_path / "machine.toml"
    file.write_text(MACHINE)
    run = vmk("boot", "-c", str(file), "--socket", str(tmp_path / "vmk.sock"))
    assert run.returncode == 1
    assert f"no kernel {NEVER}" in said(run)


def test_module_list_tells_engine_policy_and_override(running: Running) -> None:
    modules = {one["name"]: one for one in running.json("system", "module", "list")}
    assert set(modules) == {"e1000", "megaraid_sas"}
    for name, address in (("e1000", "0000:00:05.0"), ("megaraid_sas", "0000:00:06.0")):
        module = modules[name]
        told = (
            module["engine"],
            module["policy"],
            module["override"],
            module["devices"],
            module["is_loaded"],
        )
        assert told == ("native", "linux", "native", [address], True)
        assert (module["size"], module["taints"], module["is_stopped"]) == (0, [], False)
    table = running.table("system", "module", "list")
    for text in ("engine", "policy", "override", "native", "linux"):
        assert text in table


def test_module_get(running: Running) -> None:
    for name in ("e1000", "native:e1000"):
        module = running.json("system", "module", "get", "-m", name)
        assert (module["name"], module["engine"], module["kernel"]) == ("e1000", "native", "")
        assert "8254x" in module["description"]
        assert Path(module["file"]).name == "__init__.py"
    wrong = running.vmk("system", "module", "get", "-m", "bsd:e1000")
    assert wrong.returncode == 3
    assert "'bsd' is no engine; write linux:e1000 or native:e1000" in said(wrong)
    wrong = running.vmk("system", "module", "get", "-m", "linux:e1000")
    assert wrong.returncode == 4
    assert f"vmk kernel fetch {NEVER}" in said(wrong)


def test_parameters(running: Running) -> None:
    base = ("system", "module", "parameters")
    told = {one["name"]: one["value"] for one in running.json(*base, "list", "-m", "e1000")}
    assert told["TxDescriptors"] == ""
    running.table(*base, "set", "-m", "native:e1000", "-p", "TxDescriptors=512")
    told = {one["name"]: one["value"] for one in running.json(*base, "list", "-m", "e1000")}
    assert told["TxDescriptors"] == "512"
    wrong = running.vmk(*base, "set", "-m", "native:megaraid_sas", "-p", "nosuch=1")
    assert "module native:megaraid_sas: has no parameter 'nosuch'" in said(wrong)
    told = {one["name"]: one["type"] for one in running.json(*base, "list", "-m", "vmkiscsi")}
    assert (told["portal"], told["sessions"]) == ("charp", "uint")
    running.table(*base, "set", "-m", "vmkiscsi", "-p", "sessions=2")
    wrong = running.vmk("system", "module", "load", "-m", "vmkiscsi")
    assert wrong.returncode == 3
    assert "portal" in said(wrong)
    wrong = running.vmk(*base, "set", "-m", "vmkiscsi", "-p", "sessions=many")
    assert "parameter sessions (uint) does not take 'many'" in said(wrong)


def test_parameters_of_both_engines(kernel61: Kernel, tmp_path: Path) -> None:
    machine = f"""
kernel = "{kernel61.release}"
[platform]
devices = ["e1000,addr=5", "e1000,addr=6"]
[engines]
"0000:00:06.0" = "native"
[parameters]
"linux:e1000" = "copybreak=100"
"native:e1000" = "TxDescriptors=512"
"""
    base = ("system", "module", "parameters")
    with Running(machine, tmp_path) as running:
        assert [one["is_loaded"] for one in running.json("system", "module", "list")] == [True, True]
        for module, name, value in (
            ("linux:e1000", "copybreak", "100"),
            ("native:e1000", "TxDescriptors", "512"),
        ):
            told = {
                one["name"]: one["value"] for one in running.json(*base, "list", "-m", module) if one["value"]
            }
            assert told == {name: value}
            assert running.json("system", "module", "get", "-m", module)["parameters"] == [f"{name}={value}"]
        running.table(*base, "set", "-m", "linux:e1000", "-p", "debug=3", "--append")
        [native] = [one for one in running.json(*base, "list", "-m", "native:e1000") if one["value"]]
        assert (native["name"], native["value"]) == ("TxDescriptors", "512")
        wrong = running.vmk(*base, "set", "-m", "native:e1000", "-p", "debug=3")
        assert "module native:e1000: has no parameter 'debug'; it takes TxDescriptors, " in said(wrong)
        wrong = running.vmk(*base, "list", "-m", "e1000")
        assert "linux and native have a module e1000" in said(wrong)
        assert running.end() == 0


@pytest.mark.parametrize(
    ("module", "code", "text"),
    [
        ("native:tg3", 3, "there is no driver tg3 in Python; there are e100, e1000, megaraid_sas, "),
        ("linux:e1000", 4, "this takes a module of a Linux kernel, and no kernel is here"),
        ("native:", 3, "'native:' names no module; write e1000, linux:e1000 or native:e1000"),
        ("", 3, "'' names no module"),
    ],
)
def test_modules_that_there_are_not(running: Running, module: str, code: int, text: str) -> None:
    wrong = running.vmk("system", "module", "get", "-m", module)
    assert wrong.returncode == code
    assert text in said(wrong)


def test_what_no_driver_takes_is_told_and_not_that_there_is_no_kernel(bare: dict[str, str]) -> None:
    run = vmk("demo", "--platform", "model", "-p", "debug=16", **bare)
    assert (run.returncode, run.stdout) == (3, "")
    assert said(run).startswith("module native:e1000: has no parameter 'debug'; it takes TxDescriptors")


def test_unload_and_load(running: Running) -> None:
    base = ("system", "module")
    assert running.json(*base, "unload", "-m", "native:megaraid_sas") == {"name": "megaraid_sas", "leaks": []}
    assert running.json("storage", "core", "adapter", "list") == []
    listed = {one["name"]: one["is_loaded"] for one in running.json(*base, "list")}
    assert listed == {"e1000": True, "megaraid_sas": False}
    loaded = running.json(*base, "load", "-m", "megaraid_sas")
    assert (loaded["devices"], loaded["failed"]) == (["0000:00:06.0"], {})


def test_the_verdicts_on_a_host_with_no_kernel(running: Running) -> None:
    report = running.json("system", "hcl", "get")
    [card] = [device for device in report["devices"] if device["ids"] == "8086:100e"]
    assert (card["driver_in_use"], card["esx_driver"], card["engine"]) == ("e1000", "net/e1000", "native")
    assert (card["module"], card["status"]) == ("e1000", "certified")
    assert card["driver"]["reason"].startswith("e1000 in Python of vmklinux ")
    assert report["exit_code"] == 0


def test_both_engines_at_once(kernel61: Kernel, tmp_path: Path) -> None:
    machine = f"""
kernel = "{kernel61.release}"
[platform]
devices = ["e1000,addr=5", "e1000,addr=6"]
[engines]
"0000:00:06.0" = "native"
"""
    with Running(machine, tmp_path) as running:
        told = [
            (one["name"], one["engine"], one["override"], one["devices"])
            for one in running.json("system", "module", "list")
        ]
        assert sorted(told) == [
            ("e1000", "linux", "", ["0000:00:05.0"]),
            ("e1000", "native", "native", ["0000:00:06.0"]),
        ]
        wrong = running.vmk("system", "module", "unload", "-m", "e1000")
        assert wrong.returncode == 3
        assert "linux and native have a module e1000; say which engine is meant" in said(wrong)
        assert running.json("system", "module", "unload", "-m", "linux:e1000")["leaks"] == []
        [nic] = running.json("network", "nic", "list")
        assert nic["pci_device"] == "0000:00:06.0"
        assert running.end() == 0
