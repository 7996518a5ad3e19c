"""Pools of DMA memory, on both kernels: what a driver gets is checked against what it asked for."""

from __future__ import annotations

import itertools

import pytest

from vmkernel_core._core import lib
from vmkernel_core.memory import load, load_bytes, store_bytes
from vmklinux.errors import DriverStopped
from vmklinux.linux import Linux


def create(linux: Linux, device: int, size: int, align: int, boundary: int = 0) -> int:
    return linux.call(linux.entry("dma_pool_create"), 0, device, size, align, boundary)


def take(linux: Linux, pool: int, scratch: int) -> tuple[int, int]:
    """A block's address, and the DMA address that came with it."""
    block = linux.call(linux.entry("dma_pool_alloc"), pool, 0, scratch)
    return block, load(scratch, 8)


@pytest.mark.parametrize(
    ("size", "align", "boundary"),
    [(8, 1, 0), (24, 16, 0), (40, 64, 0), (100, 4, 128), (4096, 8, 0), (150_000, 4, 0)],
)
def test_blocks(linux: Linux, scratch: int, size: int, align: int, boundary: int) -> None:
    device = int(linux.new("device"))
    pool = create(linux, device, size, align, boundary)
    blocks = [take(linux, pool, scratch) for _ in range(5 if size > 4096 else 300)]
    for block, handle in blocks:
        assert handle == block - linux.memory.base
        assert block % align == 0
        assert not boundary or block // boundary == (block + size - 1) // boundary
        assert load_bytes(block, size) == bytes(size)
        store_bytes(block, b"\xff" * size)
    ordered = sorted(block for block, _ in blocks)
    assert all(after - before >= size for before, after in itertools.pairwise(ordered))
    for block, handle in blocks:
        linux.call(linux.entry("dma_pool_free"), pool, block, handle)
    assert load_bytes(take(linux, pool, scratch)[0], size) == bytes(size), "used before, and cleared"
    linux.call(linux.entry("dma_pool_free"), pool, load(scratch, 8) + linux.memory.base, load(scratch, 8))
    linux.call(linux.entry("dma_pool_destroy"), pool)
    assert lib.linux_dma_end(device) == 0
    linux.free(device)


def test_what_cannot_be(linux: Linux) -> None:
    for size, align, boundary in ((0, 1, 0), (8, 3, 0), (100, 4, 64), (8, 8, 100)):
        assert create(linux, 4096, size, align, boundary) == 0
    assert create(linux, 0, 8, 8) == 0


def test_misuse_and_leaks(linux: Linux, scratch: int) -> None:
    device = int(linux.new("device"))
    pool = create(linux, device, 64, 64)
    block, handle = take(linux, pool, scratch)
    linux.call(linux.entry("dma_pool_free"), pool, block, handle)
    for stray in (block, block + 8, scratch):
        with pytest.raises(DriverStopped, match="misused emulated function"):
            linux.call(linux.entry("dma_pool_free"), pool, stray, 0)
    take(linux, pool, scratch)
    linux.call(linux.entry("dma_pool_destroy"), pool)
    assert lib.linux_dma_end(device) == 1, "a page of which a block is out stays mapped"
    linux.free(device)
