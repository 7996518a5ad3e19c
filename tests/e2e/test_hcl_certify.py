"""``hcl certify``: what it writes down of QEMU's devices, good ones and ones with faults, counts as the list says.

Independent side: QEMU's devices and Debian's modules; QEMU's own flaws and its blkdebug driver, and a cable that is out,
make checks fail; openssl makes the keys and verifies the signature; sha256sum sums the module, and a driver's sources.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from hcl import evidence, signing
from hcl.console.certification import nic, storage, suite
from hcl.evidence import Evidence, Run
from hcl.reading import DRIVERS, read
from hcl.report import Profile
from hcl.verdict import Status, Verdict
from tests.e2e.engines import LINUX, NATIVE, Engine
from tests.vmkernel_core.console.vmk_command import environment
from vmkernel_core.console.demo.session import Session, Wanted
from vmkernel_core.console.interruption import Interruption
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.kernels import Kernel

if TYPE_CHECKING:
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.console.demo.one_device import OneDevice

#: Seconds after which a command hangs.
LIMIT = 300.0

NIC = (
    "driver", "link", "mac", "transmit", "receive", "sizes", "jumbo", "unicast", "multicast", "promiscuous",
    "statistics", "traffic", "reload", "leaks",
)  # fmt: skip
STORAGE = (
    "driver", "disk", "inquiry", "capacity", "read", "write", "flush", "queue", "load", "medium-error", "reset",
    "reload", "image", "leaks",
)  # fmt: skip


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public one."""
    directory = tmp_path_factory.mktemp("keys")
    private, public = directory / "private.key", directory / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """A Session in this process keeps the devices' errors out of the log; other tests look for them there."""
    logger = logging.getLogger("vmkernel_core.devices")
    level = logger.level
    yield
    logger.setLevel(level)


