"""The certification suite of storage controllers, with a disk behind each.

The disk's file is looked at from outside. One of its blocks cannot be read: QEMU's blkdebug driver fails it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal

from hcl.console.certification import suite
from hcl.console.certification.suite import Failed, Finding, Record, Step, adapter_of
from vmkernel_core.console.demo import one_device
from vmkernel_core.console.demo.block_pattern import BEFORE, BLOCK, differing
from vmkernel_core.console.demo.blocks import LIMIT, Blocks
from vmkernel_core.console.demo.disk import differing_in, the_disk
from vmkernel_core.console.demo.disk_image import DiskImage
from vmkernel_core.console.demo.session import Session, Wanted
from vmkernel_core.errors import NotSupported
from vmkernel_core.storage.command import Direction
from vmkernel_core.storage.errors import ScsiError

if TYPE_CHECKING:
    from hcl.evidence import Run
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.console.demo.blocks import Extent
    from vmkernel_core.console.interruption import Interruption
    from vmkernel_core.storage.device import Request, StorageDevice

#: MiB that are written again and again; one more has the block that cannot be read.
_MIB: Final = 16
#: What QEMU's disks call themselves, and INQUIRY's length in its standard form (SPC-4, 6.4.2).
_MODEL, _INQUIRY = "QEMU HARDDISK", 36
#: Linux's ENODATA, and what QEMU's disks make of it: sense key and additional sense code (SPC-4). A SCSI disk tells an
#: unrecovered read error, an ATA disk tells every error as an aborted command (hw/ide/core.c).
_ENODATA: Final = 61
_TOLD: Final = {"scsi-hd": (0x3, 0x11), "ide-hd": (0xB, 0x00)}
#: Blocks from the beginning of the last MiB to the bad one.
_BAD_AT: Final = 1000
#: Commands at once, and blocks of each.
_COMMANDS, _EACH = 256, 8


@dataclass
class Bench:
    """The controller as the checks have it, its disk, and the file behind that. ``kind``: QEMU's name of the disk;
    ``generation``: of the blocks in it.
    """

    session: Session
    adapter: Adapter
    kind: str
    image: DiskImage
    seconds: float
    ctrl_c: Interruption
    generation: int = BEFORE
    found: StorageDevice | None = None

    @property
    def disk(self) -> StorageDevice:
        """The disk."""
        assert self.found is not None, "the check of the disk finds it, and it is vital"
        return self.found

    @property
    def blocks(self) -> Blocks:
        """The disk, read and written with several commands under way."""
        return Blocks(self.disk, self.ctrl_c)

    @cached_property
    def area(self) -> list[Extent]:
        """What is written again and again."""
        return list(self.image.inside())[:-1]

    @property
    def bad(self) -> int:
        """The block that cannot be read."""
        return bad_block(self.image)

    def content(self, lba: int, count: int) -> bytes:
        """What the area's blocks are now."""
        return self.image.pattern.blocks(lba, count, self.generation)

    def find(self) -> StorageDevice:
        """Wait for the disk. TimedOut."""
        self.found = the_disk(self.session.host, str(self.adapter.module), self.ctrl_c)
        return self.found


def bad_block(image: DiskImage) -> int:
    """The block of the image that cannot be read through QEMU."""
    return image.target.lba + _MIB * (1 << 20) // BLOCK + _BAD_AT


def failing(image: DiskImage, kind: Literal["read", "write"] = "read") -> str:
    """The image as QEMU's ``-drive`` takes it, whose bad block cannot be read, or written."""
    rule = {"event": "none", "iotype": kind, "errno": _ENODATA, "sector": bad_block(image)}
    file = {"driver": "file", "filename": str(image.path)}
    drive = {"driver": "raw", "file": {"driver": "blkdebug", "inject-error": [rule], "image": file}}
    return f"json:{json.dumps(drive)}".replace(",", ",,")  # as QEMU wants commas in a value


def run(wanted: Wanted, kind: str, seconds: float, ctrl_c: Interruption) -> Run:
    """Certify a storage controller with a disk of that kind (QEMU's name); ``seconds`` is how long the check of load
    lasts. What keeps the host from starting is raised, and NoDriver when there is no driver for the device.
    """
    record = Record("storage")
    with DiskImage(_MIB + 1) as image:
        beside = {extent: image.read(*extent) for extent in image.beside()}
        machine = one_device.with_disk(wanted.device, kind, failing(image))
        with Session(wanted, machine) as session:
            adapter = adapter_of(session, machine)
            counterpart = suite.counterpart(machine, wanted.device)
            bench = Bench(session, adapter, kind, image, seconds, ctrl_c)
            checks = suite.examine(STEPS, bench, ctrl_c)
        # QEMU has ended: what is in the file now is what it left there.
        checks.append(suite.examined(Step("image", partial(_image, beside)), bench))
    checks.append(suite.examined(Step("leaks", suite.no_leaks), session))
    return record.run(session, adapter, counterpart, checks)


