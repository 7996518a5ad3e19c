"""The storage benchmark's sides really move blocks: what they are compared with must not be a loop that does nothing.

Independent sides: QEMU's controllers and the file behind its disk; Debian's kernel as an ordinary guest. No time is
judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.disk_sides import BLOCK, DRIVE_SIZE, FLOORS, DiskFloorSide
from bench.native import compile_native, compile_program
from bench.storage import DEPTHS, SIZES, Settings, compare
from vmkernel_core.memory import RESERVED
from vmklinux.kernels import Kernel

#: Bytes of rings and frames before the floor's data (PLACE_SIZE, disk.h), ns, and a count that no depth divides.
DATA, SILENCE, COUNT = RESERVED + (64 << 10), 10_000_000_000, 37


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark's C side."""
    return compile_native(tmp_path_factory.mktemp("native"))


@pytest.fixture(params=FLOORS)
def floor(request: pytest.FixtureRequest, native: Path) -> Iterator[DiskFloorSide]:
    """The floor of each controller, on a drive in memory."""
    with DiskFloorSide(native, request.param, "ram") as side:
        yield side


@pytest.mark.parametrize("depth", [1, 8])
def test_the_floor_writes_and_reads_each_place(floor: DiskFloorSide, depth: int) -> None:
    size, memory = 4096, floor.memory.view
    pattern = b"".join(bytes([65 + slot]) * size for slot in range(depth))
    memory[DATA : DATA + len(pattern)] = pattern
    blocks = COUNT * size // BLOCK
    assert floor.lib.disk_run(floor.handle, depth, size, 1, COUNT, DRIVE_SIZE // BLOCK, SILENCE) == COUNT
    with open(floor.drive, "rb") as file:
        written = file.read(COUNT * size)
        assert not any(file.read(size))
    places = [written[at : at + size] for at in range(0, len(written), size)]
    assert {place[0] for place in places} == set(pattern)
    assert all(place == place[:1] * size for place in places)
    memory[DATA : DATA + len(pattern)] = bytes(len(pattern))
    # Twice as many reads as places: it begins anew at the end of them.
    assert floor.lib.disk_run(floor.handle, depth, size, 0, 2 * COUNT, blocks, SILENCE) == 2 * COUNT
    assert set(memory[DATA : DATA + len(pattern)]) <= set(pattern)


def test_the_floor_counts_what_failed_as_not_done(floor: DiskFloorSide) -> None:
    beyond = DRIVE_SIZE // BLOCK + 8
    places = beyond // 8
    assert floor.lib.disk_run(floor.handle, 1, 4096, 0, places, beyond, SILENCE) == places - 1


@pytest.mark.parametrize(
    ("controller", "driver", "native_too"),
    [("megasas-gen2", "megaraid_sas", True), ("pvscsi", "vmw_pvscsi", False)],
)
def test_all_sides_run_every_case(
    native: Path, kernel61: Kernel, tmp_path: Path, controller: str, driver: str, native_too: bool
) -> None:
    program = compile_program(tmp_path, "disk_loop.c")
    settings = Settings(kernel61.release, 64, 1, pinned=False, processor=False)
    told: list[str] = []
    cases = compare(native, program, controller, "null", settings, told.append)
    assert {(case.size, case.depth, case.write) for case in cases} == {
        (size, depth, write) for size in SIZES for depth in DEPTHS for write in (False, True)
    }
    for case in cases:
        assert case.driver == driver
        assert (case.native is not None, case.of_linux is not None) == (native_too, native_too)
        assert case.native is None or case.native.per_second > 0
        assert min(case.device.per_second, case.floor.per_second, case.guest) > 0
        assert case.of_floor > 0
        assert case.of_guest > 0
        assert 0 < case.floor.writes <= 1
        assert case.device.writes > 0
    assert len(told) == 1 + len(cases)
