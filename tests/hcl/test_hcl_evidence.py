"""Evidence of certification runs: signed, read back, counted - or not, where it was changed or nobody is trusted.

Independent side: openssl makes the keys, and verifies a signature; sha256sum sums a driver's sources.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from hcl import evidence, native, release, signing
from hcl.errors import BadEvidence, BadKey, BadSignature, CannotWrite
from hcl.evidence import Check, Evidence, Run
from hcl.reading import DRIVERS, read, shipped
from hcl.registry import Registry
from hcl.verdict import Engine, Status
from tests.vmkernel_core.console.vmk_command import environment

HERE = Path(evidence.__file__).parent
MADE = datetime(2026, 11, 20, 12, tzinfo=UTC)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def key_pair(directory: Path) -> tuple[Path, Path]:
    directory.mkdir(exist_ok=True)
    private, public = directory / "private.key", directory / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def run(passed: bool = True, started: datetime = MADE, kernel: str = "6.1.0-56-amd64") -> Run:
    return Run(
        suite="nic", suite_version=1, vendor="8086", device="100e", subvendor="1af4", subdevice="1100",
        pci_class="020000", module="e1000", module_sha256="0" * 64, kernel=kernel, counterpart="QEMU 7.2.22: e1000",
        started=started, seconds=70.5,
        checks=(Check("link", True), Check("traffic", passed, "60 s", {"frames": 4096.0})),
    )  # fmt: skip


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path / "keys")


def registry(runs: Path, public: Path) -> Registry:
    return read(DRIVERS, Evidence([runs], [public]))


def test_a_run_is_signed_written_and_read_back(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    path = evidence.write(run(), signing.private_key(private), tmp_path)
    assert evidence.read(path, [signing.public_key(public)]) == run()
    # openssl finds the same: the signature is over the run, sorted and without spaces.
    document = json.loads(path.read_text())
    (tmp_path / "message").write_bytes(signing.canonical(run()))
    (tmp_path / "signature").write_bytes(base64.b64decode(document["signature"]["value"]))
    openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", tmp_path / "message",
        "-sigfile", tmp_path / "signature",
    )  # fmt: skip


@pytest.mark.parametrize("path", sorted((HERE / "runs").glob("*.json")), ids=lambda path: path.stem)
def test_the_evidence_that_comes_with_the_list(path: Path) -> None:
    """Made with a key that is not here; the public one is."""
    run = evidence.read(path, [signing.public_key(HERE / "keys" / "vmklinux.pem")])
    assert (run.name, run.passed) == (path.stem, True)
    vendor, device, subvendor, subdevice, pci_class = (
        int(text, 16) for text in (run.vendor, run.device, run.subvendor, run.subdevice, run.pci_class)
    )
    verdict = shipped().lookup(
        vendor, device, subvendor, subdevice, pci_class,
        kernel=run.kernel or "6.1", claimants=lambda _: [run.module], engine=run.engine,
    )  # fmt: skip
    assert (verdict.status, verdict.engine, verdict.module) == (Status.CERTIFIED, run.engine, run.module)


def test_a_device_with_a_run_that_passed_is_certified(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    evidence.write(run(), signing.private_key(private), tmp_path)
    verdict = registry(tmp_path, public).lookup(
        0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, kernel="6.1.0-60-amd64"
    )
    assert verdict.status is Status.CERTIFIED
    assert verdict.proof is not None
    assert (verdict.proof.run, verdict.proof.kernel) == (run().name, "6.1.0-56-amd64")
    assert verdict.proof.age(MADE + timedelta(days=3, hours=5)) == 3
    assert (
        verdict.evidence
        == "certification run of 2026-11-20 passed on QEMU 7.2.22: e1000, kernel 6.1.0-56-amd64"
    )
    # Of another series, and of another device of the same driver, it proves nothing.
    other = registry(tmp_path, public)
    assert other.lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, kernel="6.12").status is Status.COMPATIBLE
    assert other.lookup(0x8086, 0x100F, 0x1AF4, 0x1100, 0x020000, kernel="6.1").proof is None


def test_the_newest_run_counts(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    for each in (run(), run(passed=False, started=MADE + timedelta(days=1))):
        evidence.write(each, signing.private_key(private), tmp_path)
    verdict = registry(tmp_path, public).lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)
    assert verdict.status is Status.UNSUPPORTED
    assert "FAILED" in str(verdict.evidence)


def python_run(passed: bool = True, version: str | None = None, days: int = 0) -> Run:
    """The same of the driver in Python, of this version of the package."""
    return msgspec.structs.replace(
        run(passed, MADE + timedelta(days=days)),
        engine="native",
        kernel="",
        vmklinux=native.version() if version is None else version,
    )


def status(registry: Registry, engine: Engine) -> Status:
    return registry.lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, engine=engine).status


def test_each_engine_has_runs_of_its_own(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """One of Linux's module says nothing of the driver in Python, and the other way round."""
    private, public = keys
    for number, (one, linux, ours) in enumerate(
        (
            (run(), Status.CERTIFIED, Status.COMPATIBLE),
            (python_run(), Status.COMPATIBLE, Status.CERTIFIED),
            (run(passed=False), Status.UNSUPPORTED, Status.COMPATIBLE),
            (python_run(passed=False), Status.COMPATIBLE, Status.UNSUPPORTED),
        )
    ):
        runs = tmp_path / str(number)
        runs.mkdir()
        evidence.write(one, signing.private_key(private), runs)
        listed = registry(runs, public)
        assert (status(listed, "linux"), status(listed, "native")) == (linux, ours)
        # In a release of the list it says the same.
        release.write(release.of(listed, MADE), signing.private_key(private), runs / "release")
        made = release.read(runs / "release", [signing.public_key(public)])
        again = made.registry(Evidence((), (), made.enclosed(runs / "release")))
        assert (status(again, "linux"), status(again, "native")) == (linux, ours)


