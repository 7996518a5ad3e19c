"""A really running ``vmk boot``, its log as it comes, and ``vmk`` commands that talk to it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.vmkernel_core.console.vmk_command import COMMAND, environment, vmk

#: Seconds until what was to come has failed to come.
LIMIT = 60.0

QEMU_MACHINE = """
kernel = "{kernel}"
open = ["vmnic0"]
{more}
[platform]
type = "qemu"
devices = ["e1000,netdev=wire0,addr=5,mac=52:54:00:12:34:56"]
{arguments}
"""
MODEL_MACHINE = """
[platform]
type = "model"
devices = ["e1000,mac=52:54:00:12:34:57"]
"""


class Running:
    """``vmk boot`` as a process; a context manager that ends it."""

    def __init__(
        self,
        machine: str,
        directory: Path,
        name: str = "vmk",
        *flags: str,
        options: Sequence[str] = (),
        **changes: str,
    ) -> None:
        """Write the machine file, and start; ``name`` is the socket's; ``flags`` stand before ``boot``, ``options``
        behind it."""
        self.file = directory / f"{name}.toml"
        self.file.write_text(machine)
        self.socket = directory / f"{name}.sock"
        self.log: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [*COMMAND, *flags, "boot", "-c", str(self.file), "--socket", str(self.socket), *options],
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def __enter__(self) -> Running:
        """Wait until it is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == f"ready {self.socket}\n", (line, self.rest())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def expect(self, text: str) -> str:
        """The next line of its log that has the text."""
        deadline = time.monotonic() + LIMIT
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"it ended without {text!r}: {self.log}"
            self.log.append(line)
            if text in line:
                return line

    def rest(self) -> list[str]:
        """What it logs until its end."""
        while (line := self._lines.get(timeout=LIMIT)) is not None:
            self.log.append(line)
        return self.log

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT)

    def qemu(self) -> int:
        """The process id of its QEMU."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        [pid] = [int(pid) for file in children for pid in file.read_text().split()]
        return pid

    def vmk(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that talks to it."""
        return vmk(*arguments, VMK_SOCKET=str(self.socket))

    def json(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        run = self.vmk(*arguments, "--json")
        assert (run.returncode, run.stderr) == (0, "")
        return json.loads(run.stdout)

    def table(self, *arguments: str) -> str:
        """What a command prints for people."""
        run = self.vmk(*arguments)
        assert (run.returncode, run.stderr) == (0, "")
        return run.stdout