def _driver(bench: Bench) -> Finding:
    return suite.driver(bench.session)


def _disk(bench: Bench) -> Finding:
    disk = bench.find()
    return Finding(f"{disk.path}: {disk.vendor} {disk.model}")


def _inquiry(bench: Bench) -> Finding:
    disk = bench.disk
    request = disk.submit(bytes([0x12, 0, 0, 0, _INQUIRY, 0]), Direction.FROM_DEVICE, _INQUIRY)
    request.result(LIMIT)
    assert request.buffer is not None
    told = bytes(request.buffer.view)
    model = told[16:32].decode("ascii", "replace").strip(" \0")
    if told[0] & 0x1F or model != _MODEL or disk.model != model:
        raise Failed(f"type {told[0] & 0x1F}, model {model!r}; it is a disk, model {_MODEL!r}")
    return Finding(f"a disk: {disk.vendor} {model} {disk.revision}")


def _capacity(bench: Bench) -> Finding:
    disk, size = bench.disk, bench.image.blocks * BLOCK
    if (disk.capacity, disk.block_size) != (size, BLOCK):
        raise Failed(f"{disk.blocks} blocks of {disk.block_size} bytes; the file has {size} bytes")
    last = disk.blocks - 1
    if disk.read(last, 1) != bench.image.read(last, 1):
        raise Failed("the last block is not what the file has there")
    return Finding(f"{size} bytes, as the file has", {"bytes": float(size)})


def _read(bench: Bench) -> Finding:
    extents = list(bench.image.beside())
    wrong = bench.blocks.differing("MiB read", extents, bench.image.read)
    _none(wrong, "read are not as the file has them")
    return _moved(extents, "are as the file has them")


def _write(bench: Bench) -> Finding:
    _generation(bench)
    return _moved(bench.area, "were written, read back, and are in the file")


def _generation(bench: Bench) -> None:
    """Write the area anew, read it back, and look at it in the file."""
    blocks = bench.blocks
    bench.generation += 1
    blocks.write("MiB written", bench.area, bench.content)
    _none(
        blocks.differing("MiB read back", bench.area, bench.content),
        "were read back as they were not written",
    )
    _none(differing_in(bench.image, bench.area, bench.content), "are in the file as they were not written")


def _none(wrong: set[int], what: str) -> None:
    if wrong:
        raise Failed(f"{len(wrong)} blocks {what}, the first is {min(wrong)}")


def _moved(extents: Sequence[Extent], what: str) -> Finding:
    size = sum(count for _, count in extents) * BLOCK
    return Finding(f"{size} bytes {what}", {"bytes": float(size)})


def _flush(bench: Bench) -> Finding:
    lba, count = bench.bad + 1, 64
    data = bench.image.pattern.blocks(lba, count, bench.generation + 1)
    bench.disk.write(lba, data)
    bench.disk.flush()
    _none(set(differing(lba, bench.image.read(lba, count), data)), "are not in the file after a flush")
    return Finding(
        f"{count} blocks are in the file after it; write cache {'on' if bench.disk.write_cache else 'off'}"
    )


def _queue(bench: Bench) -> Finding:
    disk, chance = bench.disk, Random(bench.generation)
    bench.generation += 1
    lba, count = bench.area[0][0], _COMMANDS * _EACH
    places = [lba + n * _EACH for n in range(_COMMANDS)]
    written = disk.buffer(count * BLOCK)
    written.view[:] = bench.content(lba, count)
    chance.shuffle(places)
    _ended(
        bench,
        disk.start(
            [each for at in places for each in disk.write_commands(at, _EACH, written, (at - lba) * BLOCK)]
        ),
    )
    found = disk.buffer(count * BLOCK)
    found.view[:] = bytes(count * BLOCK)
    chance.shuffle(places)
    _ended(
        bench,
        disk.start(
            [each for at in places for each in disk.read_commands(at, _EACH, found, (at - lba) * BLOCK)]
        ),
    )
    _none(
        set(differing(lba, bytes(found.view), bytes(written.view))), "were read back as they were not written"
    )
    written.close()
    found.close()
    # The rest of the area is brought to the same generation.
    bench.blocks.write("MiB written", bench.area, bench.content)
    depth, most = min(disk.queue_depth, disk.adapter.queue_depth, _COMMANDS), disk.stats().in_flight_most
    if most < depth:
        raise Failed(f"at most {most} commands were in flight; the disk takes {disk.queue_depth} at once")
    return Finding(
        f"{_COMMANDS} writes and reads at random places, up to {most} in flight, each block in its place",
        {"commands": float(2 * _COMMANDS), "in_flight_most": float(most)},
    )


