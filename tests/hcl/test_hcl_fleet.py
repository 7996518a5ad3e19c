"""Many inventories: files, directories, archives; several processes, and a Dask cluster.

Independent side: tar and zip as Python's library packs them, lspci's forms, and Dask's own cluster.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hcl.errors import NoCluster
from hcl.fleet import BUNDLE, Terms, judged, sources
from hcl.report import MachineReport
from hcl.summary import Failure, Fleet
from tests.hcl.mock import HCL

LINE = "00:{slot:02x}.0 0200: 8086:{device}\n"
TERMS = Terms("6.1")


def texts(count: int) -> dict[str, str]:
    """Inventories by file name; each has a card that fits, and every third one that does not."""
    fits = LINE.format(slot=2, device="100e")
    return {
        f"n{number:04}.txt": fits + ("" if number % 3 else "00:03.0 0200: dead:beef\n")
        for number in range(count)
    }


@pytest.fixture(params=["directory", "tar.gz", "tar.xz", "zip"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """More inventories than one process is given, in each kind of container."""
    path = tmp_path / f"fleet.{request.param}"
    made = texts(3 * BUNDLE + 5)
    if request.param == "directory":
        path.mkdir()
        for name, text in made.items():
            (path / name).write_text(text)
    elif request.param == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in made.items():
                archive.writestr(f"rack/{name}", text)
    else:
        with tarfile.open(path, "w:" + request.param.removeprefix("tar.")) as tar:
            for name, text in made.items():
                info = tarfile.TarInfo(f"rack/{name}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_all_are_judged_in_their_order(fleet: Path) -> None:
    reports = list(judged(TERMS, sources([fleet])))
    assert all(isinstance(report, MachineReport) for report in reports)
    hosts = [report.host for report in reports if isinstance(report, MachineReport)]
    assert hosts == [name.removesuffix(".txt") for name in texts(3 * BUNDLE + 5)]
    assert [report.exit_code for report in reports[:4] if isinstance(report, MachineReport)] == [1, 0, 0, 1]


def test_one_process_and_several_say_the_same(tmp_path: Path) -> None:
    for name, text in texts(BUNDLE + 3).items():
        (tmp_path / name).write_text(text)
    several = list(judged(TERMS, sources([tmp_path])))
    alone = [report for name in texts(BUNDLE + 3) for report in judged(TERMS, sources([tmp_path / name]))]
    assert several == alone


def test_what_cannot_be_read_is_named_and_the_rest_is_judged(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("00:02.0 0200: 8086:100e\nrubbish\n")
    (tmp_path / "b.txt").write_text(LINE.format(slot=2, device="100e"))
    (tmp_path / "c.tar.gz").write_bytes(b"\x1f\x8b rubbish")
    (tmp_path / "d.zip").write_bytes(b"PK rubbish")
    (tmp_path / ".hidden").write_text("rubbish")
    fleet = Fleet(judged(TERMS, sources([tmp_path, tmp_path / "absent"])))
    assert [report.host for report in fleet] == ["b"]
    assert [failure.where.removeprefix(str(tmp_path)) for failure in fleet.failures] == [
        "/a.txt:2", "/c.tar.gz", "/d.zip", "/absent",
    ]  # fmt: skip
    assert fleet.exit_code == 3


def test_an_archive_that_ends_too_soon(fleet: Path, tmp_path: Path) -> None:
    if fleet.is_dir():
        (fleet / "n0001.txt").write_bytes(b"")
        failures = 1
    else:
        fleet.write_bytes(fleet.read_bytes()[: fleet.stat().st_size // 2])
        failures = 1
    found = list(judged(TERMS, sources([fleet])))
    assert sum(isinstance(each, Failure) for each in found) == failures
    assert str(fleet) in next(each.where for each in found if isinstance(each, Failure))


def test_a_summary(tmp_path: Path) -> None:
    for name, text in texts(9).items():
        (tmp_path / name).write_text(text)
    run = subprocess.run(
        [*HCL, "validate", "--kernel", "6.1", "--inventory", tmp_path, "--summary", "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    told = json.loads(run.stdout)
    assert told["machines"] == []
    summary = told["summary"]
    assert summary["models"] == [
        {"model": None, "machines": 9, "fit": 6, "unsupported": 3, "undetermined": 0}
    ]
    assert [(d["ids"], d["status"], d["devices"], d["machines"]) for d in summary["devices"]] == [
        ("8086:100e", "certified", 9, 9), ("dead:beef", "unsupported", 3, 3),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A scheduler with two workers, each a process."""
    local_cluster: Any = import_module("distributed").LocalCluster
    with local_cluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as local:
        yield local.scheduler_address


@pytest.mark.filterwarnings("default")  # what Dask warns of is not ours to mend
def test_a_dask_cluster_says_the_same(cluster: str, tmp_path: Path) -> None:
    for name, text in texts(BUNDLE + 3).items():
        (tmp_path / name).write_text(text)
    assert list(judged(TERMS, sources([tmp_path]), cluster)) == list(judged(TERMS, sources([tmp_path])))


@pytest.mark.filterwarnings("default")
def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hcl.fleet.PATIENCE", 1.0)
    with pytest.raises(NoCluster, match="no Dask scheduler answers"):
        list(judged(TERMS, [], "tcp://127.0.0.1:9"))
