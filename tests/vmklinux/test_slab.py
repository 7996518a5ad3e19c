"""Slab caches, on both kernels: what an object of a cache is like is checked against what the cache was asked for.

The constructor is machine code of the test's.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.vmklinux.conftest import code
from vmkernel_core.memory import load
from vmklinux.kobject import Obj
from vmklinux.layout import has_struct

if TYPE_CHECKING:
    from vmklinux.linux import Linux


def create(linux: Linux, size: int, align: int, ctor: int, scratch: int) -> int:
    """A cache, made as the kernel's own modules do: 6.12's inline wrapper puts the rare arguments into a struct."""
    name = linux.new_string("test")
    if has_struct(linux.types, "kmem_cache_args"):
        args = Obj(linux.types, "kmem_cache_args", scratch)
        args.align, args.ctor = align, ctor
        cache = linux.call(linux.entry("__kmem_cache_create_args"), name, size, args, 0)
    else:
        cache = linux.call(linux.entry("kmem_cache_create"), name, size, align, 0, ctor)
    linux.free(name)
    return cache


def test_objects_of_a_cache(linux: Linux, scratch: int) -> None:
    mark = code(b"\xc7\x07\x78\x56\x34\x12")  # mov dword [rdi], 0x12345678
    cache = create(linux, 200, 128, mark, scratch)
    objects = [linux.call(linux.entry("kmem_cache_alloc"), cache, 0) for _ in range(40)]
    assert all(at % 128 == 0 and load(at, 4) == 0x1234_5678 for at in objects)
    ordered = sorted(objects)
    assert all(after - before >= 200 for before, after in itertools.pairwise(ordered))
    for at in objects:
        linux.call(linux.entry("kmem_cache_free"), cache, at)
    linux.call(linux.entry("kmem_cache_destroy"), cache)