def hcl(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run ``hcl certify``."""
    return subprocess.run(
        [sys.executable, "-m", "hcl.console.main", "certify", *map(str, arguments)],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def certified(
    device: str, by: Engine, keys: tuple[Path, Path], directory: Path
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Certify a device with half a second of traffic; the command, and the evidence that it wrote."""
    chosen = ("--kernel", by.kernel.release) if by.kernel else ("--engine", "native")
    options = ("--seconds", "0.5", "--key", keys[0], "--output", directory)
    # A driver in Python is certified where no kernel is.
    without = {} if by.kernel else {"VMK_KERNELS": str(directory / "none")}
    command = hcl(device, *chosen, *options, **without)
    [file] = directory.glob("*.json")
    assert f"evidence: {file}" in command.stderr
    return command, file


def verdict(run: Run, directory: Path, public: Path) -> Verdict:
    """What the list, with the directory's evidence, says of the run's device by the run's engine, whose module claims
    it.
    """
    registry = read(DRIVERS, Evidence([directory], [public]))
    vendor, device, subvendor, subdevice, pci_class = (
        int(text, 16) for text in (run.vendor, run.device, run.subvendor, run.subdevice, run.pci_class)
    )
    return registry.lookup(
        vendor, device, subvendor, subdevice, pci_class,
        kernel=run.kernel or "6.1", claimants=lambda _: [run.module], engine=run.engine,
    )  # fmt: skip


@pytest.fixture
def by(request: pytest.FixtureRequest) -> Engine:
    """What drives the device."""
    return (
        Engine("native", None)
        if request.param == NATIVE
        else Engine("linux", request.getfixturevalue(request.param))
    )


#: Device, its ids, its module of Linux's, the folder of its driver in Python, and what is looked at.
DEVICES = (
    ("e1000", ("8086", "100e"), "e1000", "net/e1000", NIC),
    ("i82557b", ("8086", "1229"), "e100", "net/e100", NIC),
    ("pcnet", ("1022", "2000"), "pcnet32", "net/pcnet32", NIC),
    ("megasas", ("1000", "0060"), "megaraid_sas", "scsi/megaraid_sas", STORAGE),
    ("mptsas1068", ("1000", "0054"), "mptsas", "scsi/mptscsi_2xx", STORAGE),
    ("ich9-ahci", ("8086", "2922"), "ahci", "", STORAGE),
)


@pytest.mark.parametrize(
    ("device", "ids", "module", "folder", "checks", "by"),
    [
        pytest.param(*device, engine, id=f"{device[0]}-{engine}")
        for device in DEVICES
        for engine in (*LINUX, *([NATIVE] if device[3] else []))
    ],
    indirect=["by"],
)
def test_a_device_is_certified(
    device: str,
    ids: tuple[str, str],
    module: str,
    folder: str,
    checks: Sequence[str],
    by: Engine,
    keys: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    _, public = keys
    command, file = certified(device, by, keys, tmp_path)
    assert command.returncode == 0, command.stderr
    assert all(f"{check}: passed" in command.stderr for check in checks)
    run = evidence.read(file, [signing.public_key(public)])
    assert run.passed
    assert tuple(check.name for check in run.checks) == checks
    assert ((run.vendor, run.device), run.engine) == (ids, by.name)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    assert run.counterpart == f"QEMU {version.stdout.split()[3]}: {device}"
    if by.kernel:
        assert (run.kernel, run.vmklinux) == (by.kernel.release, msgspec.UNSET)
        summing = f"sha256sum {by.kernel.find_module(module)}"
    else:
        module = folder.rpartition("/")[2]
        assert (run.kernel, run.vmklinux) == ("", metadata.version("vmklinux"))
        summing = f"cd {DRIVERS / folder} && LC_ALL=C sha256sum *.py | sha256sum"
    summed = subprocess.run(summing, shell=True, capture_output=True, text=True, check=True)
    assert (run.module, run.module_sha256) == (module, summed.stdout.split()[0])
    found = verdict(run, tmp_path, public)
    assert (found.status, found.module) == (Status.CERTIFIED, module)
    assert found.proof is not None
    assert found.proof.run == run.name == file.stem
    signature = json.loads(file.read_text())["signature"]["value"]
    (tmp_path / "message").write_bytes(signing.canonical(run))
    (tmp_path / "signature").write_bytes(base64.b64decode(signature))
    openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", tmp_path / "message",
        "-sigfile", tmp_path / "signature",
    )  # fmt: skip


def test_a_card_that_damages_frames_fails(kernel61: Kernel, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """QEMU's 82558 and later put more behind some frames of Linux's driver, which sends them so; the evidence says so,
    and counts against the card with that. The driver in Python sends them otherwise, and is certified.
    """
    command, file = certified("i82558b", Engine("linux", kernel61), keys, tmp_path)
    assert command.returncode == 1, command.stderr
    run = evidence.read(file, [signing.public_key(keys[1])])
    failed = {check.name: check.detail for check in run.checks if not check.passed}
    assert "transmit" in failed
    assert f"transmit: FAILED: {failed['transmit']}" in command.stderr
    assert "not as they were sent" in failed["transmit"]
    assert {check.name for check in run.checks if check.passed} >= {
        "driver",
        "link",
        "mac",
        "receive",
        "leaks",
    }
    found = verdict(run, tmp_path, keys[1])
    assert found.status is Status.UNSUPPORTED
    assert "FAILED" in str(found.evidence)
    (tmp_path / "python").mkdir()
    command, other = certified("i82558b", Engine("native", None), keys, tmp_path / "python")
    assert command.returncode == 0, command.stderr
    shutil.copy(other, tmp_path)
    passed = evidence.read(other, [signing.public_key(keys[1])])
    assert verdict(passed, tmp_path, keys[1]).status is Status.CERTIFIED
    assert verdict(run, tmp_path, keys[1]).status is Status.UNSUPPORTED


def _wanted(device: str, by: Engine) -> Wanted:
    release = by.kernel.release if by.kernel else None
    return Wanted(device, "qemu", release, (), Profile.DEFAULT, None, False, gate=False, engine=by.name)


by_engine = pytest.mark.parametrize("by", ["kernel61", NATIVE], indirect=True)


@by_engine
def test_a_disk_that_fails_otherwise_than_it_must(by: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad block can be read, and cannot be written: what is read of it is right, and yet a check fails."""
    monkeypatch.setattr(storage, "failing", partial(storage.failing, kind="write"))
    with Interruption() as ctrl_c:
        run = storage.run(_wanted("megasas", by), "scsi-hd", 0.0, ctrl_c)
    assert {check.name: check.detail for check in run.checks if not check.passed}.keys() == {"medium-error"}
    assert (run.passed, run.engine) == (False, by.name)


@by_engine
def test_without_a_link_nothing_else_is_tried(by: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def pulled(session: Session, machine: OneDevice) -> Adapter:
        assert isinstance(machine.platform, QemuPlatform)
        machine.platform.set_link(machine.address, False)
        return suite.adapter_of(session, machine)

    monkeypatch.setattr(nic, "LINK_LIMIT", 3.0)
    monkeypatch.setattr(nic, "adapter_of", pulled)
    with Interruption() as ctrl_c:
        run = nic.run(_wanted("pcnet", by), 0.0, ctrl_c)
    details = {check.name: check.detail for check in run.checks if not check.passed}
    assert tuple(details) == NIC[1:-1]
    assert "did not come up within 3 s" in details["link"]
    assert {details[name] for name in NIC[2:-1]} == {"not tried, since the check 'link' failed"}


def test_a_dry_run_writes_nothing(kernel61: Kernel, tmp_path: Path) -> None:
    command = hcl("pcnet", "--kernel", "6.1", "--seconds", "0", "--dry-run", "--json", "--output", tmp_path)
    assert command.returncode == 0, command.stderr
    run = json.loads(command.stdout)
    assert [check["name"] for check in run["checks"]] == list(NIC)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("e1000",), 3, "--key FILE names a private key"),
        (("e1000", "--key", "/nonexistent/key"), 3, "cannot read the key"),
        (("e1000", "--dry-run", "--kernel", "4.4"), 4, "4.4"),
        (("no-such-card", "--dry-run"), 3, "no-such-card"),
        (("sdhci-pci", "--dry-run"), 3, "neither a network device nor a storage controller"),
        (("rtl8139", "--dry-run", "--engine", "native"), 4, "no driver in Python knows 0000:00:05.0"),
        (("e1000", "--dry-run", "--engine", "native", "--kernel", "6.1"), 3, "leave --kernel out"),
    ],
)
def test_what_cannot_be_certified(arguments: Sequence[str], code: int, words: str) -> None:
    command = hcl(*arguments)
    assert command.returncode == code, command.stderr
    assert words in command.stderr
    assert len(command.stderr.splitlines()) == 1


def test_without_qemu(tmp_path: Path) -> None:
    command = hcl("e1000", "--dry-run", PATH=str(tmp_path))
    assert (command.returncode, len(command.stderr.splitlines())) == (4, 1)
    assert "apt-get install qemu-system-x86" in command.stderr
