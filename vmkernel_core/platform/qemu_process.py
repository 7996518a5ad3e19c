"""One QEMU process: its start, its monitor (QMP), its end, and why it failed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import select
import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from vmkernel_core.errors import DeviceGone, TimedOut, UsageError
from vmkernel_core.platform.base import PlatformError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

_log = logging.getLogger(__name__)

#: Seconds that QEMU gets to answer a monitor command, to end by itself, and to end after a signal.
MONITOR_LIMIT = 10.0
QUIT_LIMIT = 2.0
SIGNAL_LIMIT = 1.0


class QemuMissing(PlatformError):
    """QEMU, or a tool that starting it takes, is not installed."""


class QemuFailed(PlatformError):
    """QEMU ended, or did not come up; the message has the last lines that it wrote."""


class UnknownDevice(QemuFailed):
    """QEMU knows no device of the name it was given."""

    exit_code = 3


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise QemuMissing(f"there is no program {name}", remedy=f"apt-get install {package}")
    return path


class QemuProcess:
    """A running QEMU and its monitor. ``descriptors`` are the open files that its arguments name.

    A thread of its own starts QEMU and then serves the monitor: the kernel kills QEMU (PR_SET_PDEATHSIG) when
    the *thread* that started it ends, so that thread has to live exactly as long as QEMU may.
    """

    def __init__(self, binary: str, arguments: Sequence[str], descriptors: Sequence[int]) -> None:
        """Start it; raises QemuMissing, OSError. One that dislikes its arguments ends later: ``failure``."""
        setpriv = _program("setpriv", "util-linux")
        qemu = _program(binary, "qemu-system-x86")
        self._command = [setpriv, "--pdeathsig", "KILL", "--", qemu, *arguments]
        self._descriptors = descriptors
        self._stderr = os.memfd_create("qemu-stderr", os.MFD_CLOEXEC)
        self._process: concurrent.futures.Future[subprocess.Popen[bytes]] = concurrent.futures.Future()
        self._client: concurrent.futures.Future[QMPClient] = concurrent.futures.Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="qemu-monitor", daemon=True)
        self._thread.start()
        try:
            self._pidfd = os.pidfd_open(self._process.result(MONITOR_LIMIT).pid)
        except OSError:
            self._thread.join(MONITOR_LIMIT)
            os.close(self._stderr)
            raise

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.result(0).pid

    def execute(self, command: str, **arguments: object) -> object:
        """Run a monitor command and return what it returns.

        Raises UsageError when QEMU refuses it, DeviceGone when QEMU has gone, TimedOut.
        """
        return self._execute(command, arguments, MONITOR_LIMIT)

    def execute_until(self, event: str, device: str, command: str, **arguments: object) -> None:
        """Run a monitor command and wait for an event about a device that it leads to; errors as of ``execute``."""

        async def run(client: QMPClient) -> object:
            def is_about_it(told: Mapping[str, Any]) -> bool:
                return bool(told["data"].get("device") == device)

            about = EventListener(event, is_about_it)
            with client.listen(about):
                await client.execute(command, arguments)
                return await about.get()

        self._wait_for(run, f"QMP command {command}", MONITOR_LIMIT)

    def hand_over(self, descriptor: int, name: str) -> None:
        """Give QEMU an open file, which monitor commands then call by that name; errors as of ``execute``."""

        async def run(client: QMPClient) -> object:
            client.send_fd_scm(descriptor)
            return await client.execute("getfd", {"fdname": name})

        self._wait_for(run, "QMP command getfd", MONITOR_LIMIT)

    def _execute(self, command: str, arguments: dict[str, object], limit: float) -> object:
        return self._wait_for(
            lambda client: client.execute(command, arguments), f"QMP command {command}", limit
        )

    def _wait_for(
        self, what: Callable[[QMPClient], Coroutine[Any, Any, object]], where: str, limit: float
    ) -> object:
        try:
            client = self._client.result(limit)
            reply = asyncio.wait_for(what(client), limit)
            return asyncio.run_coroutine_threadsafe(reply, self._loop).result()
        except ExecuteError as error:
            raise UsageError(f"QEMU refuses it: {error}", where=where) from error
        except TimeoutError as error:
            raise TimedOut(f"QEMU did not reply in {limit:g} s", where=where) from error
        except (QMPError, OSError, EOFError) as error:
            raise DeviceGone("QEMU has gone", where=where) from error

    def failure(self, what: str) -> QemuFailed:
        """The error that says why QEMU is of no use (``what`` was expected of it), with its last words."""
        ended = self._ended_within(SIGNAL_LIMIT)
        said = os.pread(self._stderr, 1 << 16, max(0, os.fstat(self._stderr).st_size - (1 << 16)))
        lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
        unknown = next((line for line in lines if "is not a valid device model name" in line), None)
        if unknown:
            return UnknownDevice(unknown, remedy=f"`{self._command[4]} -device help` lists what there is")
        status = f"ended with status {self._process.result(0).wait()}" if ended else "is still running"
        return QemuFailed(f"QEMU {status}: {'; '.join(lines[-5:]) or 'it said nothing'}", where=what)

    def stop(self) -> None:
        """End QEMU: by ``quit``, else SIGTERM, else SIGKILL, each with its limit. May be called twice."""
        if not self._thread.is_alive():
            return
        process = self._process.result(0)
        if not (self._quits() and self._ended_within(QUIT_LIMIT)):
            process.terminate()
            if not self._ended_within(SIGNAL_LIMIT):
                process.kill()
        process.wait(SIGNAL_LIMIT)
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(MONITOR_LIMIT)
        os.close(self._pidfd)
        os.close(self._stderr)

    def _quits(self) -> bool:
        """Whether QEMU agrees to end by itself."""
        try:
            self._execute("quit", {}, QUIT_LIMIT)
        except (DeviceGone, TimedOut) as error:
            _log.debug("quit: %s", error)
            return False
        return True

    def _ended_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                monitor = self._start()
            except OSError as error:
                self._process.set_exception(error)
                return
            with monitor:
                runner.run(self._serve(monitor))

    def _start(self) -> socket.socket:
        ours, other = socket.socketpair()
        with other:
            chardev = f"socket,id=monitor,fd={other.fileno()}"
            try:
                process = subprocess.Popen(
                    [*self._command, "-chardev", chardev, "-mon", "chardev=monitor,mode=control"],
                    stdin=subprocess.DEVNULL,
                    stdout=self._stderr,
                    stderr=self._stderr,
                    pass_fds=[*self._descriptors, other.fileno()],
                    process_group=0,  # a Ctrl-C at the terminal is for us, not for QEMU
                )
            except OSError:
                ours.close()
                raise
        self._process.set_result(process)
        return ours

    async def _serve(self, monitor: socket.socket) -> None:
        client = QMPClient("vmk")
        client.logger.setLevel(logging.CRITICAL)  # what it logs as an error, it also raises
        try:
            await asyncio.wait_for(client.connect(monitor), MONITOR_LIMIT)
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            self._client.set_exception(error)
        else:
            self._client.set_result(client)
        await self._end.wait()
        try:
            await client.disconnect()
        except (QMPError, OSError, EOFError) as error:
            _log.debug("QEMU's monitor: %s", error)
