"""The far end of a network device's wire, in this process: it reads what leaves the device, and sends it frames."""

from __future__ import annotations

import itertools
import select
from hashlib import shake_256
from time import monotonic
from typing import TYPE_CHECKING, Final

from hcl.console.certification.suite import Failed
from vmkernel_core.console.demo.frame_pattern import ETHERTYPE, PEER_MAC, PROBE, SHORTEST
from vmkernel_core.errors import TimedOut

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from vmkernel_core.net.uplink import Uplink

#: Seconds until what was to come has failed to come.
LIMIT: Final = 10.0
#: The most frames under way at a time: less than the descriptors of the smallest card, and than a wire holds.
_BATCH: Final = 16
#: Seconds until a marker that did not arrive is followed by another.
_RETRY: Final = 0.05

_MARKER: Final = b"marker"
#: Bytes: more than any frame has.
_MOST: Final = 1 << 17


def raw(mac: str) -> bytes:
    """The six bytes of a MAC address."""
    return bytes.fromhex(mac.replace(":", ""))


def frame(to: bytes, source: bytes, size: int, seed: str = "") -> bytes:
    """A frame of that many bytes in all (without FCS), noise of the seed and size behind the header."""
    return to + source + ETHERTYPE + shake_256(f"{seed} {size}".encode()).digest(size - 14)


class FarEnd:
    """The far end of the wire of an uplink, which is open. ``fetched`` and ``fetched_bytes`` count what the uplink
    received since this was made, markers included. No more than ``window`` frames are under way to it at a time.
    """

    def __init__(self, nic: Uplink, wire: socket.socket, window: int) -> None:
        wire.settimeout(LIMIT)
        self._nic = nic
        self._wire = wire
        self._window = min(window, _BATCH)
        self._serial = itertools.count()
        self.fetched = self.fetched_bytes = 0

    def out(self, frames: Sequence[bytes]) -> list[bytes]:
        """Send frames through the card; what left it, in its order. TimedOut when less left than was sent."""
        came: list[bytes] = []
        for batch in _batches(frames, _BATCH):
            self._nic.transmit_all(batch, timeout=LIMIT)
            for _ in batch:
                try:
                    came.append(self._wire.recv(_MOST))
                except TimeoutError as error:
                    raise TimedOut(
                        f"{len(came)} of {len(frames)} frames left the card", where="the far end of its wire"
                    ) from error
        while select.select([self._wire], [], [], 0)[0]:
            came.append(self._wire.recv(_MOST))
        return came

    def into(self, frames: Sequence[bytes]) -> list[bytes]:
        """Send frames to the card; what it received, in its order. TimedOut when it receives nothing more."""
        came: list[bytes] = []
        for batch in _batches(frames, self._window):
            for one in batch:
                self._send(one)
            # Not all of them need come in: the marker follows then.
            self._nic.wait(rx=True, timeout=_RETRY)
            came += self._until_marker()
        return came

    def settle(self) -> None:
        """Wait until the card receives: some drop frames for a while after their filters were written. What is under
        way then is thrown away.
        """
        deadline = monotonic() + LIMIT
        while True:
            self._send(self._marker())
            if self._nic.wait(rx=True, timeout=_RETRY):
                break
            if monotonic() > deadline:
                raise TimedOut(f"{self._nic.name} received nothing for {LIMIT:g} s")
        self._until_marker()

    def _until_marker(self) -> list[bytes]:
        """What the uplink receives before a marker that is sent now; markers and probes are left out.

        A card may tell of what it has only when more comes: markers follow until one has come.
        """
        markers = {self._marker()}
        self._send(*markers)
        deadline = monotonic() + LIMIT
        came: list[bytes] = []
        while not markers.intersection(came):
            if monotonic() > deadline:
                raise TimedOut(f"{self._nic.name} received nothing more after {len(came)} frames")
            if self._nic.wait(rx=True, timeout=LIMIT / 10):
                fetched = self._nic.receive()
                self.fetched += len(fetched)
                self.fetched_bytes += sum(map(len, fetched))
                came += fetched
            else:
                another = self._marker()
                markers.add(another)
                self._send(another)
        return [one for one in came if one != PROBE and not one.startswith(self._head())]

    def _head(self) -> bytes:
        return raw(self._nic.mac) + PEER_MAC + ETHERTYPE + _MARKER

    def _marker(self) -> bytes:
        return (self._head() + next(self._serial).to_bytes(4, "big")).ljust(SHORTEST, b"\0")

    def _send(self, one: bytes) -> None:
        try:
            self._wire.send(one)
        except TimeoutError as error:
            raise TimedOut(f"{self._nic.name} took nothing off its wire for {LIMIT:g} s") from error


def same(sent: Sequence[bytes], came: Sequence[bytes], where: str) -> None:
    """Failed unless all frames came, each byte right, in their order, and none besides."""
    if list(came) == list(sent):
        return
    if len(came) != len(sent):
        raise Failed(f"{len(came)} frames came where {len(sent)} were to come", where=where)
    wrong = [(one, other) for one, other in zip(sent, came, strict=True) if one != other]
    one, other = wrong[0]
    how = f"{len(other)} bytes of which came" if len(other) != len(one) else "with other bytes in it"
    raise Failed(
        f"{len(wrong)} of {len(sent)} frames are not as they were sent, the first one of {len(one)} bytes, {how}",
        where=where,
    )


def _batches(frames: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    for at in range(0, len(frames), size):
        yield list(frames[at : at + size])
