"""Every command in esxcli's grammar, for people and as JSON, at a running vmkernel with QEMU's e1000.

Independent side: Debian's e1000.ko, QEMU's device, modinfo of kmod for a module's own words.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmkernel_core.console.running import QEMU_MACHINE, Running
from tests.vmkernel_core.console.vmk_command import said, vmk
from vmklinux.kernels import Kernel

DEVICE = "Intel Corporation 82540EM Gigabit Ethernet Controller"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> Iterator[Running]:
    machine = QEMU_MACHINE.format(kernel=kernel.release, more="", arguments="")
    with Running(machine, tmp_path_factory.mktemp("commands"), "vmk", "-v") as running:
        running.expect("vmk: vmnic0: link-up")
        yield running
        assert running.end() == 0
        assert [line for line in running.rest() if "ERROR" in line or "WARNING" in line] == []


def test_nic_list(running: Running) -> None:
    table = running.table("network", "nic", "list")
    for text in ("vmnic0", "0000:00:05.0", "e1000", "up", "1000", "52:54:00:12:34:56", "1500"):
        assert text in table
    [nic] = running.json("network", "nic", "list")
    assert (nic["name"], nic["pci_device"], nic["driver"], nic["state"]) == (
        "vmnic0", "0000:00:05.0", "e1000", "ready",
    )  # fmt: skip
    assert (nic["link_status"], nic["speed"], nic["mtu"]) == ("up", 1000, 1500)


def test_nic_get(running: Running) -> None:
    assert "52:54:00:12:34:56" in running.table("network", "nic", "get", "-n", "vmnic0")
    nic = running.json("network", "nic", "get", "-n", "vmnic0")
    assert (nic["name"], nic["error"]) == ("vmnic0", None)
    wrong = running.vmk("network", "nic", "get", "-n", "vmnic9")
    assert (wrong.returncode, said(wrong)) == (3, "there is no uplink vmnic9; use one of vmnic0")


@pytest.mark.parametrize("verb", [["get"], []])
def test_nic_stats(running: Running, verb: list[str]) -> None:
    assert "packets received" in running.table("network", "nic", "stats", *verb, "-n", "vmnic0")
    stats = running.json("network", "nic", "stats", *verb, "-n", "vmnic0")
    assert stats["name"] == "vmnic0"
    assert stats["packets_sent"] == stats["driver"]["tx_packets"] == 0


def test_nic_down_and_up(running: Running) -> None:
    down = running.json("network", "nic", "down", "-n", "vmnic0")
    assert (down["admin_status"], down["link_status"]) == ("down", "down")
    assert "down" in running.table("network", "nic", "down", "-n", "vmnic0")  # it is already: nothing happens
    assert running.json("network", "nic", "up", "-n", "vmnic0")["admin_status"] == "up"
    running.expect("vmk: vmnic0: link-up")
    assert "up" in running.table("network", "nic", "up", "-n", "vmnic0")
    assert running.json("network", "nic", "list")[0]["link_status"] == "up"


def test_nic_suspend_and_resume(running: Running) -> None:
    asleep = running.json("network", "nic", "suspend", "-n", "vmnic0")
    assert (asleep["state"], asleep["admin_status"], asleep["link_status"]) == ("suspended", "up", "down")
    assert (asleep["speed"], asleep["mac"]) == (None, "52:54:00:12:34:56")
    running.expect("vmk: vmnic0: suspended")
    assert "suspended" in running.table("network", "nic", "suspend", "-n", "vmnic0")  # nothing happens
    assert running.json("network", "nic", "get", "-n", "vmnic0")["state"] == "suspended"
    refused = running.vmk("network", "nic", "set", "-n", "vmnic0", "--mtu", "1400")
    assert refused.returncode != 0
    assert "vmnic0 is suspended" in said(refused)
    awake = running.json("network", "nic", "resume", "-n", "vmnic0")
    assert (awake["state"], awake["error"]) == ("ready", None)
    running.expect("vmk: vmnic0: resumed")
    running.expect("vmk: vmnic0: link-up")
    assert "ready" in running.table("network", "nic", "resume", "-n", "vmnic0")
    assert running.json("network", "nic", "list")[0]["link_status"] == "up"


def test_nic_set(running: Running) -> None:
    nic = running.json("network", "nic", "set", "-n", "vmnic0", "--mtu", "9000", "--mac", "52:54:00:00:00:01")
    assert (nic["mtu"], nic["mac"]) == (9000, "52:54:00:00:00:01")
    running.expect("vmk: vmnic0: link-up")  # the driver resets the card
    back = running.table(
        "network", "nic", "set", "-n", "vmnic0", "--mtu", "1500", "--mac", "52:54:00:12:34:56"
    )
    assert "52:54:00:12:34:56" in back
    running.expect("vmk: vmnic0: link-up")
    wrong = running.vmk("network", "nic", "set", "-n", "vmnic0", "--mtu", "99999")
    assert wrong.returncode == 3
    assert "an MTU of 99999 is out of range" in said(wrong)


def test_nic_set_of_the_driver(running: Running) -> None:
    """Message level, forced speed and back to negotiation; QEMU's card wakes nobody, and its driver says so."""
    setting = ("network", "nic", "set", "-n", "vmnic0")
    before = running.json("network", "nic", "get", "-n", "vmnic0")
    assert (before["auto_negotiation"], before["duplex"], before["port"]) == (True, "full", "TP")
    assert "1000baseT/Full" in before["supported_link_modes"]
    assert running.json(*setting, "-l", "link,rx_err")["message_level"] == ["link", "rx_err"]
    assert running.json(*setting, "-l", "none")["message_level"] == []
    forced = running.json(*setting, "--speed", "100", "--duplex", "full")
    assert forced["auto_negotiation"] is False
    running.expect("vmk: vmnic0: link-up")
    assert "drv, link" in running.table(*setting, "--auto", "-l", "drv,link")
    running.expect("vmk: vmnic0: link-up")
    assert running.json("network", "nic", "get", "-n", "vmnic0")["auto_negotiation"] is True
    for options, told in {
        ("--speed", "100"): "speed and duplex go together; give both",
        ("--auto", "--speed", "100", "--duplex", "full"): "speed and duplex are forced, or negotiated",
        ("-w", "moon"): "moon",
        ("-w", "magic"): "e1000 cannot",
        ("-l", "moon"): "there is no moon; known are drv, probe",
    }.items():
        wrong = running.vmk(*setting, *options)
        assert wrong.returncode == 3
        assert told in said(wrong)


