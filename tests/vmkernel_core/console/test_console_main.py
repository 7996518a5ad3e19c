"""``vmk`` itself: help, exit codes, and one line for whatever goes wrong.

Independent side: the operating system, which starts the commands and sends them signals.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import click
import pytest

import hcl
from tests.vmkernel_core.console.vmk_command import COMMAND, LIMIT, environment, said, vmk
from vmkernel_core.console import main as console
from vmkernel_core.console.program import Program
from vmkernel_core.errors import DeviceGone, TimedOut, UsageError, VmkError


def test_help_names_commands_and_exit_codes() -> None:
    run = vmk("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for name in console.COMMANDS:
        assert f"\n  {name} " in run.stdout
    for code in console.EXIT_CODES:
        assert f"\n  {code} " in run.stdout


def test_help_imports_no_command() -> None:
    run = subprocess.run(
        [COMMAND[0], "-X", "importtime", *COMMAND[1:], "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {
        "msgspec",
        "rich",
        "asyncio",
        "elftools",
        "vmkernel_core._core",
        "vmkernel_core.boot",
    }


@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_command_of_the_table_exists(name: str) -> None:
    command = console.vmk.get_command(click.Context(console.vmk), name)
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.splitlines()[0] == console.COMMANDS[name][1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nope"], "No such command 'nope'; see: vmk --help"),
        (["demo", "--nope"], "No such option"),
        (["demo", "--frames", "0"], "0 is not in the range 1<=x<=10000000; see: vmk demo --help"),
        (["demo", "--platform", "moon"], "'moon' is not one of 'qemu', 'model'"),
    ],
)
def test_bad_usage(arguments: list[str], text: str) -> None:
    run = vmk(*arguments)
    assert run.returncode == 3
    assert run.stdout == ""
    assert text in said(run)


def _ends(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code of a command that ends with this error."""

    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(Program, "get_command", lambda *_: broken)
    with pytest.raises(SystemExit) as ended:
        console.main(["broken"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VmkError("it is so", where="there", remedy="do this"), 1),
        (UsageError("it is so", where="there", remedy="do this"), 3),
        (DeviceGone("it is so", where="there", remedy="do this"), 5),
        (TimedOut("it is so", where="there", remedy="do this"), 6),
        (hcl.HclError("it is so", where="there", remedy="do this"), 3),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    assert _ends(monkeypatch, error) == code
    assert code in console.EXIT_CODES
    assert capsys.readouterr().err == "vmk: it is so (there); do this\n"


def test_a_fault_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ends(monkeypatch, ZeroDivisionError("division\nby zero")) == 70
    told = capsys.readouterr().err
    assert told.startswith("vmk: a fault of vmk itself: ZeroDivisionError: division by zero; VMK_DEBUG=1 ")
    assert told.count("\n") == 1


def test_the_traceback_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VMK_DEBUG", "1")
    assert _ends(monkeypatch, VmkError("it is so")) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith("\nvmk: it is so\n")


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ends(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "vmk: interrupted\n"


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "kernel", "list", "--json"],
        env=environment(VMK_KERNELS=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(30) == 141
    assert told == b""


@pytest.mark.parametrize("arguments", [["kernel", "list", "--json"], ["--help"]])
def test_an_output_that_takes_no_more(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [*COMMAND, *arguments], env=environment(VMK_KERNELS=str(tmp_path)),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    assert run.returncode == 74
    assert said(run) == "cannot write any more: No space left on device; make room, or write elsewhere"


def test_an_output_that_was_closed(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", '"$@" >&-', "sh", *COMMAND, "kernel", "list", "--json"]
    run = subprocess.run(
        command,
        env=environment(VMK_KERNELS=str(tmp_path)),
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.parametrize("seconds", [0.7, 1.2, 2.5])
def test_ctrl_c_ends_a_demo_at_any_moment(seconds: float) -> None:
    """At the moments when it boots, when it has booted, and in the middle of its traffic."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--platform", "model", "--frames", "5000000"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time.sleep(seconds)  # any moment is the point
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=30)
    assert (process.returncode, out, told) == (130, "", "vmk: interrupted\n")
