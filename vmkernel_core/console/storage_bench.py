"""How fast a storage device is: ``vmk storage bench``."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from itertools import islice
from math import ceil
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from vmkernel_core.console.protocol import operation
from vmkernel_core.console.storage_operations import paths_to
from vmkernel_core.errors import TimedOut, UsageError

if TYPE_CHECKING:
    from vmkernel_core.boot import VMkernel
    from vmkernel_core.storage.command import Command
    from vmkernel_core.storage.device import Request, StorageDevice

#: Seconds that a run may take, others' requests waiting meanwhile; and transfers that may be under way.
MOST_SECONDS, MOST_DEPTH = 30.0, 1024
#: Seconds without the end of any transfer after which the run is given up.
SILENCE = 30.0


class Bench(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: what to do to a device, for how long: transfers of ``block_size`` bytes, ``depth`` of them under way.

    Writing overwrites what is on the device: it takes ``destroy_data``.
    """

    device: str
    operation: Literal["read", "write"] = "read"
    order: Literal["random", "sequential"] = "random"
    block_size: int = 4096
    depth: Annotated[int, msgspec.Meta(ge=1, le=MOST_DEPTH)] = 32
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MOST_SECONDS)] = 5.0
    destroy_data: bool = False


class Latency(msgspec.Struct, frozen=True):
    """Microseconds from a transfer's start to its end as the program sees them; p999 are not exceeded by 99.9 %."""

    minimum: float
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    maximum: float


class BenchResult(msgspec.Struct, frozen=True):
    """What came of it; MB are 10^6 bytes, ``iops`` transfers a second.

    ``commands`` and ``bytes`` are what the device's counters went up by: a transfer that is more than the device takes
    at once is several commands.
    """

    device: str
    operation: str
    order: str
    block_size: int
    depth: int
    seconds: float
    transfers: int
    commands: int
    bytes: int
    iops: float
    mb_per_second: float
    latency_us: Latency


@operation("storage.bench", Bench, BenchResult)
def bench(host: VMkernel, wanted: Bench) -> BenchResult:
    """Keep transfers under way for so many seconds, then wait for the last ones. UsageError, ScsiError, DeviceGone."""
    device = paths_to(host, wanted.device)[0]
    if wanted.operation == "write" and not wanted.destroy_data:
        raise UsageError(
            f"writing destroys what is on {device.name}", remedy="say --yes-destroy-data, if it may be lost"
        )
    if wanted.block_size % device.block_size or not 0 < wanted.block_size <= device.capacity:
        raise UsageError(
            f"a block size of {wanted.block_size} bytes cannot be",
            where=device.name,
            remedy=f"use a multiple of {device.block_size}, at most {device.capacity}",
        )
    seconds, times, commands = _run(device, wanted)
    return BenchResult(
        device=device.name,
        operation=wanted.operation,
        order=wanted.order,
        block_size=wanted.block_size,
        depth=wanted.depth,
        seconds=round(seconds, 6),
        transfers=len(times),
        commands=commands,
        bytes=len(times) * wanted.block_size,
        iops=round(len(times) / seconds, 1),
        mb_per_second=round(len(times) * wanted.block_size / seconds / 1e6, 3),
        latency_us=_latency(times),
    )


@dataclass(slots=True)
class _Transfer:
    """One that is under way: when it was begun, and its commands."""

    began: float
    requests: list[Request]

    def ended(self) -> bool:
        return all(request.done for request in self.requests)


class _Load:
    """Begins the transfers that are wanted; random ones are at the same places each time."""

    def __init__(self, device: StorageDevice, wanted: Bench) -> None:
        self._device = device
        self._size, self._depth = wanted.block_size, wanted.depth
        self._blocks = wanted.block_size // device.block_size
        self._places = device.blocks // self._blocks
        self._chance = Random(0) if wanted.order == "random" else None
        self._commands = device.write_commands if wanted.operation == "write" else device.read_commands
        self._buffer = device.buffer(self._size * self._depth)
        if wanted.operation == "write":
            self._buffer.view[:] = os.urandom(self._buffer.length)
        self._begun = 0

    def begin(self, count: int) -> list[_Transfer]:
        """Begin so many more, all at once."""
        now = perf_counter()
        commands = [self._next() for _ in range(count)]
        requests = iter(self._device.start([command for transfer in commands for command in transfer]))
        return [_Transfer(now, list(islice(requests, len(transfer)))) for transfer in commands]

    def _next(self) -> list[Command]:
        place = self._chance.randrange(self._places) if self._chance else self._begun % self._places
        # What two transfers under way have in the buffer may overlap: nobody looks at it.
        offset = self._begun % self._depth * self._size
        self._begun += 1
        return self._commands(place * self._blocks, self._blocks, self._buffer, offset)


def _run(device: StorageDevice, wanted: Bench) -> tuple[float, array[float], int]:
    """The seconds that it took, those that each transfer took, and how many commands they were."""
    load = _Load(device, wanted)
    times: array[float] = array("d")
    commands = 0
    under_way: list[_Transfer] = []
    failed: Request | None = None
    began = heard = now = perf_counter()
    while True:
        if now - began < wanted.seconds and failed is None:
            under_way += load.begin(wanted.depth - len(under_way))
        if not under_way:
            break
        device.wait(0.1)  # not for long at a time: Ctrl-C is heeded between
        now = perf_counter()
        still = []
        for transfer in under_way:
            if not transfer.ended():
                still.append(transfer)
                continue
            heard = now
            times.append(now - transfer.began)
            commands += len(transfer.requests)
            failed = failed or next((one for one in transfer.requests if not one.wait().good), None)
        under_way = still
        if now - heard > SILENCE:
            raise TimedOut(
                f"none of {len(under_way)} transfers has ended for {SILENCE:g} s", where=device.name
            )
    if failed is not None:
        failed.result()
    return now - began, times, commands


def _latency(times: array[float]) -> Latency:
    ordered = sorted(times)

    def below(part: float) -> float:
        return round(ordered[ceil(part * len(ordered)) - 1] * 1e6, 1)

    return Latency(
        minimum=round(ordered[0] * 1e6, 1),
        mean=round(sum(ordered) / len(ordered) * 1e6, 1),
        p50=below(0.5),
        p90=below(0.9),
        p99=below(0.99),
        p999=below(0.999),
        maximum=round(ordered[-1] * 1e6, 1),
    )
