"""What README.md and docs/ say is so: programs, commands, paths, links, addresses, exit codes.

Independent side: Debian's e1000.ko and QEMU, which the README's first program brings together, and make; else the
code vouches for the text.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hcl
import native_drivers
import vmkernel_core
import vmklinux
from hcl import HclError
from hcl.console import main as hcl_console
from vmkernel_core import memory
from vmkernel_core.console.main import EXIT_CODES, main
from vmkernel_core.errors import VmkError
from vmklinux import image, linux
from vmklinux.api_page import page
from vmklinux.kernels import Kernel

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
NATIVE = (ROOT / "docs/native.md").read_text()
HCL = (ROOT / "docs/hcl.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
}

PROGRAM_LIMIT = 120


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def code(text: str) -> list[str]:
    """What stands in backticks outside fenced blocks, and each line of the shell blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [*re.findall(r"`([^`\n]+)`", prose), *"\n".join(blocks(text, "sh")).splitlines()]


def words(program: str) -> list[list[str]]:
    """The arguments of every call of a program that the pages name."""
    lines = {tuple(shlex.split(line, comments=True)) for text in PAGES.values() for line in code(text)
             if line.startswith(f"{program} ")}  # fmt: skip
    return [list(line[1:]) for line in sorted(lines)]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the table in a section, head and rule left out."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = section.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


MAIN = {"vmk": main, "hcl": hcl_console.main}


def run(program: str, arguments: list[str]) -> object:
    """Run a console; its exit code."""
    with pytest.raises(SystemExit) as ended:
        MAIN[program](arguments)
    return ended.value.code


def test_the_page_of_the_api_is_current() -> None:
    assert PAGES["docs/linux-api.md"] == page(), "run: python -m vmklinux.api_page > docs/linux-api.md"


def test_the_first_program_has_ten_lines() -> None:
    assert len([line for line in blocks(README, "python")[0].splitlines() if line]) == 10


@pytest.mark.parametrize(
    ("program", "output"),
    list(zip(blocks(README, "python"), blocks(README, "text"), strict=True)),
    ids=["nic", "disk"],
)
def test_a_program_runs_as_printed(kernel61: Kernel, program: str, output: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input=program, capture_output=True, text=True, cwd=ROOT, timeout=PROGRAM_LIMIT, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr, ended.returncode) == (output, "", 0)


def test_a_register_and_a_descriptor_are_as_printed() -> None:
    (program,), (output,) = blocks(NATIVE, "python"), blocks(NATIVE, "text")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input=program, capture_output=True, text=True, cwd=ROOT, timeout=PROGRAM_LIMIT, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr, ended.returncode) == (output, "", 0)


@pytest.mark.parametrize("command", [[name, *rest] for name in MAIN for rest in words(name)], ids=" ".join)
def test_a_command_and_its_options_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name, *arguments = command
    assert run(name, [*arguments, "--help"]) == 0
    assert f"Usage: {name}" in capsys.readouterr().out


def test_the_list_of_kernels(kernel61: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert ["kernel", "list"] in words("vmk")
    assert run("vmk", ["kernel", "list"]) == 0
    assert kernel61.release in capsys.readouterr().out


@pytest.mark.parametrize("arguments", words("make"), ids=" ".join)
def test_a_make_target_exists(arguments: list[str]) -> None:
    subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, timeout=60, check=True)


def test_both_commands_are_told() -> None:
    assert words("make") == [["demo"], ["test"]]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)", PAGES[name])
    missing = [t for t in targets if not t.startswith("https://") and not ((ROOT / name).parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_exist(name: str) -> None:
    """A path begins with a directory of the repository's; a bare file name stands for a file somewhere in it."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    sources = {path.name for package in top for path in (ROOT / package).rglob("*.*")}
    missing = []
    for text in code(PAGES[name]):
        if "/" in text and text.partition("/")[0] in top:
            missing += [] if (ROOT / text).exists() else [text]
        elif re.fullmatch(r"\w+\.(py|c|h|toml|tsv)", text):
            missing += [] if text in sources else [text]
    assert missing == []


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "What works, and what shows it"), ("docs/evidence.md", "Row by row")]
)
def test_everything_that_works_names_its_test(page: str, heading: str) -> None:
    rows = [row for row in table(PAGES[page], heading) if row[0] != "Driver" and "---" not in row[0]]
    assert len(rows) > 5
    for what, *_, shown_by in rows:
        paths = [ROOT / path for path in re.findall(r"`([^`]+)`", shown_by)]
        assert paths, what
        for path in paths:
            assert list(path.rglob("test_*.py")) if path.is_dir() else path.name.startswith("test_"), path


def test_addresses() -> None:
    told = {tuple(re.findall(r"0x[0-9a-f]+", row[0])) for row in table(ARCHITECTURE, "Memory and ownership")}
    places = (linux.THUNKS, image.BASE, memory.BASE, linux.VMEMMAP, linux.PERCPU)
    assert {(hex(place),) for place in places} | {(hex(linux.MODULES), hex(linux.MODULES_END))} <= told


def classes_with_a_code(kind: type[VmkError | HclError]) -> dict[str, int]:
    """The class and those below it that set an exit code of their own."""
    own = {kind.__name__: kind.exit_code} if "exit_code" in vars(kind) else {}
    for below in kind.__subclasses__():
        own |= classes_with_a_code(below)
    return own


def test_exit_codes() -> None:
    for package in (vmkernel_core, vmklinux, native_drivers, hcl):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    told = {name: int(number) for number, names, _ in table(ARCHITECTURE, "Errors and exit codes")
            for name in re.findall(r"`(\w+)`", names)}  # fmt: skip
    assert told == classes_with_a_code(VmkError) | classes_with_a_code(HclError)
    assert {int(number) for number, _ in table(README, "Exit codes")} == set(EXIT_CODES)
    assert {int(number) for number, _ in table(HCL, "Exit codes")} == set(hcl_console.EXIT_CODES)
