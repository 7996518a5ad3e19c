"""vmkiscsi reads and writes the blocks of targets. Independent of us: tgt, whose backing files are compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.native_drivers.iscsi import BLOCK, LIMIT, MIB, NAME, disk, host_with, image, naa, on_disk
from tests.native_drivers.tgt import Target, Tgt
from vmkernel_core.boot import VMkernel
from vmkernel_core.storage.command import Direction
from vmkernel_core.storage.errors import IllegalRequest, MediumError, WriteProtected
from vmkernel_core.storage.sg_array import SgArray


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Backing files by what they are for."""
    directory = tmp_path_factory.mktemp("images")
    return {name: image(directory / name) for name in ("a", "b", "c", "protected", "short")}


@pytest.fixture(scope="module")
def tgt(images: dict[str, Path]) -> Iterator[Tgt]:
    """Two targets with five units."""
    one = Target(NAME.format("one"), {1: images["a"], 2: images["b"], 3: images["protected"]}, read_only=(3,))
    two = Target(NAME.format("two"), {1: images["c"], 300: images["short"]})
    with Tgt(one, two) as running:
        yield running


@pytest.fixture(scope="module")
def host(tgt: Tgt) -> Iterator[VMkernel]:
    """All that the portal tells of."""
    with host_with(f"portal={tgt.portal}") as booted:
        yield booted


def test_all_targets_and_units_of_a_portal_are_found(host: VMkernel) -> None:
    assert sorted(host.storage) == sorted(naa(*at) for at in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 300)))
    (adapter,) = host.storage_adapters.values()
    assert (adapter.driver, adapter.pci_address, adapter.state) == ("vmkiscsi", None, "online")
    # Above 255 a LUN has the address method of flat space in it (SAM-5, 4.7.7.3), as on Linux.
    paths = {device.path for device in host.storage.values()}
    assert paths >= {"vmhba0:C0:T0:L1", f"vmhba0:C0:T1:L{0x4000 | 300}"}
    assert all(device.vendor == "IET" and device.capacity == 8 * MIB for device in host.storage.values())


def test_what_is_read_is_in_the_backing_file(host: VMkernel, images: dict[str, Path]) -> None:
    for name, target, lun in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1), ("short", 2, 300)):
        device = disk(host, target, lun)
        read = b"".join(device.read(lba, 4096) for lba in range(0, device.blocks, 4096))
        assert read == images[name].read_bytes()


@pytest.mark.parametrize("blocks", [1, 15, 16, 17, 127, 128, 129, 513, 8192])
def test_what_is_written_is_in_the_backing_file(host: VMkernel, images: dict[str, Path], blocks: int) -> None:
    """Around the lengths where data goes with the command, unasked behind it, and when the target asks for it."""
    device, before = disk(host), images["a"].read_bytes()
    data = Random(blocks).randbytes(blocks * BLOCK)
    device.write(33, data)
    device.flush()
    after = before[: 33 * BLOCK] + data + before[33 * BLOCK + len(data) :]
    assert images["a"].read_bytes() == after
    assert device.read(33, blocks) == data


def test_data_lies_in_pieces_of_any_length(host: VMkernel, images: dict[str, Path]) -> None:
    device, chance = disk(host, 1, 2), Random(4)
    with device.buffer(4 * MIB) as memory:
        for blocks in (1, 64, 2000):
            left, at, pieces = blocks * BLOCK, 0, []
            while left:
                length = min(left, chance.choice((1, 3, 511, 512, 4096, 70000)))
                pieces.append((memory.machine_address + at, length))
                left, at = left - length, at + length + chance.randrange(64)
            chance.shuffle(pieces)
            data = SgArray(host.memory, pieces)
            memory.view[:] = chance.randbytes(len(memory.view))
            base = memory.machine_address
            written = b"".join(bytes(memory.view[a - base : a - base + n]) for a, n in pieces)
            device.write(7, data)
            assert on_disk(images["b"], 7, blocks) == written
            memory.view[:] = bytes(len(memory.view))
            device.read_into(7, data)
            assert b"".join(bytes(memory.view[a - base : a - base + n]) for a, n in pieces) == written


def test_many_commands_are_in_flight(host: VMkernel, images: dict[str, Path]) -> None:
    device = disk(host, 2, 1)
    assert device.queue_depth == 32
    with device.buffer(256 * 4096) as memory:
        commands = [
            command for at in range(256) for command in device.read_commands(at * 8, 8, memory, at * 4096)
        ]
        for request in device.start(commands):
            request.result(LIMIT)
        assert bytes(memory.view) == images["c"].read_bytes()[: 256 * 4096]
    assert device.stats().in_flight_most == 32
    assert device.in_flight == 0


def test_what_the_target_refuses_is_told_in_its_own_words(host: VMkernel, images: dict[str, Path]) -> None:
    protected = disk(host, 1, 3)
    assert protected.read_only
    for blocks in (1, 1024):  # all data with the command, and some behind it
        with pytest.raises(WriteProtected, match="write protected"):
            protected.write(0, bytes(blocks * BLOCK))
    assert protected.read(5, 1000) == on_disk(images["protected"], 5, 1000)
    with pytest.raises(IllegalRequest, match="logical block address out of range"):
        disk(host).submit(bytes([0x28, 0, 0x7F, 0, 0, 0, 0, 0, 1, 0]), Direction.FROM_DEVICE, 512).result(
            LIMIT
        )
    with pytest.raises(IllegalRequest, match="invalid field in CDB"):
        disk(host).submit(bytes([0x7F, *bytes(31)])).result(LIMIT)


def test_a_unit_that_became_shorter(host: VMkernel, images: dict[str, Path]) -> None:
    short, content = disk(host, 2, 300), images["short"].read_bytes()
    with images["short"].open("r+b") as file:
        file.truncate(MIB)
    try:
        with pytest.raises(MediumError, match="unrecovered read error"):
            short.read(MIB // BLOCK - 4, 8)
        assert short.read(0, 8) == content[: 8 * BLOCK]
    finally:
        images["short"].write_bytes(content)
