"""``vmk kernel list`` and ``vmk kernel fetch`` as a person sees them.

Independent side: none; click's own runner calls the commands.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.vmklinux.kernels.kernel_trees import plant
from vmklinux.kernels import cache as cache_module
from vmklinux.kernels.console import kernel

RELEASE, BROKEN = "6.12.107+deb13-amd64", "6.1.0-56-amd64"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMK_KERNELS", str(tmp_path))
    monkeypatch.setattr(cache_module, "_host_kernels", lambda root: iter(()))
    return tmp_path


@pytest.fixture
def two(cache: Path) -> Path:
    plant(cache / RELEASE, RELEASE)
    plant(cache / BROKEN, BROKEN)
    (cache / BROKEN / "boot" / f"vmlinuz-{BROKEN}").write_bytes(b"")
    return cache


def test_list(two: Path) -> None:
    result = CliRunner().invoke(kernel, ["list"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{RELEASE}  {two}/{RELEASE}  usable",
        f"{BROKEN}        {two}/{BROKEN}  unusable: vmlinuz is not an x86 boot image",
    ]


def test_list_as_json(two: Path) -> None:
    result = CliRunner().invoke(kernel, ["list", "--json"])
    assert json.loads(result.stdout) == [
        {"release": RELEASE, "path": f"{two}/{RELEASE}", "usable": True, "reason": ""},
        {
            "release": BROKEN,
            "path": f"{two}/{BROKEN}",
            "usable": False,
            "reason": "vmlinuz is not an x86 boot image",
        },
    ]


def test_an_empty_list_names_the_command(cache: Path) -> None:
    result = CliRunner().invoke(kernel, ["list"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no kernel here; run: vmk kernel fetch\n"
    assert json.loads(CliRunner().invoke(kernel, ["list", "--json"]).stdout) == []


def test_fetching_what_is_there_says_so(two: Path) -> None:
    result = CliRunner().invoke(kernel, ["fetch", "6.12"])
    assert result.exit_code == 0
    assert result.stdout == f"{RELEASE}  {two}/{RELEASE}\n"
    assert result.stderr == f"{RELEASE} is in the cache already\n"
