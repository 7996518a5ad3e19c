"""Runs apt's own programs: which kernels it knows, and downloading one, without installing anything."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vmklinux.kernels.errors import DiskFull, FetchError, HashMismatch, NoNetwork, StaleLists

Fraction = Callable[[float], None]
"""Told how much of the work is done, from 0 to 1."""

QUERY_LIMIT = 120.0
"""Seconds that a question to apt's package lists may take."""
TRANSFER_LIMIT = 3600.0
"""Seconds that a download may take; apt itself gives up sooner on a mirror that goes silent."""

# The sandbox user may not enter root's cache directory; without root, apt has no sandbox to leave.
_OPTIONS = ("-q", "-o=APT::Sandbox::User=root", "-o=Acquire::Retries=2")

_IMAGE = re.compile(r"linux-image-(?P<release>[0-9]\S*-amd64)")
_VARIANTS = frozenset({"cloud", "rt"})

_PERCENT = re.compile(r"dlstatus:\d+:(?P<percent>[0-9.]+):")
_URI_LINE = re.compile(r"'\S+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class _Failure:
    """What apt says (in English), and what it means to a person."""

    says: re.Pattern[str]
    error: type[FetchError]
    what: str
    remedy: str


# The first that matches counts: a full disk or a dead network also shows as what follows from it.
_FAILURES = (
    _Failure(
        re.compile(r"No space left on device|Disk quota exceeded|enough free space"),
        DiskFull,
        "the disk is full",
        "free 1 GB",
    ),
    _Failure(
        re.compile(r"Hash Sum mismatch|unexpected size"),
        HashMismatch,
        "the download is not what the signed package list describes",
        "run: apt-get update, then try again; if it stays, try another mirror",
    ),
    _Failure(
        re.compile(r"\b404\b|File not found"),
        StaleLists,
        "apt's package lists name a file that the mirror no longer has",
        "run: apt-get update, then try again",
    ),
    _Failure(
        re.compile(
            r"Could not resolve|failure resolving|Unable to connect|Could not connect|Cannot initiate"
            r"|Connection (failed|timed out|refused)|Network is unreachable"
        ),
        NoNetwork,
        "apt cannot reach the mirror",
        "check the network and apt's proxy setting (Acquire::http::Proxy), then try again",
    ),
    _Failure(
        re.compile(r"NO_PUBKEY|is not signed|GPG error|cannot be authenticated|could not be authenticated"),
        FetchError,
        "apt cannot verify the archive's signature",
        "run: apt-get install debian-archive-keyring",
    ),
    _Failure(
        re.compile(r"Permission denied"),
        FetchError,
        "apt may not read or write its files",
        "check the permissions of the place that is named",
    ),
)


def failure(output: str) -> FetchError | None:
    """The error that apt's error output amounts to; None when it says nothing that is known here."""
    for known in _FAILURES:
        for line in output.splitlines():
            if known.says.search(line):
                return known.error(known.what, where=line.strip(), remedy=known.remedy)
    return None


def tool_missing(tool: str, package: str) -> FetchError:
    """The error for a program that this machine has not."""
    return FetchError(
        f"{tool} is not on this machine",
        remedy=f"install the package {package}; kernels can be fetched on Debian and its relatives only",
    )


@contextmanager
def limited(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Wait for the process after the block; kill its session when ``seconds`` are over or the block fails.

    The process must lead a session of its own. Raises FetchError when the time was over.
    """
    over = threading.Event()

    def kill() -> None:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)

    def give_up() -> None:
        over.set()
        kill()

    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        yield
        process.wait()
    except BaseException:
        kill()
        if not over.is_set():
            raise
    finally:
        timer.cancel()
        process.wait()
    if over.is_set():
        raise FetchError(
            f"no end within {seconds:.0f} s",
            where=shlex.join(process.args) if isinstance(process.args, list) else str(process.args),
            remedy="check the mirror and the network, then try again",
        )


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended and what it said."""

    status: int
    output: str
    errors: str

    def error(self, command: str) -> FetchError:
        """The error that this result is."""
        said = self.errors.strip() or f"it ended with status {self.status}"
        return failure(self.errors) or FetchError(
            f"{command} failed: {' '.join(said.split())}", remedy="see what it says, then try again"
        )


def _ignore(_: float) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Apt:
    """Apt with a configuration: the host's own, or the host's with the file ``config`` on top of it."""

    config: Path | None = None

    def run(
        self, program: str, *arguments: str, limit: float, cwd: Path | None = None, told: Fraction = _ignore
    ) -> Result:
        """Run ``apt-get`` or ``apt-cache``, telling ``told`` of its downloads; raises FetchError."""
        if shutil.which(program) is None:
            raise tool_missing(program, "apt")
        config = () if self.config is None else (f"-c={self.config}",)
        status_read, status_write = os.pipe()
        with (
            os.fdopen(status_read, encoding="utf-8", errors="replace") as status,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            try:
                process = subprocess.Popen(
                    [program, *_OPTIONS, f"-o=APT::Status-Fd={status_write}", *config, *arguments],
                    cwd=cwd,
                    env=os.environ | {"LC_ALL": "C.UTF-8"},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    pass_fds=[status_write],
                    start_new_session=True,
                )
            finally:
                os.close(status_write)
            with limited(process, limit):
                for line in status:
                    if match := _PERCENT.match(line):
                        told(float(match["percent"]) / 100)
            output.seek(0)
            errors.seek(0)
            return Result(process.returncode, output.read().decode(), errors.read().decode(errors="replace"))

    def releases(self) -> list[str]:
        """The kernel releases in the package lists, in no order; none of rt, cloud, debug, unsigned."""
        # What is merely installed cannot be downloaded: dpkg's status stays out of it.
        result = self.run(
            "apt-cache", "-o=Dir::State::status=/dev/null", "pkgnames", "linux-image-", limit=QUERY_LIMIT
        )
        if result.status:
            raise result.error("apt-cache pkgnames")
        names = (_IMAGE.fullmatch(name) for name in result.output.split())
        return [
            match["release"] for match in names if match and not _VARIANTS & {*match["release"].split("-")}
        ]

    def suites(self) -> list[tuple[str, str]]:
        """Each source of this configuration as (address, suite), in its order; needs no package list."""
        result = self.run("apt-get", "update", "--print-uris", limit=QUERY_LIMIT)
        if result.status:
            raise result.error("apt-get update --print-uris")
        return re.findall(r"^'(\S+?)/?/dists/(\S+)/InRelease'", result.output, re.MULTILINE)

    def update(self, told: Fraction) -> FetchError | None:
        """Download this configuration's package lists; what failed is returned, for others may have come."""
        result = self.run("apt-get", "update", limit=TRANSFER_LIMIT, told=told)
        return result.error("apt-get update") if result.status else failure(result.errors)

    def download(self, release: str, directory: Path, told: Fraction) -> Path:
        """Download the kernel's package into ``directory`` and check it; raises FetchError."""
        package = f"linux-image-{release}"
        listed = self.run("apt-get", "download", "--print-uris", package, limit=QUERY_LIMIT)
        match = _URI_LINE.search(listed.output)
        if listed.status or match is None:
            raise listed.error(f"apt-get download --print-uris {package}")
        result = self.run("apt-get", "download", package, limit=TRANSFER_LIMIT, cwd=directory, told=told)
        if result.status:
            raise result.error(f"apt-get download {package}")
        path = directory / match["file"]
        check_sha256(path, match["sha256"])
        return path


def check_sha256(path: Path, expected: str) -> None:
    """Raise HashMismatch unless the file has this SHA-256 (in hexadecimal digits)."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise HashMismatch(
            f"{path.name} has SHA256 {found}, and apt's package list says {expected}",
            where=str(path.parent),
            remedy="run: apt-get update, then try again; if it stays, try another mirror",
        )
