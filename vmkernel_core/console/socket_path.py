"""The socket of a running vmkernel: where it is, and how a starting one makes it its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmkernel_core.errors import UsageError, VmkError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The environment variable that names the socket.
VARIABLE: Final = "VMK_SOCKET"
#: Bytes of sockaddr_un.sun_path, its NUL among them (unix(7)).
_LONGEST_PATH: Final = 108
_BACKLOG: Final = 64


class NoVMkernel(VmkError):
    """No vmkernel answers at the socket."""

    exit_code = 4


def default_path() -> Path:
    """``$VMK_SOCKET``, else ``vmk/vmk.sock`` in ``$XDG_RUNTIME_DIR``, else in ``/run``."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / "vmk" / "vmk.sock"


def dial(path: Path, timeout: float) -> socket.socket:
    """Connect to whoever listens there; NoVMkernel when nobody does. ``timeout`` is the socket's from then on."""
    _check_length(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise NoVMkernel(
            f"no vmkernel answers at {path}: {error.strerror or error}",
            remedy="start one with: vmk boot -c machine.toml; or let the command boot one: --config machine.toml",
        ) from error
    return connection


@contextlib.contextmanager
def claim(path: Path) -> Iterator[socket.socket]:
    """Listen there, mode 0600; a socket at which nobody answers is replaced, at the end ours is removed.

    Its directory is made with mode 0700 if it is missing. UsageError: somebody answers there, a file that is no socket
    is in the way, or others could put theirs in its place.
    """
    _check_length(path)
    try:
        with _directory(path.parent):
            listener = _listen(path)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {path}: {error.strerror}", remedy=f"use --socket PATH, or set {VARIABLE}"
        ) from error
    ours = path.stat().st_ino
    try:
        yield listener
    finally:
        # While the listener is open nobody takes the path over.
        with listener, contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == ours:
                path.unlink()


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) >= _LONGEST_PATH:
        raise UsageError(
            f"the path of the socket is too long: {path}", remedy=f"at most {_LONGEST_PATH - 1} bytes"
        )


@contextlib.contextmanager
def _directory(directory: Path) -> Iterator[None]:
    """Hold the lock of those who change sockets in the directory."""
    directory.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        told = os.fstat(descriptor)
        others = stat.S_IWGRP | stat.S_IWOTH
        if told.st_uid not in (0, os.getuid()) or (told.st_mode & others and not told.st_mode & stat.S_ISVTX):
            raise UsageError(
                f"others may replace files in {directory}", remedy="use a directory of yours, mode 0700"
            )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another vmkernel starts in {directory} just now", remedy="try again"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _listen(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError(f"{path} is in the way: it is no socket", remedy="use another path")
        if _answers(path):
            raise UsageError(
                f"a vmkernel runs already at {path}", remedy="end it, or give this one another --socket"
            )
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


def _answers(path: Path) -> bool:
    """Whether somebody listens; one whose queue is full does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
    return True
