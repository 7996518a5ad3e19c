"""The list as one signed file: written, verified, taken in whole or not at all.

Independent side: openssl makes the keys and verifies the signature; jsonschema judges the file.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner, Result

import hcl
from hcl import evidence, release, schemas, signing
from hcl.console.main import hcl as program
from hcl.errors import BadRelease, BadSignature, CannotWrite
from hcl.evidence import Check, Run
from hcl.reading import HERE, installed, shipped
from hcl.site import Site
from hcl.verdict import Status

#: The names of the runs that come with the list; the site's is newer.
SHIPPED = {path.stem for path in (HERE / "runs").glob("*.json")}
E1000 = (0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def key_pair(directory: Path) -> tuple[Path, Path]:
    directory.mkdir()
    private, public = directory / "private.key", directory / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path / "pair")


@pytest.fixture
def site(tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's directory with an overlay, a run, and the key that signed it."""
    where = tmp_path / "site"
    (where / "runs").mkdir(parents=True)
    (where / "keys").mkdir()
    (where / "keys" / "mine.pem").write_bytes(keys[1].read_bytes())
    (where / "rack7.toml").write_text(
        '[[device]]\nids = "dead:beef"\nstatus = "unsupported"\nreason = "it burnt"\n'
        '[[device]]\nids = "8086:100e"\nlimits = ["slow in rack 7"]\n'
    )
    run = Run(
        suite="nic", suite_version=1, vendor="8086", device="100e", subvendor="1af4", subdevice="1100",
        pci_class="020000", module="e1000", module_sha256="0" * 64, kernel="6.1.0-56-amd64",
        counterpart="QEMU 7.2.22: e1000", started=datetime(2036, 11, 20, 12, tzinfo=UTC), seconds=70.5,
        checks=(Check("link", True), Check("traffic", True, "60 s", {"frames": 4096.0})),
    )  # fmt: skip
    evidence.write(run, signing.private_key(keys[0]), where / "runs")
    monkeypatch.setenv("VMK_HCL", str(where))
    return where


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(program, list(map(str, arguments)))


def exported(folder: Path, key: Path) -> Path:
    file = folder / "release.hcl"
    done = command("export", "--sign", key, "-o", file)
    assert done.exit_code == 0, done.output
    return file


