"""The benchmark's other side is a real one: Debian's kernel as an ordinary guest, its own driver, QEMU's card.

Independent: all of it but the socket at the end of the wire.
"""

from __future__ import annotations

from pathlib import Path

from bench.guest import GuestSide
from bench.native import compile_native
from vmklinux.kernels import Kernel

LIMIT = 30.0
DEVICE = "e1000,netdev=wire0,addr=5"


def test_a_guest_boots_and_all_that_it_sends_arrives(kernel61: Kernel, tmp_path: Path) -> None:
    with GuestSide(compile_native(tmp_path), kernel61.release, DEVICE, ["e1000"]) as guest:
        assert guest.tx(640, 64) > 0
        guest.wire.settimeout(LIMIT)
        guest.serial.sendall(b"10 1000 1\n")
        frames: list[bytes] = []
        while len(frames) < 10:
            frame = guest.wire.recv(2048)
            if len(frame) != 60:  # of the run before, whose sink took enough and went
                frames.append(frame)
    assert {(frame[:6], frame[6:12], frame[12:14], len(frame)) for frame in frames} == {
        (b"\xff" * 6, bytes.fromhex("525400123456"), b"\x08\x00", 1000)
    }
