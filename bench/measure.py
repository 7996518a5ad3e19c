"""What is measured, and the shape of the results."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.native import compile_native
from bench.sides import BATCH, PLACED, FloorSide, Sample, UplinkSide
from bench.startup import first_frame_seconds, image_seconds
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZES = (64, 1514)
DIRECTIONS = ("tx", "rx")
#: How the names of those cards of QEMU's begin that tell of a frame before they have written it: Linux's drivers lose
#: some on a core of their own.
_EARLY = ("i82", "pcnet")


@dataclass(frozen=True)
class Traffic:
    """All sides in one case, medians of the rounds: ``uplink`` is Linux's driver, ``native`` the one in Python.

    ``ratio`` is Linux's driver to the floor, ``native_ratio`` the one in Python to Linux's: medians of each round's own.
    """

    device: str
    direction: str
    size: int
    pinned: bool
    uplink: Sample
    native: Sample
    floor: Sample
    ratio: float
    native_ratio: float


@dataclass(frozen=True)
class Results:
    """All of it: ``access_ns`` by kind of access and pinning, ``seconds`` by what is waited for; both of the e1000."""

    kernel: str
    cores: int
    frames: int
    rounds: int
    traffic: list[Traffic]
    access_ns: dict[str, dict[str, float]]
    seconds: dict[str, float]


def measure(
    kernel: str,
    devices: Sequence[str],
    cores: int,
    frames: int,
    rounds: int,
    accesses: int,
    tell: Callable[[str], None],
) -> Results:
    """Run it all; ``tell`` hears what is being measured. ``frames`` is rounded down to whole batches."""
    frames -= frames % BATCH
    with tempfile.TemporaryDirectory(prefix="bench-native-") as directory:
        native = compile_native(Path(directory))
        traffic = [
            case
            for device in devices
            for case in _device_traffic(native, kernel, device, frames, rounds, tell)
        ]
        tell("register accesses")
        access_ns = _access_ns(native, kernel, accesses, rounds)
    tell("starting")
    seconds = image_seconds(kernel, rounds) | first_frame_seconds(kernel, rounds)
    return Results(kernel, cores, frames, rounds, traffic, access_ns, seconds)


def _device_traffic(
    native: Path, kernel: str, device: str, frames: int, rounds: int, tell: Callable[[str], None]
) -> Iterator[Traffic]:
    """Every case of a card."""
    placed = PLACED.format(device)
    tell(f"{device}: booting all sides")
    with (
        Worker(FloorSide, native, placed) as floor,
        Worker(UplinkSide, native, kernel, placed) as uplink,
        Worker(UplinkSide, native, kernel, placed, "native") as python,
    ):
        for pinned in (True,) if device.startswith(_EARLY) else (True, False):
            for size in SIZES:
                for direction in DIRECTIONS:
                    tell(f"{device}: {direction}, {size} bytes, {'pinned' if pinned else 'unpinned'}")
                    sides = (uplink, python, floor)
                    yield _compare(sides, device, direction, size, pinned, frames, rounds)


def _access_ns(native: Path, kernel: str, accesses: int, rounds: int) -> dict[str, dict[str, float]]:
    with Worker(UplinkSide, native, kernel, PLACED.format("e1000")) as uplink:
        runs = {
            kind: [uplink.ask("access", accesses, kind == "pinned") for _ in range(rounds)]
            for kind in ("pinned", "unpinned")
        }
    return {kind: {name: median(run[name] for run in of) for name in of[0]} for kind, of in runs.items()}


def _compare(
    sides: tuple[Worker, Worker, Worker],
    device: str,
    direction: str,
    size: int,
    pinned: bool,
    frames: int,
    rounds: int,
) -> Traffic:
    """Turn by turn, so that whatever else the machine does hits all. The first turn of each warms up."""
    turns = [tuple(side.ask(direction, frames, size, pinned) for side in sides) for _ in range(1 + rounds)][
        1:
    ]
    uplink, native, floor = (_median([turn[side] for turn in turns]) for side in range(len(sides)))
    ratio, native_ratio = (
        median(turn[one].frames_per_second / turn[other].frames_per_second for turn in turns)
        for one, other in ((0, 2), (1, 0))
    )
    return Traffic(device, direction, size, pinned, uplink, native, floor, ratio, native_ratio)


def _median(samples: list[Sample]) -> Sample:
    return Sample(*(median(getattr(sample, field.name) for sample in samples) for field in fields(Sample)))