def test_a_release_goes_round(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported(tmp_path, keys[0])
    before = hcl.lookup(*E1000)
    assert (before.status, before.limits) == (Status.CERTIFIED, ("slow in rack 7",))

    other = tmp_path / "other"
    done = command("import", file, "--trust", keys[1], "--to", other)
    assert done.exit_code == 0, done.output
    assert (
        f"{len(shipped().claims)} rows, 2 of overlays, {len(SHIPPED) + 1} certification runs" in done.output
    )
    monkeypatch.setenv("VMK_HCL", str(other))
    after = hcl.lookup(*E1000)
    assert (after.status, after.limits, after.overlay) == (before.status, before.limits, "rack7.toml:5")
    assert (after.proof and after.proof.file) == str(other / "release.json")
    gone = hcl.lookup(0xDEAD, 0xBEEF, 0, 0, 0x020000)
    assert (gone.status, gone.overlay) == (Status.UNSUPPORTED, "rack7.toml:1")
    # What is exported from there is the same.
    again = tmp_path / "again"
    again.mkdir()
    made = [release.read(each, [signing.public_key(keys[1])]) for each in (file, exported(again, keys[0]))]
    first, second = (msgspec.structs.replace(each, made=made[0].made) for each in made)
    assert first == second


def test_every_lookup_is_as_before(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("import", exported(tmp_path, keys[0]), "--trust", keys[1], "--to", tmp_path / "other")
    mine = installed()
    monkeypatch.setenv("VMK_HCL", str(tmp_path / "other"))
    theirs = installed()
    assert theirs is not mine
    for claim in mine.claims:
        ids = tuple(0xFEED if each is None else each for each in claim.ids)
        vendor, device, subvendor, subdevice = ids
        one, two = (
            registry.lookup(vendor, device, subvendor, subdevice, claim.pci_class, kernel="6.12")
            for registry in (mine, theirs)
        )
        assert (one.driver, one.module, one.status, one.rung, one.losers) == (
            two.driver, two.module, two.status, two.rung, two.losers,
        )  # fmt: skip
    assert theirs.usb == mine.usb


def test_a_sites_own_overlay_goes_before_the_releases(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    command("import", exported(tmp_path, keys[0]), "--trust", keys[1], "--to", other)
    (other / "own.toml").write_text('[[device]]\nids = "dead:beef"\nmodule = "e1000e"\n')
    monkeypatch.setenv("VMK_HCL", str(other))
    verdict = hcl.lookup(0xDEAD, 0xBEEF, 0, 0, 0x020000)
    assert (verdict.module, verdict.overlay) == ("e1000e", f"{other / 'own.toml'}:1")


def test_openssl_verifies_it_and_it_fits_its_schema(
    tmp_path: Path, site: Path, keys: tuple[Path, Path]
) -> None:
    document = json.loads(exported(tmp_path, keys[0]).read_text())
    schema = json.loads((Path(schemas.__file__).parent / "release.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    # The canonical form, by Python's own JSON: sorted, without spaces.
    message = json.dumps(document["release"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (tmp_path / "message").write_text(message)
    (tmp_path / "signature").write_bytes(base64.b64decode(document["signature"]["value"]))
    openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", keys[1], "-rawin", "-in", tmp_path / "message",
        "-sigfile", tmp_path / "signature",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("it burnt", "it is fine", "was changed after it was signed"),
        ('"version": 1', '"version": 2', "it has version 2; this knows 1"),
        ('"release"', '"relase"', "no release of the list"),
        ("{", "", "no release of the list"),
    ],
)
def test_a_file_that_is_refused_leaves_everything_as_it_was(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], old: str, new: str, message: str
) -> None:
    file = exported(tmp_path, keys[0])
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    done = command("import", file, "--trust", keys[1], "--to", tmp_path / "other")
    assert done.exit_code != 0
    assert message in str(done.exception)
    assert not (tmp_path / "other").exists()


def test_keys_that_are_not_trusted(tmp_path: Path, site: Path, keys: tuple[Path, Path]) -> None:
    file = exported(tmp_path, keys[0])
    _, stranger = key_pair(tmp_path / "stranger")
    nobody: list[str | Path] = []
    for trust in (nobody, ["--trust", stranger]):
        done = command("import", file, *trust, "--to", tmp_path / "other")
        assert isinstance(done.exception, BadSignature)
        assert "which is not trusted" in str(done.exception)
    # The second time the directory knows the key.
    assert command("import", file, "--trust", keys[1], "--to", tmp_path / "other").exit_code == 0
    assert command("import", file, "--to", tmp_path / "other").exit_code == 0


def test_an_imported_release_that_is_changed_afterwards_is_refused(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    command("import", exported(tmp_path, keys[0]), "--trust", keys[1], "--to", other)
    place = other / "release.json"
    place.write_text(place.read_text().replace("it burnt", "it is fine"))
    monkeypatch.setenv("VMK_HCL", str(other))
    with pytest.raises(BadSignature, match="was changed"):
        hcl.lookup(*E1000)


def test_what_cannot_be_written_leaves_no_key(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported(tmp_path, keys[0])
    other = tmp_path / "other"
    (other / "release.json").mkdir(parents=True)  # no file can take its place
    done = command("import", file, "--trust", keys[1], "--to", other)
    assert isinstance(done.exception, CannotWrite)
    assert list((other / "keys").iterdir()) == []
    (tmp_path / "file").write_text("")
    done = command("import", file, "--trust", keys[1], "--to", tmp_path / "file" / "below")
    assert isinstance(done.exception, CannotWrite)


def test_evidence_that_does_not_count_is_not_exported(
    tmp_path: Path, site: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "keys" / "mine.pem").unlink()
    made = release.read(exported(tmp_path, keys[0]), [signing.public_key(keys[1])])
    assert {signed.run.name for signed in made.runs} == SHIPPED
    # Unless the key is trusted by the command; then the release brings it along.
    registry = installed(Site(keys=(keys[1],)))
    again = release.of(registry, datetime.now(UTC))
    assert len(again.runs) == len(SHIPPED) + 1
    assert set(again.keys) - set(made.keys) == {keys[1].read_text()}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRelease, match="No such file"):
        release.read(tmp_path / "absent", [])
    assert os.environ["VMK_HCL"] == ""
    assert command("import", tmp_path / "absent").exit_code == 2  # click's own code; the program ends with 3
