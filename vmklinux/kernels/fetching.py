"""Brings a Debian kernel into the kernel cache."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vmklinux.kernels.apt import Apt, Fraction
from vmklinux.kernels.cache import (
    DEFAULT_SERIES,
    Kernel,
    cache_dir,
    cached_kernels,
    kernel_at,
    newest_first,
)
from vmklinux.kernels.deb import unpack
from vmklinux.kernels.errors import DiskFull, FetchError, NoKernel, StaleLists
from vmklinux.kernels.mirror import private_apt, suites_for
from vmklinux.kernels.releases import age_key, begins, series

Progress = Callable[[str, float], None]
"""Told which step is under way, in words, and how much of it is done, from 0 to 1."""

LOCK_LIMIT = 3600
"""Seconds to wait for another fetch into the same cache."""

_WORK_PREFIX = ".fetch-"


def _silent(_step: str, _done: float) -> None:
    """Nobody wants to know."""


def fetch(release: str | None = None, progress: Progress = _silent) -> Kernel:
    """Get the newest Debian kernel whose release begins with ``release`` (None: DEFAULT_SERIES).

    A usable one that is there already is returned as it is, without asking the network. The host's own
    apt sources are asked first, then Debian's suites at the host's mirror. Raises NoKernel when no suite
    has it, and FetchError (NoNetwork, HashMismatch, DiskFull …) on trouble; the cache then is as it was.
    """
    wanted = DEFAULT_SERIES if release is None else release
    cache = cache_dir()
    if found := _cached(wanted, progress):
        return found
    with _told_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache, progress):
            if found := _cached(wanted, progress):  # another process has just fetched it
                return found
            for leftover in cache.glob(f"{_WORK_PREFIX}*"):
                shutil.rmtree(leftover)
            with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=cache) as work:
                return _fetch(wanted, cache, Path(work), progress)


def _cached(wanted: str, progress: Progress) -> Kernel | None:
    usable = [kernel for kernel in cached_kernels() if kernel.usable and begins(kernel.release, wanted)]
    if not usable:
        return None
    newest = newest_first(usable)[0]
    progress(f"{newest.release} is in the cache already", 1.0)
    return newest


def _fetch(wanted: str, cache: Path, work: Path, progress: Progress) -> Kernel:
    release, package = _download(wanted, work, progress)
    tree = work / release
    unpack(package, tree, _step(progress, f"unpacking {release}"))
    package.unlink()
    kernel = kernel_at(tree, release)
    if not kernel.usable:
        raise FetchError(f"Debian's package of {release} has no usable kernel: {kernel.reason}")
    target = cache / release
    if target.exists():  # an unusable one, or it would have been found
        shutil.rmtree(target)
    tree.chmod(0o755)
    tree.rename(target)
    return kernel_at(target, release)


def _download(wanted: str, work: Path, progress: Progress) -> tuple[str, Path]:
    """Download the newest wanted kernel's package: its release, and the file."""
    host = Apt()
    known = host.releases()
    if newest := _newest(known, wanted):
        try:
            return newest, host.download(newest, work, _step(progress, f"downloading {newest}"))
        except StaleLists:
            progress("apt's package lists are old: asking the mirror", 0.0)
    directory = work / "apt"
    directory.mkdir()
    private = private_apt(directory, host, suites_for(wanted))
    trouble = private.update(_step(progress, "updating the package lists"))
    listed = private.releases()
    if trouble and not listed:
        raise trouble
    if newest := _newest(listed, wanted):
        return newest, private.download(newest, work, _step(progress, f"downloading {newest}"))
    raise _not_found(wanted, [*known, *listed])


def _newest(releases: list[str], wanted: str) -> str | None:
    return max((release for release in releases if begins(release, wanted)), key=age_key, default=None)


def _not_found(wanted: str, available: list[str]) -> NoKernel:
    newest_of_series = {series(release): release for release in sorted(available, key=age_key)}
    shown = list(reversed(newest_of_series.values()))
    return NoKernel(
        f"no Debian kernel begins with {wanted}",
        where=f"apt's sources; {', '.join(suite.name for suite in suites_for(wanted))}",
        remedy=f"there are {', '.join(shown)}: run: vmk kernel fetch {shlex.quote(shown[0])}"
        if shown
        else "run: apt-get update, then try again",
    )


def _step(progress: Progress, step: str) -> Fraction:
    progress(step, 0.0)
    return lambda done: progress(step, done)


@contextmanager
def _lock(cache: Path, progress: Progress) -> Iterator[None]:
    """Hold the cache for this process alone; two fetches would load the same 100 MB twice."""
    handle = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another fetch into this cache", 0.0)
            # flock(1) waits with a limit, and the lock it takes belongs to the handle that both share.
            waited = subprocess.run(
                ["flock", "--exclusive", "--wait", str(LOCK_LIMIT), str(handle)],
                pass_fds=[handle],
                check=False,
            )
            if waited.returncode:
                raise FetchError(
                    f"another fetch has held the cache for {LOCK_LIMIT} s", where=str(cache), remedy="end it"
                ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _told_errors(cache: Path) -> Iterator[None]:
    """Turn the operating system's errors about the cache into errors that name a remedy."""
    try:
        yield
    except DiskFull as error:  # seen by apt
        raise _disk_full(cache) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(cache) from error
        raise FetchError(
            f"the kernel cache cannot be used: {error.strerror or error}",
            where=str(error.filename or cache),
            remedy="set VMK_KERNELS to another directory",
        ) from error


def _disk_full(cache: Path) -> DiskFull:
    return DiskFull(
        "the disk is full",
        where=str(cache),
        remedy="free 1 GB there (by removing another kernel's directory, for instance), "
        "or set VMK_KERNELS to a directory with more room",
    )
