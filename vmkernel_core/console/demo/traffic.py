"""The near side of the demo's traffic: the peer's process, frames out to it, frames in from it."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from vmkernel_core.console.demo.frame_pattern import PROBE, Checker, patterns
from vmkernel_core.console.demo.meter import Meter
from vmkernel_core.console.progress import Progress
from vmkernel_core.errors import TimedOut, VmkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from vmkernel_core.console.interruption import Interruption
    from vmkernel_core.net.uplink import Uplink

#: Seconds without a frame after which those that are missing are lost.
LIMIT = 5.0
#: Frames under way to the peer: less than the 10,000 beyond which QEMU drops what a card sends.
WINDOW = 4096
_BATCH = 64
#: Frames under way from the peer. Most network cards have rings of 32 descriptors and more; what arrives when a ring is
#: full is lost with some of them.
WINDOW_IN = 32


class PeerProcess:
    """The process at the far end of the wire (peer.py has what is said with it). A context manager that ends it."""

    def __init__(self) -> None:
        """Start it; it then waits for ``begin``."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vmkernel_core.console.demo.peer"],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                process_group=0,  # a Ctrl-C at the terminal is for us, not for the peer
            )
        self.verified = 0

    def __enter__(self) -> PeerProcess:
        """It runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._control.close()
        self._process.kill()
        self._process.communicate()

    def begin(self, wire: socket.socket, card: bytes, frames: int, window: int) -> None:
        """Give it its end of the wire, the MAC address at the other end, how many frames go each way, and how many of
        those to the card may be under way.
        """
        order = json.dumps({"card": card.hex(), "frames": frames, "window": window}).encode()
        with self._alive():
            socket.send_fds(self._control, [order], [wire.fileno()])

    def tell(self, **order: object) -> None:
        """Send it a message."""
        with self._alive():
            self._control.send(json.dumps(order).encode())

    def listen(self, timeout: float) -> bool:
        """Take in its counts, waiting so many seconds for the first; False when none came."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        heard = False
        while poll.poll(0 if heard else timeout * 1000):
            with self._alive():
                message = self._control.recv(1 << 12)
            if not message:
                raise _ended()
            self.verified = json.loads(message)["verified"]
            heard = True
        return heard

    def report(self) -> dict[str, Any]:
        """Let it end; what it says of the run."""
        with self._alive():
            self._control.shutdown(socket.SHUT_WR)
        try:
            said, _ = self._process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"the peer did not report within {LIMIT:g} s", where="vmk demo") from error
        if self._process.returncode:
            raise _ended()
        report: dict[str, Any] = json.loads(said)
        return report

    @staticmethod
    @contextlib.contextmanager
    def _alive() -> Iterator[None]:
        try:
            yield
        except ConnectionError as error:
            raise _ended() from error


def _ended() -> VmkError:
    return VmkError("the peer process ended early", where="vmk demo", remedy="run the demo again")


class Way(msgspec.Struct, frozen=True):
    """One direction: frames and bytes that were sent, and how many of the frames arrived byte for byte."""

    frames: int
    bytes: int
    verified: int


class Traffic(msgspec.Struct, frozen=True):
    """Both directions, register accesses that trapped meanwhile, and the seconds that they took."""

    tx: Way
    rx: Way
    accesses: int
    seconds: float


def run(
    nic: Uplink,
    wire: socket.socket,
    peer: PeerProcess,
    frames: int,
    ctrl_c: Interruption,
    window: int = WINDOW_IN,
) -> Traffic:
    """Send ``frames`` frames each way over an uplink that has a link, no more than ``window`` under way to it. TimedOut
    when nothing moves at all.
    """
    card = bytes.fromhex(nic.mac.replace(":", ""))
    out, into = patterns(card)
    checker = Checker(into, frames)
    peer.begin(wire, card, frames, window)
    meter = Meter()
    with meter, Progress("frames out", frames) as progress:
        sent = 0
        while peer.verified < frames:
            until = min(sent + _BATCH, frames, peer.verified + WINDOW)
            nic.transmit_all([out.frame(number) for number in range(sent, until)])
            # With nothing to send, only news from the peer brings it on.
            if not ctrl_c.wait(peer.listen, 0 if until > sent else LIMIT) and until == sent:
                break
            sent = until
            progress.at(peer.verified)
    _wait_until_it_receives(nic, peer, ctrl_c)
    with meter, Progress("frames in", frames) as progress:
        received, deadline = 0, perf_counter() + LIMIT
        peer.tell(received=received)
        while (
            checker.verified < frames
            and perf_counter() < deadline
            and ctrl_c.wait(partial(_arrived, nic), LIMIT)
        ):
            for frame in nic.receive(_BATCH):
                if frame != PROBE:
                    received, deadline = received + 1, perf_counter() + LIMIT
                    checker.take(frame)
            peer.tell(received=received)
            progress.at(checker.verified)
    told = peer.report()
    return Traffic(
        Way(sent, out.total(sent), told["verified"]),
        Way(told["sent"], into.total(told["sent"]), checker.verified),
        meter.accesses,
        meter.seconds,
    )


def _wait_until_it_receives(nic: Uplink, peer: PeerProcess, ctrl_c: Interruption) -> None:
    """Some cards drop what arrives in the first moments (QEMU's e1000 for a second): let the peer try."""
    peer.tell(probe=True)

    def probed(timeout: float) -> bool:
        return nic.wait(rx=True, timeout=timeout) and PROBE in nic.receive(_BATCH)

    if not ctrl_c.wait(probed, LIMIT):
        raise TimedOut(f"{nic.name} received nothing for {LIMIT:g} s", where="probe frames from the peer")


def _arrived(nic: Uplink, timeout: float) -> bool:
    return nic.wait(rx=True, timeout=timeout)