def test_a_run_of_a_driver_in_python_counts_for_the_series_of_vmklinuxs_version(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys
    evidence.write(python_run(version="0.7.1"), signing.private_key(private), tmp_path)
    evidence.write(python_run(False, "0.8.0", days=1), signing.private_key(private), tmp_path)
    for version, expected in {
        "0.7.0": Status.CERTIFIED,
        "0.7.12": Status.CERTIFIED,
        "0.8.2": Status.UNSUPPORTED,
        "0.70.1": Status.COMPATIBLE,
        "1.7.1": Status.COMPATIBLE,
        "": Status.COMPATIBLE,
    }.items():
        monkeypatch.setattr(native, "version", lambda version=version: version)
        found = registry(tmp_path, public).lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, engine="native")
        assert found.status is expected
        if found.proof and found.status is Status.CERTIFIED:
            assert (found.proof.engine, found.proof.kernel) == ("native", "")
            assert str(found.proof).endswith("QEMU 7.2.22: e1000, e1000 in Python of vmklinux 0.7.1")


def test_a_run_names_what_its_driver_belongs_to(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    file = evidence.write(python_run(version="0.7.1"), signing.private_key(keys[0]), tmp_path)
    assert file.stem == "8086-100e-1af4-1100_e1000_native-0.7.1_20261120T120000Z"
    document = json.loads(file.read_text())
    assert (document["run"]["kernel"], document["run"]["vmklinux"]) == ("", "0.7.1")
    assert "vmklinux" not in json.loads(signing.canonical(run()))
    for changes in ({"kernel": "6.1.0-56-amd64"}, {"vmklinux": ""}, {"engine": "linux"}):
        file.write_text(json.dumps({**document, "run": document["run"] | changes}))
        with pytest.raises(BadEvidence, match="the kernel of a Linux module, or vmklinux's version"):
            evidence.read(file, [])


@pytest.mark.parametrize("driver", ["net/e1000", "scsi/mptscsi_2xx"])
def test_the_sum_over_a_drivers_sources_is_the_usual_tools(driver: str) -> None:
    summed = subprocess.run(
        "LC_ALL=C sha256sum *.py | sha256sum",
        shell=True, cwd=DRIVERS / driver, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert native.sources_sha256(DRIVERS / driver) == summed.stdout.split()[0]
    assert native.sources_sha256(DRIVERS / "net" / "tg3") == ""


def test_evidence_that_was_changed_counts_for_nothing(
    tmp_path: Path, keys: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    private, public = keys
    path = evidence.write(run(passed=False), signing.private_key(private), tmp_path)
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(BadSignature, match="was changed"):
        evidence.read(path, [signing.public_key(public)])
    with caplog.at_level(logging.WARNING):
        verdict = registry(tmp_path, public).lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)
    assert verdict.status is Status.COMPATIBLE
    assert str(path) in caplog.text


def test_evidence_of_a_stranger_counts_for_nothing(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, _ = keys
    path = evidence.write(run(), signing.private_key(private), tmp_path)
    _, other = key_pair(tmp_path / "other")
    with pytest.raises(BadSignature, match="not trusted"):
        evidence.read(path, [signing.public_key(other)])
    assert registry(tmp_path, other).lookup(0x8086, 0x100E, 0, 0, 0x020000).status is Status.COMPATIBLE


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"run": {}, "signature": {}}', b"[1]"])
def test_a_file_that_is_no_evidence(tmp_path: Path, keys: tuple[Path, Path], content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(BadEvidence, match=r"run\.json"):
        registry(tmp_path, keys[1]).lookup(0x8086, 0x100E, 0, 0, 0x020000)


def test_keys_that_are_none(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    rsa = tmp_path / "rsa.pem"
    openssl("genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048", "-out", rsa)
    with pytest.raises(BadKey, match="not an Ed25519 key"):
        signing.private_key(rsa)
    with pytest.raises(BadKey, match="PEM"):
        signing.private_key(keys[1])
    with pytest.raises(BadKey, match="PEM"):
        signing.public_key(keys[0])
    with pytest.raises(BadKey, match="No such file"):
        signing.public_key(tmp_path / "absent.pem")


def test_a_directory_that_is_not_there(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(CannotWrite, match="nothing was changed"):
        evidence.write(run(), signing.private_key(keys[0]), tmp_path / "absent")


def command(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``hcl evidence``, with a site's directory."""
    return subprocess.run(
        [sys.executable, "-m", "hcl.console.main", "evidence", *map(str, arguments)],
        env=environment(VMK_HCL=str(site)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_evidence_is_taken_in_when_its_key_is_trusted(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    site = tmp_path / "site"
    good = evidence.write(run(), signing.private_key(private), tmp_path)
    failed = evidence.write(run(passed=False, kernel="6.12.1"), signing.private_key(private), tmp_path)
    stranger = command(site, "add", good)
    assert (stranger.returncode, stranger.stdout) == (3, "")
    assert "is not trusted" in stranger.stderr
    assert not site.exists()
    told = command(site, "verify", "--trust", public, good, failed)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        f"{good}: QEMU 7.2.22: e1000, e1000 of Linux 6.1.0-56-amd64, 2026-11-20: passed all of 2 checks",
        f"{failed}: QEMU 7.2.22: e1000, e1000 of Linux 6.12.1, 2026-11-20: FAILED: traffic",
    ]
    (site / "keys").mkdir(parents=True)
    shutil.copy(public, site / "keys")
    taken = command(site, "add", good)
    assert (taken.returncode, taken.stdout) == (0, f"{site / 'runs' / good.name}\n")
    assert (site / "runs" / good.name).read_bytes() == good.read_bytes()


def test_evidence_that_was_changed_is_not_taken_in(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    good = evidence.write(run(), signing.private_key(private), tmp_path)
    bad = evidence.write(run(passed=False, kernel="6.12.1"), signing.private_key(private), tmp_path)
    bad.write_text(bad.read_text().replace("false", "true"))
    refused = command(tmp_path / "site", "add", "--trust", public, good, bad)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (3, 1)
    assert "it was changed after it was signed" in refused.stderr
    assert not (tmp_path / "site").exists()
    occupied = tmp_path / "file"
    occupied.touch()
    nowhere = command(occupied, "add", "--trust", public, good)
    assert (nowhere.returncode, len(nowhere.stderr.splitlines())) == (4, 1)
