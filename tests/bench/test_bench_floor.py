"""The benchmark's floor really moves frames: what it is compared with must not be a loop that does nothing.

Independent sides: QEMU's cards, and a plain socket at the wire's far end that looks at every frame. No time is judged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.native import compile_native
from bench.sides import BATCH, PLACED, RX_WINDOW, SILENCE, TX_WINDOW, FloorSide
from bench.worker import Worker
from vmkernel_core.errors import VmkError

#: Descriptors of a ring; two rounds of it, and a batch that is not full.
RING = 256
COUNT = 2 * RING + 5
#: Writes to registers for a batch out, and for a batch in.
DOORBELLS = {"e1000": (1, 1), "i82557b": (4, 0), "i82559er": (4, 0), "pcnet": (1, 0)}


@pytest.fixture(scope="module", params=list(DOORBELLS))
def device(request: pytest.FixtureRequest) -> str:
    """QEMU's name of a card."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory, device: str) -> Iterator[FloorSide]:
    """The floor on a QEMU of its own."""
    with FloorSide(compile_native(tmp_path_factory.mktemp("native")), PLACED.format(device)) as side:
        yield side


def _frame(size: int) -> bytes:
    return (b"\xff" * 6 + b"\x02\0\0\0\0\x07" + b"\x88\xb5").ljust(size, b"\x3c")


@pytest.mark.parametrize("spin", [0, 100_000], ids=["sleeping", "spinning"])
@pytest.mark.parametrize("size", [64, 1514])
def test_every_frame_that_it_counts_as_sent_is_on_the_wire(floor: FloorSide, size: int, spin: int) -> None:
    wire = floor.platform.wires[0].socket
    got: list[bytes] = []
    wire.settimeout(SILENCE / 1e9)
    reader = threading.Thread(target=lambda: got.extend(wire.recv(4096) for _ in range(COUNT)))
    reader.start()
    credit = floor.ffi.new("struct wire_credit *")
    sent = floor.lib.floor_transmit(floor.handle, _frame(size), size, COUNT, TX_WINDOW, credit, spin, SILENCE)
    reader.join()
    assert sent == COUNT
    assert got == [_frame(size)] * COUNT


@pytest.mark.parametrize("size", [64, 1514])
def test_it_receives_what_was_sent_and_no_more(floor: FloorSide, size: int) -> None:
    wire = floor.platform.wires[0].socket
    frame = _frame(14).ljust(size, bytes([size & 0xFF]))  # unlike those that the other tests leave in memory
    credit = floor.ffi.new("struct wire_credit *")
    for start in range(0, COUNT, RX_WINDOW):
        burst = min(RX_WINDOW, COUNT - start)
        for _ in range(burst):
            assert wire.send(frame) == size
        assert floor.lib.floor_receive(floor.handle, burst, credit, SILENCE) == burst
    assert credit.received == COUNT
    assert bytes(floor.memory.view).count(frame) == RING
    assert floor.lib.floor_receive(floor.handle, 1, credit, 1_000_000) == 0


def test_the_measuring_runs_come_to_an_end_with_every_frame(floor: FloorSide, device: str) -> None:
    for measure, doorbells in zip((floor.tx, floor.rx), DOORBELLS[device], strict=True):
        sample = measure(4 * BATCH, 64, False)
        assert sample.frames_per_second > 0
        assert sample.writes_per_frame == pytest.approx(doorbells / BATCH, rel=0.5)
        # What tells too early that a frame is there is asked.
        assert (sample.reads_per_frame > 0) == (measure == floor.rx and device != "e1000")


def test_a_card_without_a_floor_is_refused(tmp_path: Path) -> None:
    side = Worker(FloorSide, compile_native(tmp_path), PLACED.format("rtl8139"))
    with pytest.raises(VmkError, match=r"no floor for this card \(rtl8139.*name an e1000"), side:
        pass
