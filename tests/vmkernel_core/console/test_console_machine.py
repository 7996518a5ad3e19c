"""Machine files: what they say, and errors that name file, line or key and remedy.

Independent side: Python's tomllib.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hcl.report import Profile
from tests.vmkernel_core.console.vmk_command import said, vmk
from vmkernel_core.console.machine import BadMachine, Machine, PlatformTable, read_machine
from vmkernel_core.errors import UsageError

FULL = """
kernel = "6.12"
memory = 128
core = 0
hcl = "strict"
allow_unresolved = true
open = ["vmnic0", "vmnic1"]
socket = "/run/vmk/lab.sock"

[platform]
type = "qemu"
devices = ["e1000,netdev=wire0", "megasas"]
disks = ["disk.raw,serial=0815"]
arguments = ["-netdev", "tap,id=wire0,ifname=tap0,script=no,downscript=no"]

[modules]
"0000:00:05.0" = "e1000"

[parameters]
e1000 = "debug=16 Speed=100"
"""


def test_every_key(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(FULL)
    assert read_machine(file) == Machine(
        platform=PlatformTable(
            "qemu",
            ["e1000,netdev=wire0", "megasas"],
            ["disk.raw,serial=0815"],
            ["-netdev", "tap,id=wire0,ifname=tap0,script=no,downscript=no"],
        ),
        kernel="6.12",
        memory=128,
        core=0,
        hcl=Profile.STRICT,
        allow_unresolved=True,
        modules={"0000:00:05.0": "e1000"},
        parameters={"e1000": "debug=16 Speed=100"},
        open=["vmnic0", "vmnic1"],
        socket="/run/vmk/lab.sock",
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[platform\n", "is no TOML: Expected ']' at the end of a table declaration (at line 1, column 10)"),
        ("kernel = 6\n[platform]", "Expected `str | null`, got `int` (key kernel)"),
        ("", "missing required field `platform`; it takes platform, kernel, memory"),
        ("colour = 1\n[platform]", "unknown field `colour`; it takes platform, kernel, memory"),
        (
            "[platform]\ndevice = []",
            "unknown field `device` (key platform); it takes type, devices, disks, arguments",
        ),
        ("[platform]\ntype = 'moon'", "Invalid enum value 'moon' (key platform.type); use qemu or model"),
        ("engine = 'bsd'\n[platform]", "Invalid enum value 'bsd' (key engine); use linux or native"),
        ("hcl = 'lax'\n[platform]", "Invalid enum value 'lax' (key hcl); use default or strict"),
        (
            "[platform]\n[engines]\n'net/e1000' = 'bsd'",
            "Invalid enum value 'bsd' (key engines[...]); use linux or native",
        ),
        ("[platform]\ndevices = [1]", "Expected `str`, got `int` (key platform.devices[0])"),
        ("[platform]\n[parameters]\ne1000 = 4", "Expected `str`, got `int` (key parameters[...])"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(text)
    with pytest.raises(BadMachine) as raised:
        read_machine(file)
    assert str(file) in str(raised.value)
    assert what in str(raised.value)


@pytest.mark.parametrize(
    ("platform", "what"),
    [
        (PlatformTable("model", ["rtl8139"]), "there is no model 'rtl8139' .platform.devices.; use e1000"),
        (PlatformTable("model", ["e1000"], arguments=["-x"]), "device models take no arguments"),
        (PlatformTable("model", ["e1000"], disks=["disk.raw"]), "device models take no disks"),
    ],
)
def test_models_that_there_are_not(platform: PlatformTable, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Machine(platform=platform).vmkernel()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[engines]\n'net/nothing' = 'native'", "'net/nothing' names neither a device nor a driver"),
        ("[modules]\ne1000 = 'e1000e'", "'e1000' names no device .modules.; write a PCI address"),
        ("[parameters]\n'8086:100e' = 'x=1'", "'8086:100e' names no module .settings.; write"),
        ("[parameters]\ne1000 = 'x=\"1'", "cannot read 'x=\"1': No closing quotation"),
    ],
)
def test_what_no_vmkernel_takes(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(f"[platform]\n{text}")
    with pytest.raises(UsageError, match=what):
        read_machine(file).vmkernel()


def test_the_command_says_it_in_a_line(tmp_path: Path) -> None:
    run = vmk("boot", "-c", str(tmp_path / "none.toml"))
    assert run.returncode == 3
    assert said(run) == f"cannot read {tmp_path}/none.toml: No such file or directory; name a TOML file"
