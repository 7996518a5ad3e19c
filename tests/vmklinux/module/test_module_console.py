"""``vmk module check``, the real command, on Debian's own modules.

Independent side: binutils' nm, which counts what a module imports, and the sums, which must agree.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.vmkernel_core.console.vmk_command import said, vmk
from vmklinux.kernels import Kernel, read_module

KEYS = {
    "module",
    "kernel",
    "imports",
    "vmklinux",
    "image",
    "modules",
    "unresolved",
    "dependencies",
    "resolved",
    "sensitive",
}


def _check(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    run = vmk("module", "check", "--json", *arguments)
    survey = json.loads(run.stdout)
    reports: list[dict[str, Any]] = survey["modules"]
    resolved = sum(report["resolved"] for report in reports)
    assert survey["totals"]["resolved"] == resolved
    assert survey["totals"]["total"] == len(reports)
    assert resolved * 100 / len(reports) - 0.1 < survey["totals"]["percent"] <= resolved * 100 / len(reports)
    for report in reports:
        assert report["resolved"] == (not report["unresolved"] and not any(report["dependencies"].values()))
        assert set(report) == KEYS
        for found in report["sensitive"]:
            assert set(found) == {"section", "offset", "instruction", "treatment"}
    return run.returncode, reports


def _imports(data: bytes, tmp_path: Path) -> set[str]:
    """What nm finds undefined in a module."""
    file = tmp_path / "module.ko"
    file.write_bytes(data)
    listed = subprocess.run(["nm", "-u", file], capture_output=True, text=True, check=True)
    return {line.split()[1] for line in listed.stdout.splitlines()}


@pytest.mark.parametrize("name", ["e1000", "tg3"])
def test_the_counts_are_those_of_the_file(kernel: Kernel, name: str, tmp_path: Path) -> None:
    code, (report,) = _check(name, "--kernel", kernel.release)
    imports = _imports(read_module(kernel.find_module(name)), tmp_path)
    assert (report["module"], report["kernel"]) == (name, kernel.release)
    assert report["imports"] == len(imports)
    assert set(report["unresolved"]) <= imports
    served = report["vmklinux"] + report["image"] + report["modules"]
    assert served + len(report["unresolved"]) == len(imports)
    assert code == (not report["resolved"])


def test_e1000_is_served(kernel: Kernel) -> None:
    code, (report,) = _check("e1000", "--kernel", kernel.release)
    assert (code, report["unresolved"]) == (0, [])
    assert any(found["instruction"].startswith("out ") for found in report["sensitive"])


def test_a_path_and_a_name_are_the_same(kernel61: Kernel) -> None:
    assert _check(str(kernel61.find_module("e1000"))) == _check("e1000")


def test_all_goes_over_a_family(kernel61: Kernel) -> None:
    code, reports = _check("--all", "scsi", "--kernel", kernel61.release)
    assert code == 1
    names = {report["module"] for report in reports}
    assert {"megaraid_sas", "hpsa", "mptsas", "lpfc"} <= names
    assert "e1000" not in names
    assert any(report["modules"] for report in reports)


def test_the_table_is_for_people(kernel61: Kernel) -> None:
    run = vmk("module", "check", "e1000", "mlx5_core", "--kernel", kernel61.release, COLUMNS="100")
    assert run.returncode == 1
    assert f"kernel {kernel61.release}" in run.stdout
    assert "mlx5_core unresolved: " in run.stdout
    assert "e1000 unresolved: " not in run.stdout
    assert "resolved with all they depend on: 1 of 2 modules, 50.0 %" in run.stdout
    assert said(run) == "1 of 2 modules need symbols that nothing here serves"


def test_a_module_that_cannot_be_read_does_not_stop_the_others(kernel61: Kernel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ko"
    broken.write_bytes(b"no module at all")
    run = vmk("module", "check", "--json", str(broken), "nosuch", "e1000")
    assert run.returncode == 1
    survey = json.loads(run.stdout)
    assert [report["module"] for report in survey["modules"]] == ["e1000"]
    assert survey["totals"] == {"resolved": 1, "total": 3, "percent": 33.3}
    first, second, summary = run.stderr.splitlines()
    assert str(broken) in first or "broken" in first
    assert "has no module nosuch" in second
    assert summary == "vmk: 2 could not be checked"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 3, "wants names, or --all"),
        (["e1000", "--all", "net"], 3, "wants names, or --all"),
        (["--all", "moon"], 3, "'moon' is not one of 'net', 'scsi'"),
        (["e1000", "--kernel", "2.6"], 1, "run: vmk kernel fetch 2.6"),
    ],
)
def test_bad_usage(arguments: list[str], code: int, text: str) -> None:
    run = vmk("module", "check", *arguments)
    assert (run.returncode, run.stdout) == (code, "")
    assert text in said(run)