def _ended(bench: Bench, requests: Sequence[Request]) -> None:
    """Wait for all of them, then raise the error of the first that failed."""
    for request in requests:
        bench.ctrl_c.check()
        request.wait(LIMIT)
    for request in requests:
        request.result()


def _load(bench: Bench) -> Finding:
    before, began = bench.disk.stats(), monotonic()
    while True:
        _generation(bench)
        if (passed := monotonic() - began) >= bench.seconds:
            break
    after = bench.disk.stats()
    figures = {
        name: float(getattr(after, name) - getattr(before, name))
        for name in ("commands", "bytes_read", "bytes_written", "errors", "timeouts")
    }
    if figures["errors"] or figures["timeouts"]:
        raise Failed(
            f"{figures['errors']:.0f} errors and {figures['timeouts']:.0f} timeouts in {passed:.0f} s"
        )
    return Finding(
        f"{figures['bytes_written']:.0f} bytes written and read back within {passed:.0f} s, every byte checked",
        figures | {"seconds": round(passed, 3)},
    )


def _medium_error(bench: Bench) -> Finding:
    disk, bad, before = bench.disk, bench.bad, bench.disk.stats().errors
    try:
        disk.read(bad, 1)
    except ScsiError as error:
        told = error
    else:
        raise Failed(f"block {bad} was read, but it cannot be read")
    if told.sense is None or (told.sense.key, told.sense.asc) != _TOLD[bench.kind]:
        raise Failed(f"the error is not told as the disk tells it: {told}")
    if disk.stats().errors == before:
        raise Failed("the error was not counted")
    if disk.read(bad - 8, 8) != bench.image.read(bad - 8, 8):
        raise Failed("the blocks before the bad one are not read as the file has them")
    data = bench.image.pattern.blocks(bad, 1, bench.generation + 1)
    disk.write(bad, data)
    disk.flush()
    if bench.image.read(bad, 1) != data:
        raise Failed("what was written to the bad block is not in the file")
    return Finding(f"told as it is, {told.sense}; the blocks beside it are read, it can be written")


def _reset(bench: Bench) -> Finding:
    disk, adapter = bench.disk, bench.disk.adapter
    bench.generation += 1
    requests = [
        request for lba, count in bench.area for request in disk.start_write(lba, bench.content(lba, count))
    ]
    how = "reset"
    try:
        adapter.reset()
    except NotSupported:
        how = "rescan (its driver resets nothing by itself)"
        adapter.rescan()
    _ended(bench, requests)
    disk.flush()
    if adapter.state != "online":
        raise Failed(f"the adapter is {adapter.state} after a {how}")
    wrong = bench.blocks.differing("MiB read back", bench.area, bench.content)
    _none(wrong, f"were not written in spite of a {how}")
    return Finding(f"a {how} amid {len(requests)} writes; none was lost", {"commands": float(len(requests))})


def _reload(bench: Bench) -> Finding:
    host, old = bench.session.host, bench.disk
    module, engine = str(bench.adapter.module), bench.adapter.engine
    if leaks := host.unload(module, engine=engine):
        raise Failed(f"unloaded, it left {len(leaks)} things: {leaks[0].kind}: {leaks[0].what}")
    if old.error is None:
        raise Failed("the disk was still there when its driver was not")
    host.load(module, engine=engine)
    if bench.adapter.error is not None:
        raise bench.adapter.error
    bench.find()
    _generation(bench)
    return Finding(f"{module} was unloaded and loaded again; the disk was written and read")


def _image(beside: dict[Extent, bytes], bench: Bench) -> Finding:
    """From outside, when QEMU has ended."""
    wrong = {
        block
        for (lba, count), was in beside.items()
        for block in differing(lba, bench.image.read(lba, count), was)
    }
    _none(wrong, "that nobody wrote are not what they were")
    _none(differing_in(bench.image, bench.area, bench.content), "are not what was written last")
    return Finding("it has what was written last, and is otherwise what it was")


#: The checks, in their order.
STEPS: Final = (
    Step("driver", _driver, vital=True),
    Step("disk", _disk, vital=True),
    Step("inquiry", _inquiry),
    Step("capacity", _capacity),
    Step("read", _read),
    Step("write", _write),
    Step("flush", _flush),
    Step("queue", _queue),
    Step("load", _load),
    Step("medium-error", _medium_error),
    Step("reset", _reset),
    Step("reload", _reload),
)
