"""Fetching from a small archive made here, and what goes wrong on the way.

Independent side: Debian's apt and dpkg-deb read the archive, build, download and check the packages.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.vmklinux.kernels.kernel_trees import plant
from vmklinux.kernels import DiskFull, FetchError, HashMismatch, NoKernel, NoNetwork, fetch, kernels
from vmklinux.kernels.apt import Apt, check_sha256, failure, limited
from vmklinux.kernels.deb import unpack
from vmklinux.kernels.mirror import SUITES, private_apt, source_lines, suites_for

VARIANTS = (
    "6.1.0-99-amd64-dbg",
    "6.1.0-99-amd64-unsigned",
    "6.1.0-99-rt-amd64",
    "6.1.0-99-cloud-amd64",
    "amd64",
)

# Nothing of the host's apt takes part; the archive is not signed, so apt is told to put up with that.
APT_CONFIG = """\
Dir::Etc::Parts "/dev/null";
Dir::Etc::Main "/dev/null";
Dir::Etc::SourceList "{path}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{path}/lists";
Dir::Cache "{path}/cache";
APT::Architecture "amd64";
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "true";
Acquire::AllowInsecureRepositories "true";
Acquire::Languages "none";
Acquire::http::Proxy "DIRECT";
Acquire::Retries::Delay "false";
"""


@dataclass(frozen=True)
class Archive:
    """A Debian archive on disk, and an apt whose only source is its suite ``bookworm``."""

    path: Path

    @property
    def pool(self) -> Path:
        return self.path / "debian/pool"

    def add(self, release: str, suite: str = "bookworm", sha256: str = "") -> Path:
        """Build the kernel package of a release with dpkg-deb and list it in a suite."""
        tree = self.path / "build" / release
        plant(tree, release)
        (tree / "usr/share/doc/linux").mkdir(parents=True)
        (tree / "usr/share/doc/linux/copyright").write_text("free")
        (tree / "boot" / f"System.map-{release}").write_text("not needed")
        (tree / "DEBIAN").mkdir()
        control = (
            f"Package: linux-image-{release}\nVersion: 1\nArchitecture: amd64\nInstalled-Size: 8\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: a kernel\n"
        )
        (tree / "DEBIAN/control").write_text(control)
        package = self.pool / f"linux-image-{release}_1_amd64.deb"
        build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)]
        subprocess.run(build, check=True, capture_output=True, timeout=60)
        data = package.read_bytes()
        index = self.path / "debian/dists" / suite / "main/binary-amd64/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        with index.open("a") as file:
            file.write(
                f"{control}Filename: pool/{package.name}\nSize: {len(data)}\n"
                f"SHA256: {sha256 or hashlib.sha256(data).hexdigest()}\n\n"
            )
        listed = index.read_bytes()
        (self.path / "debian/dists" / suite / "Release").write_text(
            f"Origin: Debian\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
            f"SHA256:\n {hashlib.sha256(listed).hexdigest()} {len(listed)} main/binary-amd64/Packages\n"
        )
        return package

    def update(self) -> None:
        """Have the host's apt fetch its package lists."""
        subprocess.run(["apt-get", "update"], check=True, capture_output=True, timeout=60)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    for name in ("lists/partial", "cache/archives/partial", "debian/pool", "debian/dists"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sources.list").write_text(f"deb [arch=amd64] file:{tmp_path}/debian bookworm main\n")
    (tmp_path / "apt.conf").write_text(APT_CONFIG.format(path=tmp_path))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("VMK_KERNELS", str(tmp_path / "kernels"))
    return Archive(tmp_path)


def left_in_cache(archive: Archive) -> list[str]:
    return sorted(os.listdir(archive.path / "kernels"))


def test_the_newest_match_of_the_hosts_own_sources(archive: Archive) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.1+deb12-amd64", *VARIANTS):
        archive.add(release)
    archive.update()
    steps: dict[str, float] = {}
    kernel = fetch("6.1", steps.__setitem__)
    assert (kernel.release, kernel.usable) == ("6.1.0-56-amd64", True)
    assert steps == {
        "downloading 6.1.0-56-amd64": 1.0,
        "unpacking 6.1.0-56-amd64": pytest.approx(0.5, abs=0.5),
    }
    assert left_in_cache(archive) == ["6.1.0-56-amd64"]
    files = sorted(str(path.relative_to(kernel.path)) for path in kernel.path.rglob("*") if path.is_file())
    assert files == [
        "boot/vmlinuz-6.1.0-56-amd64",
        "lib/modules/6.1.0-56-amd64/kernel/drivers/net/ethernet/intel/e1000/e1000.ko",
        "lib/modules/6.1.0-56-amd64/kernel/drivers/scsi/scsi_transport_spi.ko",
        "lib/modules/6.1.0-56-amd64/modules.builtin",
    ]


def test_without_a_wish_the_default_series(archive: Archive) -> None:
    archive.add("6.12.1+deb12-amd64")
    archive.add("6.1.0-9-amd64")
    archive.update()
    assert fetch().release == "6.1.0-9-amd64"


def test_a_cached_kernel_is_left_alone(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(archive.path / "kernels/6.1.0-9-amd64", "6.1.0-9-amd64")
    monkeypatch.setenv("PATH", "")  # neither apt nor dpkg can be asked
    steps: list[str] = []
    assert fetch("6.1", lambda step, _: steps.append(step)).release == "6.1.0-9-amd64"
    assert steps == ["6.1.0-9-amd64 is in the cache already"]


def test_an_unusable_cached_kernel_is_replaced(archive: Archive) -> None:
    archive.add("6.1.0-9-amd64")
    archive.update()
    (archive.path / "kernels/6.1.0-9-amd64/boot").mkdir(parents=True)
    assert fetch("6.1").usable


def test_leftovers_of_a_killed_fetch_are_removed(archive: Archive) -> None:
    archive.add("6.1.0-9-amd64")
    archive.update()
    (archive.path / "kernels/.fetch-dead/apt").mkdir(parents=True)
    fetch("6.1")
    assert left_in_cache(archive) == ["6.1.0-9-amd64"]


def test_another_suite_of_the_same_mirror(archive: Archive) -> None:
    archive.add("6.1.0-9-amd64")
    archive.update()
    archive.add("6.12.1+deb13-amd64", "trixie")
    lists = sorted(os.listdir(archive.path / "lists"))
    assert fetch("6.12").release == "6.12.1+deb13-amd64"
    assert sorted(os.listdir(archive.path / "lists")) == lists
    assert left_in_cache(archive) == ["6.12.1+deb13-amd64"]


def test_a_host_that_never_updated_its_lists(archive: Archive) -> None:
    archive.add("6.1.0-9-amd64")
    assert fetch("6.1").release == "6.1.0-9-amd64"


@pytest.fixture
def mirror(archive: Archive) -> Iterator[Archive]:
    """The archive behind a web server, as mirrors are."""
    handler = partial(QuietHandler, directory=str(archive.path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/debian"
        (archive.path / "sources.list").write_text(f"deb [arch=amd64] {address} bookworm main\n")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield archive
        server.shutdown()
        thread.join(30)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_lists_that_are_older_than_the_mirror(mirror: Archive) -> None:
    archive = mirror
    old = archive.add("6.1.0-9-amd64")
    archive.update()
    index = archive.path / "debian/dists/bookworm/main/binary-amd64/Packages"
    old.unlink()
    index.unlink()
    archive.add("6.1.0-10-amd64")
    steps: list[str] = []
    assert fetch("6.1", lambda step, _: steps.append(step)).release == "6.1.0-10-amd64"
    assert "apt's package lists are old: asking the mirror" in steps


def test_what_is_nowhere_lists_what_there_is(archive: Archive) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.1+deb12-amd64"):
        archive.add(release)
    archive.update()
    archive.add("6.17.4+deb13-amd64", "trixie-backports")
    with pytest.raises(
        NoKernel, match=r"no Debian kernel begins with 6\.11 .*trixie-backports, sid"
    ) as caught:
        fetch("6.11")
    assert caught.value.remedy == (
        "there are 6.17.4+deb13-amd64, 6.12.1+deb12-amd64, 6.1.0-56-amd64: "
        "run: vmk kernel fetch 6.17.4+deb13-amd64"
    )
    assert left_in_cache(archive) == []


def test_a_package_that_is_not_as_listed(archive: Archive) -> None:
    package = archive.add("6.1.0-9-amd64")
    archive.update()
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.write_bytes(data)
    with pytest.raises(HashMismatch, match="not what the signed package list describes"):
        fetch("6.1")
    assert left_in_cache(archive) == []


def test_our_own_look_at_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "linux-image.deb"
    path.write_bytes(b"content")
    said = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True, timeout=60)
    check_sha256(path, said.stdout.split()[0])
    with pytest.raises(HashMismatch, match=r"linux-image\.deb has SHA256 ed7002b4.*says 0000"):
        check_sha256(path, "0" * 64)


def test_a_package_with_no_usable_kernel(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.add("6.1.0-9-amd64")
    archive.update()
    monkeypatch.setattr("vmklinux.kernels.deb._NEEDED", re.compile(r"lib/modules/.+"))
    with pytest.raises(FetchError, match="no usable kernel: there is no"):
        fetch("6.1")
    assert left_in_cache(archive) == []


def test_no_network(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 (discard) of this machine: nothing listens there, and no name has to be resolved.
    (archive.path / "sources.list").write_text("deb [arch=amd64] http://127.0.0.1:9/debian bookworm main\n")
    with pytest.raises(NoNetwork, match="cannot reach the mirror"):
        fetch("6.1")
    assert left_in_cache(archive) == []


def test_no_debian_mirror(archive: Archive) -> None:
    (archive.path / "sources.list").write_text(f"deb file:{archive.path}/debian noble main\n")
    with pytest.raises(FetchError, match="name no mirror of Debian's"):
        fetch("6.1")


def test_a_tool_that_is_missing(archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = archive.add("6.1.0-9-amd64")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="apt-cache is not on this machine; install the package apt"):
        fetch("6.1")
    with pytest.raises(FetchError, match="dpkg-deb is not on this machine; install the package dpkg"):
        unpack(package, tmp_path / "tree", lambda _: None)


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.ENOSPC, DiskFull, "the disk is full .*/kernels.*free 1 GB there"),
        (errno.EDQUOT, DiskFull, "the disk is full .*/kernels.*free 1 GB there"),
        (errno.EROFS, FetchError, "cannot be used: Read-only file system .*VMK_KERNELS"),
    ],
)
def test_a_disk_that_will_not_take_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], says: str
) -> None:
    archive.add("6.1.0-9-amd64")
    archive.update()

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("vmklinux.kernels.deb.shutil.copyfileobj", refuse)
    with pytest.raises(error, match=says):
        fetch("6.1")
    assert left_in_cache(archive) == []


