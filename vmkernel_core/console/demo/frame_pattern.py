"""The frames of the demo: every size that Ethernet has, every byte known to both ends from a seed."""

from __future__ import annotations

from hashlib import shake_256

#: Bytes of the shortest and the longest Ethernet frame, without its FCS.
SHORTEST, LONGEST = 60, 1514
#: IEEE 802's EtherType for local experiments.
ETHERTYPE = b"\x88\xb5"
#: The most frames that a pattern has numbers for; a bound for the memory that checking takes.
MOST_FRAMES = 10_000_000

# Coprime to the count of sizes, so that all of them come up.
_SIZE_STEP = 389
# Likewise for the places in the noise.
_NOISE_STEP = 40503
_NOISE_PLACES = 1 << 16


class Pattern:
    """Numbered frames from ``source`` to ``destination`` (MAC addresses, six bytes), the same for the same seed.

    Behind the Ethernet header lie the number (32 bits, big-endian) and noise.
    """

    def __init__(self, seed: str, destination: bytes, source: bytes) -> None:
        """Grow the noise of the seed."""
        self._header = destination + source + ETHERTYPE
        self._noise = shake_256(seed.encode()).digest(_NOISE_PLACES + LONGEST)

    @staticmethod
    def size(number: int) -> int:
        """Bytes of a frame."""
        return SHORTEST + number * _SIZE_STEP % (LONGEST - SHORTEST + 1)

    def frame(self, number: int) -> bytes:
        """The frame of a number."""
        start = number * _NOISE_STEP % _NOISE_PLACES
        return (
            self._header
            + number.to_bytes(4, "big")
            + self._noise[start : start + self.size(number) - len(self._header) - 4]
        )

    def total(self, count: int) -> int:
        """Bytes of the first ``count`` frames together."""
        return sum(map(self.size, range(count)))


class Checker:
    """Counts in ``verified`` the first ``count`` frames of a pattern that arrived byte for byte, each once."""

    def __init__(self, pattern: Pattern, count: int) -> None:
        """None has arrived."""
        self._pattern = pattern
        self._awaited = bytearray(b"\1") * count
        self.verified = 0

    def take(self, frame: bytes) -> None:
        """Look at a frame that arrived; one that is not as it was sent does not count."""
        number = int.from_bytes(frame[14:18], "big")
        if number < len(self._awaited) and self._awaited[number] and frame == self._pattern.frame(number):
            self._awaited[number] = 0
            self.verified += 1


def patterns(card: bytes) -> tuple[Pattern, Pattern]:
    """What the card with this MAC address sends to the peer, and what the peer sends to it."""
    return Pattern("to the peer", PEER_MAC, card), Pattern("to the card", card, PEER_MAC)


#: The peer's MAC address, a locally administered one.
PEER_MAC = b"\x02\x00\x00\x00\x00\x01"
#: What the peer sends until the card receives: as long as a frame must be, and no frame of a pattern.
PROBE = b"\xff" * 6 + PEER_MAC + ETHERTYPE + b"\xff" * (SHORTEST - 14)
