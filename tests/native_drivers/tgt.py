"""tgt, the Linux SCSI target framework: an iSCSI target in user space that is not ours, for the tests of vmkiscsi."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds that tgtd has for anything.
LIMIT = 30.0


def free_port() -> int:
    """A TCP port that nobody listens at, nor is given by chance while tgt is down.

    It is none of those that Linux gives to clients (ip_local_port_range): whoever tries to connect to one of these again
    and again may be given it himself in the end, and is connected to himself then.
    """
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@dataclass
class Target:
    """A target with its units, by LUN, as tgtd is told of it; ``account`` and ``outgoing``: name and secret for CHAP."""

    name: str
    units: dict[int, Path]
    account: tuple[str, str] | None = None
    outgoing: tuple[str, str] | None = None
    settings: dict[str, str] = field(default_factory=dict)
    read_only: tuple[int, ...] = ()
    allowed: str = "ALL"  # addresses of initiators


class Tgt:
    """tgtd on a port of its own: ``start``, ``stop``, and ``kill``, which leaves its clients no time."""

    def __init__(self, *targets: Target, host: str = "127.0.0.1") -> None:
        self.targets = targets
        self.port = free_port()
        self.portal = f"{host}:{self.port}"
        self._directory = tempfile.TemporaryDirectory()
        # Where tgtd and tgtadm meet.
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "TGT_IPC_SOCKET": str(Path(self._directory.name) / "control"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Tgt:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        """Start it with all targets, at the port that it had before."""
        tgtd = shutil.which("tgtd", path=self._environment["PATH"])
        assert tgtd, "install the package tgt"
        self._process = subprocess.Popen(
            [tgtd, "-f", "--iscsi", f"portal={self.portal}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment,
        )  # fmt: skip
        deadline = time.monotonic() + LIMIT
        while self._admin("--mode", "system", "--op", "show", check=False).returncode:
            assert self._process.poll() is None, "tgtd has ended"
            assert time.monotonic() < deadline, "tgtd does not answer"
        for tid, target in enumerate(self.targets, 1):
            self._configure(str(tid), target)

    def add(self, target: Target) -> None:
        """One more target, while it runs."""
        self.targets = (*self.targets, target)
        self._configure(str(len(self.targets)), target)

    def add_unit(self, tid: int, lun: int, path: Path) -> None:
        """One more unit of a target, which are counted from 1, while it runs."""
        self.targets[tid - 1].units[lun] = path
        self._add_unit(str(tid), lun, path)

    def _add_unit(self, tid: str, lun: int, path: Path) -> None:
        self._admin(
            "--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", str(lun), "--backing-store", str(path)
        )  # fmt: skip

    def _configure(self, tid: str, target: Target) -> None:
        self._admin("--mode", "target", "--op", "new", "--tid", tid, "--targetname", target.name)
        for key, value in target.settings.items():
            self._admin("--mode", "target", "--op", "update", "--tid", tid, "--name", key, "--value", value)
        for lun, path in target.units.items():
            self._add_unit(tid, lun, path)
        for lun in target.read_only:
            self._admin(
                "--mode", "logicalunit", "--op", "update", "--tid", tid, "--lun", str(lun), "--params", "readonly=1"
            )  # fmt: skip
        for account, options in ((target.account, ()), (target.outgoing, ("--outgoing",))):
            if account is not None:
                user, secret = account
                self._admin("--mode", "account", "--op", "new", "--user", user, "--password", secret)
                self._admin("--mode", "account", "--op", "bind", "--tid", tid, "--user", user, *options)
        self._admin("--mode", "target", "--op", "bind", "--tid", tid, "--initiator-address", target.allowed)

    def _admin(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["/usr/sbin/tgtadm", "--lld", "iscsi", *arguments],
            capture_output=True, text=True, check=False, timeout=LIMIT, env=self._environment,
        )  # fmt: skip
        assert not check or done.returncode == 0, (arguments, done.stderr)
        return done

    def show(self) -> str:
        """What tgtd says of its targets and who is logged in."""
        return self._admin("--mode", "target", "--op", "show").stdout

    def pause(self) -> None:
        """It answers nothing, and its sockets stay open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; its sockets are reset, its memory is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT)
            self._process = None