def test_a_cache_that_cannot_be_made(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    (archive.path / "file").write_text("")
    monkeypatch.setenv("VMK_KERNELS", str(archive.path / "file/kernels"))
    with pytest.raises(FetchError, match=r"cannot be used: Not a directory .*file/kernels"):
        fetch("6.1")


def test_two_fetches_share_one_download(archive: Archive) -> None:
    cache = archive.path / "kernels"
    cache.mkdir()
    other = os.open(cache, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    waiting = threading.Event()
    steps: list[str] = []

    def told(step: str, _done: float) -> None:
        steps.append(step)
        waiting.set()

    releases: list[str] = []
    thread = threading.Thread(target=lambda: releases.append(fetch("6.1", told).release))
    thread.start()
    assert waiting.wait(30)
    plant(cache / "6.1.0-9-amd64", "6.1.0-9-amd64")
    os.close(other)
    thread.join(30)
    assert releases == ["6.1.0-9-amd64"]
    assert steps == ["waiting for another fetch into this cache", "6.1.0-9-amd64 is in the cache already"]


def test_a_damaged_package(tmp_path: Path, archive: Archive) -> None:
    package = archive.add("6.1.0-9-amd64")
    package.write_bytes(package.read_bytes()[:-200])
    with pytest.raises(FetchError, match="is damaged"):
        unpack(package, tmp_path / "tree", lambda _: None)
    package.write_bytes(b"not a package")
    with pytest.raises(FetchError, match="is damaged"):
        unpack(package, tmp_path / "tree", lambda _: None)


def test_a_process_without_end_is_ended() -> None:
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as process,
        pytest.raises(FetchError, match=r"no end within 0 s \(sleep 60\)"),
        limited(process, 0.1),
    ):
        pass
    assert process.returncode == -9


def test_a_failing_block_ends_the_process() -> None:
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as process,
        pytest.raises(KeyboardInterrupt),
        limited(process, 60),
    ):
        raise KeyboardInterrupt
    assert process.returncode == -9