def test_wake_on_lan(kernel: Kernel) -> None:
    """8139cp's, on QEMU's rtl8139, which keeps it in its configuration registers."""
    run = vmk(
        "network", "nic", "set", "-n", "vmnic0", "-w", "broadcast,magic", "--json",
        "--device", "rtl8139,netdev=wire0", "--kernel", kernel.release,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["wake_on_lan"] == ["broadcast", "magic"]


def test_pci_list(running: Running) -> None:
    table = running.table("hardware", "pci", "list")
    for text in ("Host bridge", "Ethernet controller", DEVICE, "vmnic0"):
        assert text in table
    everything = running.json("hardware", "pci", "list")
    for filtered in ("02", "0x0200", "020000"):
        [card] = running.json("hardware", "pci", "list", "-c", filtered)
        assert card in everything
    assert len(everything) > 1
    assert (card["vendor_id"], card["device_id"], card["device_class"]) == ("8086", "100e", "020000")
    assert (card["module_name"], card["bound"], card["hcl_driver"]) == ("e1000", True, "net/e1000")
    assert card["engine"] == "linux"
    assert [(bar["kind"], bar["size"]) for bar in card["bars"]] == [("memory32", 0x20000), ("io", 0x40)]
    wrong = running.vmk("hardware", "pci", "list", "-c", "net")
    assert (wrong.returncode, said(wrong)) == (
        3, "'net' is no PCI class; use up to six hexadecimal digits, such as 0200",
    )  # fmt: skip


def test_hcl_get(running: Running) -> None:
    assert "0000:00:05.0" in running.table("system", "hcl", "get")
    report = running.json("system", "hcl", "get")
    [card] = [one for one in report["devices"] if one["place"] == "0000:00:05.0"]
    assert (card["ids"], card["module"], card["driver_in_use"]) == ("8086:100e", "e1000", "e1000")
    assert (report["profile"], report["tainted"]) == ("default", [])
    [device] = running.json("hardware", "pci", "list", "-c", "02")
    assert (device["hcl_status"], device["taint"]) == (card["status"], None)


def test_module_list(running: Running) -> None:
    assert "e1000" in running.table("system", "module", "list")
    [module] = running.json("system", "module", "list")
    assert (module["name"], module["is_loaded"], module["devices"]) == ("e1000", True, ["0000:00:05.0"])


def _modinfo(field: str, path: str) -> str:
    return subprocess.run(
        ["modinfo", "-F", field, path], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_module_get(running: Running, kernel: Kernel) -> None:
    assert "Intel(R) PRO/1000 Network Driver" in running.table("system", "module", "get", "-m", "e1000")
    module = running.json("system", "module", "get", "-m", "e1000")
    assert Path(module["file"]) == kernel.find_module("e1000")
    for field in ("license", "description"):
        assert module[field] == _modinfo(field, module["file"])
    other = running.json("system", "module", "get", "-m", "8139cp")
    assert (other["is_loaded"], other["depends"]) == (False, ["mii"])
    wrong = running.vmk("system", "module", "get", "-m", "moon")
    assert wrong.returncode != 0
    assert "moon" in said(wrong)


def test_parameters_list(running: Running) -> None:
    assert "Number of receive descriptors" in running.table(
        "system", "module", "parameters", "list", "-m", "e1000"
    )
    listed = running.json("system", "module", "parameters", "list", "-m", "e1000")
    told = _modinfo("parm", running.json("system", "module", "get", "-m", "e1000")["file"]).splitlines()
    assert sorted(f"{one['name']}:{one['description']} ({one['type']})" for one in listed) == sorted(told)
    assert {one["value"] for one in listed} == {""}


def test_parameters_hold_at_the_next_load(running: Running) -> None:
    base = ("system", "module")
    setting = ("parameters", "set", "-m", "e1000", "-p")
    told = running.table(*base, *setting, "TxDescriptors=128")
    assert told.endswith("e1000 is loaded with these values the next time.\n")
    listed = running.json(*base, *setting, "RxDescriptors=512 copybreak=0", "--append")
    values = {one["name"]: one["value"] for one in listed if one["value"]}
    assert values == {"TxDescriptors": "128", "RxDescriptors": "512", "copybreak": "0"}
    wrong = running.vmk(*base, *setting, "copybrake=1")
    assert (wrong.returncode, "did you mean copybreak?" in said(wrong)) == (3, True)
    assert running.json(*base, "get", "-m", "e1000")["parameters"] == [
        "TxDescriptors=128", "RxDescriptors=512", "copybreak=0",
    ]  # fmt: skip

    unloaded = running.json(*base, "unload", "-m", "e1000")
    assert unloaded == {"name": "e1000", "leaks": []}
    running.expect("vmk: vmnic0: removed")
    assert running.json("network", "nic", "list") == []
    assert running.table("network", "nic", "list") == ""
    assert running.json(*base, "list")[0]["is_loaded"] is False
    twice = running.vmk(*base, "unload", "-m", "e1000")
    assert (twice.returncode, said(twice)) == (3, "module e1000 is not loaded")

    loaded = running.json(*base, "load", "-m", "e1000")
    assert (loaded["is_loaded"], loaded["devices"], loaded["failed"]) == (True, ["0000:00:05.0"], {})
    again = running.vmk(*base, "load", "-m", "e1000")
    assert (again.returncode, "is loaded already" in said(again)) == (3, True)
    for told in ("Transmit Descriptors set to 128", "Receive Descriptors set to 512"):
        running.expect(told)  # by the driver itself

    running.table(*base, *setting, "")
    assert "e1000" in running.table(*base, "unload", "-m", "e1000")
    assert "vmk: " not in running.table(*base, "load", "-m", "e1000")
    running.table("network", "nic", "up", "-n", "vmnic0")
    running.expect("vmk: vmnic0: link-up")
    assert running.json("network", "nic", "get", "-n", "vmnic0")["speed"] == 1000


def test_a_module_that_no_device_wants(running: Running) -> None:
    assert running.json("system", "module", "load", "-m", "8139cp")["devices"] == []
    modules = {one["name"]: one for one in running.json("system", "module", "list")}
    assert modules["mii"]["used_by"] == ["8139cp"]
    wrong = running.vmk("system", "module", "unload", "-m", "mii")
    assert (wrong.returncode, "in use by 8139cp" in said(wrong)) == (3, True)
    for name in ("8139cp", "mii"):
        running.table("system", "module", "unload", "-m", name)


def test_a_vmkernel_for_the_call(tmp_path: Path, kernel61: Kernel) -> None:
    run = vmk("network", "nic", "list", "--json", "--platform", "model", "--device", "e1000")
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)[0]["mac"] == "52:54:00:12:34:56"
    file = tmp_path / "machine.toml"
    socket = tmp_path / "vmk.sock"
    file.write_text(
        f'socket = "{socket}"\n[platform]\ntype = "model"\ndevices = ["e1000,mac=52:54:00:0a:0b:0c"]'
    )
    run = vmk("network", "nic", "get", "-n", "vmnic0", "--json", "-c", str(file))
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["mac"] == "52:54:00:0a:0b:0c"
    assert not socket.exists()


def test_a_machine_file_finds_its_running_vmkernel(tmp_path: Path, kernel61: Kernel) -> None:
    text = f'socket = "{tmp_path}/vmk.sock"\n[platform]\ntype = "model"\ndevices = ["e1000"]'
    with Running(text, tmp_path) as running:
        set_mtu = vmk("network", "nic", "set", "-n", "vmnic0", "--mtu", "1400", "-c", str(running.file))
        assert set_mtu.returncode == 0
        assert running.json("network", "nic", "list")[0]["mtu"] == 1400


def test_no_vmkernel(tmp_path: Path) -> None:
    run = vmk("network", "nic", "list", "--socket", str(tmp_path / "vmk.sock"))
    assert run.returncode == 4
    assert "start one with: vmk boot -c machine.toml" in said(run)


def test_two_ways_to_say_which(tmp_path: Path) -> None:
    run = vmk("network", "nic", "list", "--socket", str(tmp_path / "vmk.sock"), "--device", "e1000")
    assert run.returncode == 3
    assert "exclude each other" in said(run)
