"""The demo's traffic with a real peer process and a card that damages, loses and repeats frames on purpose.

Independent side: none; that the right frames pass real drivers and devices is test_console_demo.py's.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest

from tests.vmkernel_core.console.vmk_command import ROOT
from vmkernel_core.console.demo import traffic
from vmkernel_core.console.demo.frame_pattern import PROBE
from vmkernel_core.console.demo.traffic import PeerProcess, Traffic
from vmkernel_core.console.interruption import Interruption
from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.net.uplink import Uplink

Fault = Callable[[bytes], list[bytes]]
FRAMES = 300


def _none(frame: bytes) -> list[bytes]:
    return [frame]


def _on(number: int, fault: Fault) -> Fault:
    return lambda frame: fault(frame) if frame[14:18] == number.to_bytes(4, "big") else [frame]


def _flip(frame: bytes) -> list[bytes]:
    return [frame[:-1] + bytes([frame[-1] ^ 1])]


def _lose(frame: bytes) -> list[bytes]:
    return []


def _double(frame: bytes) -> list[bytes]:
    return [frame, frame]


class Card:
    """As much of an uplink as the traffic asks for, over a wire; its faults say what becomes of each frame."""

    name = "vmnic0"
    mac = "52:54:00:12:34:56"

    def __init__(self, wire: socket.socket, out: Fault, into: Fault) -> None:
        self._wire = wire
        self._out = out
        self._into = into

    def transmit_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            for sent in self._out(frame):
                self._wire.send(sent)

    def wait(self, *, rx: bool, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._wire, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def receive(self, max_frames: int) -> list[bytes]:
        return self._into(self._wire.recv(2000))


@contextmanager
def _peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[PeerProcess]:
    monkeypatch.chdir(ROOT)  # where the peer's python finds it
    monkeypatch.setattr(traffic, "LIMIT", 1.0)
    with PeerProcess() as peer:
        yield peer


def _run(monkeypatch: pytest.MonkeyPatch, out: Fault = _none, into: Fault = _none) -> Traffic:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, _peer(monkeypatch) as peer, Interruption() as ctrl_c:
        return traffic.run(cast("Uplink", Card(near, out, into)), far, peer, FRAMES, ctrl_c)


def test_a_perfect_card(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _run(monkeypatch)
    assert result.tx == result.rx
    assert (result.tx.frames, result.tx.verified) == (FRAMES, FRAMES)
    assert result.accesses == 0


@pytest.mark.parametrize("number", [0, FRAMES - 1])
@pytest.mark.parametrize("fault", [_flip, _lose])
def test_one_bad_frame_out(monkeypatch: pytest.MonkeyPatch, fault: Fault, number: int) -> None:
    result = _run(monkeypatch, out=_on(number, fault))
    assert (result.tx.frames, result.tx.verified, result.rx.verified) == (FRAMES, FRAMES - 1, FRAMES)


@pytest.mark.parametrize("number", [0, FRAMES - 1])
@pytest.mark.parametrize("fault", [_flip, _lose])
def test_one_bad_frame_in(monkeypatch: pytest.MonkeyPatch, fault: Fault, number: int) -> None:
    result = _run(monkeypatch, into=_on(number, fault))
    assert (result.rx.frames, result.rx.verified, result.tx.verified) == (FRAMES, FRAMES - 1, FRAMES)


def test_doubled_frames_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _run(monkeypatch, out=_double, into=_on(5, _double))
    assert (result.tx.verified, result.rx.verified) == (FRAMES, FRAMES)


def test_a_card_that_loses_its_first_frames_in(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[bytes] = []

    def deaf_at_first(frame: bytes) -> list[bytes]:
        if len(lost) < 5:
            lost.append(frame)
            return []
        return [frame]

    result = _run(monkeypatch, into=deaf_at_first)
    assert result.rx.verified == FRAMES
    assert lost == [PROBE] * 5


def test_a_card_that_receives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimedOut, match="vmnic0 received nothing for 1 s"):
        _run(monkeypatch, into=_lose)


def test_a_peer_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    with _peer(monkeypatch) as peer:
        peer._process.kill()
        peer._process.wait(10)
        with pytest.raises(VmkError, match="the peer process ended early"):
            peer.tell(probe=True)