@pytest.mark.parametrize(
    ("line", "error", "remedy"),
    [
        ("E: Write error - write (28: No space left on device)", DiskFull, "free 1 GB"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", DiskFull, "free 1 GB"),
        ("   Hash Sum mismatch", HashMismatch, "apt-get update"),
        ("Temporary failure resolving 'mirror.example.org'", NoNetwork, "network"),
        ("W: GPG error: http://x bookworm InRelease: NO_PUBKEY 0123", FetchError, "debian-archive-keyring"),
        ("E: Could not open lock file - open (13: Permission denied)", FetchError, "permissions"),
    ],
)
def test_what_apt_says_becomes_an_error(line: str, error: type[FetchError], remedy: str) -> None:
    found = failure(f"W: something else\n{line}\n")
    assert type(found) is error
    assert line.strip() in found.where
    assert remedy in found.remedy


def test_what_apt_says_in_other_words_is_passed_on() -> None:
    assert failure("E: Something nobody has seen before") is None
    result = Apt().run("apt-get", "no-such-operation", limit=60)
    assert "Invalid operation no-such-operation" in str(result.error("apt-get no-such-operation"))


@pytest.mark.parametrize(
    ("release", "names"),
    [
        ("6.1", ["bookworm", "bookworm-security"]),
        ("6.1.0-56-amd64", ["bookworm", "bookworm-security"]),
        ("6.12", ["bookworm-security", "bookworm-backports", "trixie", "trixie-security"]),
        ("5.10", ["bullseye-security"]),
        ("6.17", ["trixie-backports", "sid"]),
        ("6", [suite.name for suite in SUITES if any(s.startswith("6.") for s in suite.series)]),
    ],
)
def test_which_suites_may_have_a_release(release: str, names: list[str]) -> None:
    assert [suite.name for suite in suites_for(release)] == names


def test_both_ways_of_writing_sources_are_read(archive: Archive) -> None:
    parts = archive.path / "parts"
    parts.mkdir()
    (parts / "debian.sources").write_text(
        "Types: deb\nURIs: http://mirror.example.org/debian-security/\n"
        "Suites: bookworm-security\nComponents: main\n"
    )
    with (archive.path / "apt.conf").open("a") as file:
        file.write(f'Dir::Etc::SourceParts "{parts}";\n')
    assert sorted(Apt().suites()) == [
        (f"file:{archive.path}/debian", "bookworm"),
        ("http://mirror.example.org/debian-security", "bookworm-security"),
    ]


def test_the_private_sources(tmp_path: Path) -> None:
    sources = [
        ("http://mirror.example.org/debian", "bookworm"),
        ("http://mirror.example.org/debian", "bookworm-updates"),
        ("http://mirror.example.org/debian-security", "bookworm-security"),
        ("http://other.example.org/apt", "nodistro"),
    ]
    assert source_lines(sources, suites_for("6.1"), tmp_path / "keyring.gpg") == [
        f"deb [arch=amd64 signed-by={tmp_path}/keyring.gpg] http://mirror.example.org/debian bookworm main",
        f"deb [arch=amd64 signed-by={tmp_path}/keyring.gpg] "
        "http://mirror.example.org/debian-security bookworm-security main",
    ]
    assert source_lines(sources[3:], suites_for("6.1"), None) == []


def test_the_private_configuration_keeps_apt_inside(archive: Archive, tmp_path: Path) -> None:
    directory, keyrings = tmp_path / "private", tmp_path / "keyrings"
    directory.mkdir()
    keyrings.mkdir()
    (keyrings / "debian-archive-keyring.pgp").write_bytes(b"")
    apt = private_apt(directory, Apt(), suites_for("6.1"), keyrings)
    assert (directory / "sources.list").read_text() == (
        f"deb [arch=amd64 signed-by={keyrings}/debian-archive-keyring.pgp] "
        f"file:{archive.path}/debian bookworm main\n"
    )
    places = {
        "LISTS": "Dir::State::lists/d",
        "ARCHIVES": "Dir::Cache::archives/d",
        "PARTS": "Dir::Etc::sourceparts",
    }
    asked = [word for pair in places.items() for word in pair]
    said = subprocess.run(
        ["apt-config", "-c", str(apt.config), "shell", *asked],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout.splitlines() == [
        f"LISTS='{directory}/lists/'",
        f"ARCHIVES='{directory}/archives/'",
        "PARTS='/dev/null'",
    ]


def test_hooks_of_the_hosts_update_do_not_run(archive: Archive) -> None:
    archive.add("6.1.0-9-amd64")
    with (archive.path / "apt.conf").open("a") as file:
        for hook in (
            "APT::Update::Pre-Invoke",
            "APT::Update::Post-Invoke",
            "APT::Update::Post-Invoke-Success",
        ):
            file.write(f'{hook} {{ "touch {archive.path}/{hook.rpartition(":")[2]}"; }};\n')
    assert fetch("6.1").usable
    assert not list(archive.path.glob("P*-Invoke*"))
    assert [kernel.release for kernel in kernels(archive.path / "no-host")] == ["6.1.0-9-amd64"]
