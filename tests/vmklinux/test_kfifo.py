"""Rings of bytes of the kernel image (lib/kfifo.c) on memory of ours, on both kernels. Independent of us: the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.memory import load_bytes, store_bytes

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def test_what_goes_in_comes_out_around_the_end(linux: Linux, scratch: int) -> None:
    fifo = linux.new("__kfifo")
    assert linux.call_int("__kfifo_alloc", fifo, 64, 1, 0) == 0
    text = b"0123456789abcdefghijklmnopqrstuvwxyz"
    store_bytes(scratch, text)
    for _ in range(10):  # 360 bytes through a ring of 64
        assert linux.call_int("__kfifo_in", fifo, scratch, len(text)) == len(text)
        assert linux.call_int("__kfifo_in", fifo, scratch, 64) == 64 - len(text), (
            "no more than there is room for"
        )
        assert linux.call_int("__kfifo_out", fifo, scratch + 128, 64) == 64
        assert load_bytes(scratch + 128, len(text)) == text
    assert linux.call_int("__kfifo_out", fifo, scratch, 1) == 0
    linux.call("__kfifo_free", fifo)
    linux.free(fifo)
