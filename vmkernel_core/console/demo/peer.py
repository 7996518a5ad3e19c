"""The peer of ``vmk demo``: a process at the far end of the wire, which knows nothing of drivers.

``python -m vmkernel_core.console.demo.peer`` starts before the wire exists. Standard input is a SOCK_SEQPACKET socket;
each message is a JSON object:

- in, first, with the wire's socket (SCM_RIGHTS): ``{"card": MAC address in hexadecimal, "frames": N, "window": W}``;
  no more than W frames will be under way to the card;
- out, while frames come: ``{"verified": how many were right so far}``;
- in: ``{"probe": true}``: send the probe frame again and again, until
- in: ``{"received": n}``: so many of the peer's frames have arrived; the first one starts the N frames in. When no
  news comes of some, the probe frame follows: a card may tell of what it has only when more comes.

At the end of input the report goes to standard output: ``{"verified": n, "sent": n}``.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
from typing import Any

from vmkernel_core.console.demo.frame_pattern import LONGEST, PROBE, Checker, patterns

#: Milliseconds between probe frames.
PROBE_EVERY = 10
#: Milliseconds without news of frames that are under way, until a probe frame follows them; few, for full rings' sake.
FOLLOW_AFTER = 50
#: Frames taken off the wire before the count is told.
_BATCH = 64


class Peer:
    """The far end of a wire; ``serve`` until the control socket ends."""

    def __init__(
        self, control: socket.socket, wire: socket.socket, card: bytes, frames: int, window: int
    ) -> None:
        """``card`` is the MAC address at the near end; ``frames`` how many go each way; the rest as said above."""
        self._control = control
        self._wire = wire
        awaited, self._pattern = patterns(card)
        self._checker = Checker(awaited, frames)
        self._frames = frames
        self._window = window
        self._probing = False
        self._received = -1
        self._sent = 0

    def report(self) -> dict[str, int]:
        """How many frames were right, and how many were sent."""
        return {"verified": self._checker.verified, "sent": self._sent}

    def serve(self) -> None:
        """Check what comes and send what is due, until nobody is left to tell."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        self._wire.setblocking(False)
        while True:
            poll.register(self._wire, select.POLLIN | (select.POLLOUT if self._may_send() else 0))
            news = dict(poll.poll(self._patience()))
            if self._control.fileno() in news and not self._obey():
                return
            events = news.get(self._wire.fileno(), 0)
            if events & select.POLLIN:
                self._check()
            if events & select.POLLOUT:
                self._send()
            if not news:
                self._probe()

    def _patience(self) -> int | None:
        """Milliseconds; without a probe to send there is no limit: the end of the other side ends the wait."""
        if self._probing:
            return PROBE_EVERY
        return FOLLOW_AFTER if 0 <= self._received < self._sent else None

    def _may_send(self) -> bool:
        return self._received >= 0 and self._sent < min(self._frames, self._received + self._window)

    def _obey(self) -> bool:
        message = self._control.recv(1 << 12)
        if not message:
            return False
        order: dict[str, Any] = json.loads(message)
        self._probing = "probe" in order
        self._received = order.get("received", self._received)
        return True

    def _check(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BATCH):
                # One byte more than can be right, so that a frame that is too long is seen to be.
                self._checker.take(self._wire.recv(LONGEST + 1))
        self._control.send(json.dumps({"verified": self._checker.verified}).encode())

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._may_send():
                self._wire.send(self._pattern.frame(self._sent))
                self._sent += 1

    def _probe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wire.send(PROBE)


def main() -> None:
    """Be the peer."""
    with socket.socket(fileno=sys.stdin.fileno()) as control:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 12, 1)
        if not message:  # the demo ended before there was a wire
            return
        order = json.loads(message)
        with socket.socket(fileno=descriptors[0]) as wire:
            peer = Peer(control, wire, bytes.fromhex(order["card"]), order["frames"], order["window"])
            # The other ends may vanish at any time; the report then says how far it came.
            with contextlib.suppress(ConnectionError):
                peer.serve()
        print(json.dumps(peer.report()))


if __name__ == "__main__":
    main()
